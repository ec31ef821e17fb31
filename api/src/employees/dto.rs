//! Employees as they come in and go out.

use serde::Serialize;
use utoipa::ToSchema;
use weir_store::Employee;

use crate::moment;
use crate::problem::Fault;
use crate::profiles::check_name;

/// Somebody who works for a university.
#[derive(Serialize, ToSchema)]
#[schema(as = Employee)]
pub(super) struct EmployeeBody {
    #[schema(example = 1)]
    pub(super) id: i64,
    /// E.164 by its form. Several may share one.
    #[schema(example = "+1234567890")]
    phone: String,
    /// Their user id at MAX, if it is known.
    #[schema(example = "12345", required = true)]
    max_id: Option<String>,
    /// `Неизвестно` if no name is known at all.
    #[schema(example = "Иван")]
    first_name: String,
    /// May be empty.
    #[schema(example = "Петров")]
    last_name: String,
    #[schema(example = 1, required = true)]
    university_id: Option<i64>,
    /// From where the name comes: `manual` (a request), `user_input` (the user), `webhook` (MAX) or `default` (nowhere).
    #[schema(example = "webhook")]
    profile_source: String,
    /// `last_updated` of the profile that the name comes from.
    #[schema(example = "2026-07-01T12:00:00.000000Z", required = true, format = DateTime)]
    profile_last_updated: Option<String>,
    #[schema(example = "2026-07-01T12:00:00.000000Z", format = DateTime)]
    created_at: String,
    #[schema(example = "2026-07-01T12:00:00.000000Z", format = DateTime)]
    updated_at: String,
}

impl From<Employee> for EmployeeBody {
    fn from(employee: Employee) -> Self {
        Self {
            id: employee.id,
            phone: employee.phone,
            max_id: employee.max_id,
            first_name: employee.name.first,
            last_name: employee.name.last,
            university_id: employee.university_id,
            profile_source: employee.profile_source,
            profile_last_updated: employee.profile_last_updated.map(moment::text),
            created_at: moment::text(employee.created_at),
            updated_at: moment::text(employee.updated_at),
        }
    }
}

/// What people write into phone numbers.
const BETWEEN: [char; 4] = [' ', '-', '(', ')'];

/// A phone in E.164 by its form: whether anybody has it is not asked.
pub(super) fn phone(text: &str) -> Result<String, Fault> {
    let phone = text.replace(BETWEEN, "");
    let digits = phone.strip_prefix('+').unwrap_or_default();
    let good =
        (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if good { Ok(phone) } else { Err(fault("phone", "must be E.164: + and 7 to 15 digits, the first not 0")) }
}

/// A name without the spaces around it; empty if there is none.
pub(super) fn name(field: &str, text: Option<&str>) -> Result<String, Fault> {
    let text = text.unwrap_or_default();
    check_name(field, text)?;
    Ok(text.trim().to_owned())
}

/// The number of a university.
pub(super) fn university(id: Option<i64>) -> Result<Option<i64>, Fault> {
    match id {
        Some(id) if id <= 0 => Err(fault("university_id", "must be above 0")),
        id => Ok(id),
    }
}

fn fault(field: &str, message: &str) -> Fault {
    Fault { field: field.into(), code: "invalid", message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::phone;

    #[test]
    fn a_phone_has_the_form_of_e164_and_need_not_exist() {
        for (text, expected) in
            [("+1234567890", "+1234567890"), ("+7 (919) 496-11-82", "+79194961182"), ("+1234567", "+1234567")]
        {
            assert_eq!(phone(text).unwrap(), expected);
        }
        for text in
            ["", "+", "89194961182", "+0123456789", "+123456", "+1234567890123456", "+٧٩١٩٤٩٦١١٨٢", "+7919496118x"]
        {
            assert!(phone(text).is_err(), "{text}");
        }
    }
}
