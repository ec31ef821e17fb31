use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header::LOCATION};
use serde::Deserialize;
use utoipa::ToSchema;
use weir_store::{FullName, NewEmployee};

use super::dto::{self, EmployeeBody};
use super::names;
use crate::api::App;
use crate::extract::Json;
use crate::problem::Problem;
use crate::profiles::{AnyUserId, UserId};

/// Somebody new.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEmployee)]
pub(super) struct CreateBody {
    /// E.164: + and 7 to 15 digits. Spaces, dashes and brackets are removed.
    #[schema(pattern = r"^\+[1-9][0-9]{6,14}$", example = "+1234567890")]
    phone: String,
    /// Their user id at MAX: a string or a whole number. Without it, it is taken from who has confirmed this phone.
    #[serde(default)]
    #[schema(value_type = Option<AnyUserId>)]
    max_id: Option<UserId>,
    /// Goes before every other name. Without first and last name the one of their profile is taken.
    #[serde(default)]
    #[schema(max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "Иван")]
    first_name: Option<String>,
    /// See `first_name`.
    #[serde(default)]
    #[schema(max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "Петров")]
    last_name: Option<String>,
    #[serde(default)]
    #[schema(minimum = 1, example = 1)]
    university_id: Option<i64>,
}

/// Make somebody an employee
///
/// A name that the request gives counts; else the one that the user gave, else MAX's, else `Неизвестно`. A profile that
/// cannot be read in time never keeps anybody out.
#[utoipa::path(post, path = "/employees",
    request_body(content = CreateBody, example = json!({"phone": "+1234567890", "max_id": "12345", "university_id": 1})),
    responses(
        (status = 201, description = "they are an employee now; `Location` says where", body = EmployeeBody, example = json!({
            "id": 1, "phone": "+1234567890", "max_id": "12345", "first_name": "Иван", "last_name": "Петров",
            "university_id": 1, "profile_source": "webhook", "profile_last_updated": "2026-07-01T12:00:00.000000Z",
            "created_at": "2026-07-01T12:00:01.000000Z", "updated_at": "2026-07-01T12:00:01.000000Z"
        })),
    ))]
pub(super) async fn create(
    State(app): State<App>,
    Json(body): Json<CreateBody>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<EmployeeBody>), Problem> {
    let (phone, first) = (dto::phone(&body.phone), dto::name("first_name", body.first_name.as_deref()));
    let (last, university_id) =
        (dto::name("last_name", body.last_name.as_deref()), dto::university(body.university_id));
    let (phone, first, last, university_id) = match (phone, first, last, university_id) {
        (Ok(phone), Ok(first), Ok(last), Ok(university_id)) => (phone, first, last, university_id),
        (phone, first, last, university_id) => {
            let faults = [phone.err(), first.err(), last.err(), university_id.err()];
            return Err(Problem::Invalid { faults: faults.into_iter().flatten().collect() });
        }
    };
    let max_id = body.max_id.as_ref().map(UserId::as_str);
    let named = names::resolve(&app, FullName { first, last }, max_id, &phone).await;
    let new = NewEmployee {
        phone,
        max_id: named.max_id,
        name: named.name,
        university_id,
        profile_source: named.source,
        profile_last_updated: named.version,
    };
    let made = EmployeeBody::from(app.store.create_employee(&new).await?);
    Ok((StatusCode::CREATED, [(LOCATION, format!("/employees/{}", made.id))], Json(made)))
}
