use time::OffsetDateTime;

use super::FullName;
use crate::{NameSource, Store, StoreError};

/// A row of `employees`. No `Debug`: it is personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Employee {
    /// The row.
    pub id: i64,
    /// E.164 by its form.
    pub phone: String,
    /// Their user id at MAX, if it is known.
    pub max_id: Option<String>,
    /// What they are called.
    pub name: FullName,
    /// Where they work.
    pub university_id: Option<i64>,
    /// From where the name comes: the word of a [`NameSource`].
    pub profile_source: String,
    /// The version of the profile that it comes from.
    pub profile_last_updated: Option<OffsetDateTime>,
    /// When the row was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// Somebody new. No `Debug`: it is personal data.
#[derive(Clone)]
pub struct NewEmployee {
    /// See [`Employee`].
    pub phone: String,
    /// See [`Employee`].
    pub max_id: Option<String>,
    /// See [`Employee`].
    pub name: FullName,
    /// See [`Employee`].
    pub university_id: Option<i64>,
    /// See [`Employee`].
    pub profile_source: NameSource,
    /// See [`Employee`].
    pub profile_last_updated: Option<OffsetDateTime>,
}

/// What is to be different. What is none stays as it is; the inner option is the new value. No `Debug`: it is personal data.
#[derive(Clone, Default)]
pub struct EmployeePatch {
    /// See [`Employee`].
    pub phone: Option<String>,
    /// See [`Employee`].
    pub max_id: Option<Option<String>>,
    /// See [`Employee`].
    pub university_id: Option<Option<i64>>,
    /// The name, where it comes from, and the version of the profile that it comes from.
    pub name: Option<(FullName, NameSource, Option<OffsetDateTime>)>,
}

/// Which employees are looked for: those who have all that is given. No `Debug`: it is personal data.
#[derive(Clone, Default)]
pub struct EmployeeFilter {
    /// See [`Employee`].
    pub phone: Option<String>,
    /// See [`Employee`].
    pub max_id: Option<String>,
    /// See [`Employee`].
    pub university_id: Option<i64>,
    /// See [`Employee`].
    pub profile_source: Option<NameSource>,
}

struct Row {
    id: i64,
    phone: String,
    max_id: Option<String>,
    first_name: String,
    last_name: String,
    university_id: Option<i64>,
    profile_source: String,
    profile_last_updated: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl From<Row> for Employee {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            phone: row.phone,
            max_id: row.max_id,
            name: FullName { first: row.first_name, last: row.last_name },
            university_id: row.university_id,
            profile_source: row.profile_source,
            profile_last_updated: row.profile_last_updated,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl Store {
    /// Makes somebody an employee.
    pub async fn create_employee(&self, new: &NewEmployee) -> Result<Employee, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "INSERT INTO employees (
                 phone, max_id, first_name, last_name, university_id, profile_source, profile_last_updated
             ) VALUES ($1, $2, $3, $4, $5, $6, $7)
             RETURNING id, phone, max_id, first_name, last_name, university_id, profile_source, profile_last_updated,
                       created_at, updated_at",
            new.phone,
            new.max_id,
            new.name.first,
            new.name.last,
            new.university_id,
            new.profile_source.as_str(),
            new.profile_last_updated
        );
        Ok(self.on_connection(async |connection| Ok(row.fetch_one(connection).await?)).await?.into())
    }

    /// An employee; none if there is none of that id.
    pub async fn find_employee(&self, id: i64) -> Result<Option<Employee>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, phone, max_id, first_name, last_name, university_id, profile_source, profile_last_updated,
                    created_at, updated_at
             FROM employees WHERE id = $1",
            id
        );
        let row = self.on_connection(async |connection| Ok(row.fetch_optional(connection).await?)).await?;
        Ok(row.map(Employee::from))
    }

    /// The employees behind the one of that id, in the order of their ids, `limit` at most.
    pub async fn list_employees(
        &self,
        filter: &EmployeeFilter,
        behind: i64,
        limit: u16,
    ) -> Result<Vec<Employee>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, phone, max_id, first_name, last_name, university_id, profile_source, profile_last_updated,
                    created_at, updated_at
             FROM employees
             WHERE id > $1 AND ($2::text IS NULL OR phone = $2) AND ($3::text IS NULL OR max_id = $3)
                 AND ($4::bigint IS NULL OR university_id = $4) AND ($5::text IS NULL OR profile_source = $5)
             ORDER BY id LIMIT $6",
            behind,
            filter.phone,
            filter.max_id,
            filter.university_id,
            filter.profile_source.map(NameSource::as_str),
            i64::from(limit)
        );
        let rows = self.planned_anew(async |connection| Ok(rows.fetch_all(connection).await?)).await?;
        Ok(rows.into_iter().map(Employee::from).collect())
    }

    /// Changes an employee, and gives them as they are then; none if there is none of that id.
    pub async fn change_employee(&self, id: i64, patch: &EmployeePatch) -> Result<Option<Employee>, StoreError> {
        let (name, source, version) = match &patch.name {
            Some((name, source, version)) => (Some(name), Some(source.as_str()), *version),
            None => (None, None, None),
        };
        let row = sqlx::query_as!(
            Row,
            "UPDATE employees SET
                 phone = coalesce($2, phone),
                 max_id = CASE WHEN $3 THEN $4 ELSE max_id END,
                 university_id = CASE WHEN $5 THEN $6 ELSE university_id END,
                 first_name = coalesce($7, first_name),
                 last_name = coalesce($8, last_name),
                 profile_source = coalesce($9, profile_source),
                 profile_last_updated = CASE WHEN $9::text IS NULL THEN profile_last_updated ELSE $10 END,
                 updated_at = greatest(now(), updated_at + interval '1 microsecond')
             WHERE id = $1
             RETURNING id, phone, max_id, first_name, last_name, university_id, profile_source, profile_last_updated,
                       created_at, updated_at",
            id,
            patch.phone,
            patch.max_id.is_some(),
            patch.max_id.clone().flatten(),
            patch.university_id.is_some(),
            patch.university_id.flatten(),
            name.map(|name| name.first.as_str()),
            name.map(|name| name.last.as_str()),
            source,
            version
        );
        let row = self.on_connection(async |connection| Ok(row.fetch_optional(connection).await?)).await?;
        Ok(row.map(Employee::from))
    }

    /// Removes an employee; false if there is none of that id.
    pub async fn delete_employee(&self, id: i64) -> Result<bool, StoreError> {
        let gone = sqlx::query!("DELETE FROM employees WHERE id = $1", id);
        self.on_connection(async |connection| Ok(gone.execute(connection).await?.rows_affected() > 0)).await
    }
}
