//! Changing and removing employees.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use weir_store::{Employee, EmployeePatch, FullName};

use super::dto::{self, EmployeeBody};
use super::{names, show};
use crate::api::App;
use crate::extract::{Json, Path};
use crate::problem::{Fault, Problem, ProblemBody};
use crate::profiles::{AnyUserId, UserId, given};

/// What is to be different. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmployeeChange)]
pub(super) struct PatchBody {
    /// E.164: + and 7 to 15 digits.
    #[serde(default)]
    #[schema(pattern = r"^\+[1-9][0-9]{6,14}$", example = "+79194961182")]
    phone: Option<String>,
    /// Their user id at MAX; null takes it away. A name that came from a profile then comes from that of the new id.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<AnyUserId>)]
    max_id: Option<Option<UserId>>,
    /// Null or an empty text takes it away. Without first and last name the one of their profile is taken.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "Иван")]
    first_name: Option<Option<String>>,
    /// See `first_name`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 256, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$", example = "Петров")]
    last_name: Option<Option<String>>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>, minimum = 1, example = 1)]
    university_id: Option<Option<i64>>,
}

/// The fields of a change, after a look at each.
struct Wanted {
    phone: Option<String>,
    max_id: Option<Option<String>>,
    first: Option<String>,
    last: Option<String>,
    university_id: Option<Option<i64>>,
}

/// Change an employee
#[utoipa::path(patch, path = "/employees/{id}",
    params(("id" = i64, minimum = 1, description = "their number", example = 1)),
    request_body(content = PatchBody, example = json!({"university_id": 2, "last_name": "Петров"})),
    responses(
        (status = 200, description = "who they are after it", body = EmployeeBody, example = json!({
            "id": 1, "phone": "+1234567890", "max_id": "12345", "first_name": "Иван", "last_name": "Петров",
            "university_id": 2, "profile_source": "manual", "profile_last_updated": null,
            "created_at": "2026-07-01T12:00:01.000000Z", "updated_at": "2026-07-01T12:00:02.000000Z"
        })),
        (status = 404, description = "there is no such employee", body = ProblemBody, content_type = "application/problem+json",
         example = json!({"type": "urn:weir:problem:not-found", "title": "not found", "status": 404,
             "detail": "there is no such employee"})),
    ))]
pub(super) async fn patch(
    State(app): State<App>,
    Path(id): Path<i64>,
    Json(body): Json<PatchBody>,
) -> Result<Json<EmployeeBody>, Problem> {
    let wanted = body.check()?;
    let before = app.store.find_employee(id).await?.ok_or_else(show::unknown)?;
    let patch = wanted.patch(&app, before).await;
    Ok(Json(app.store.change_employee(id, &patch).await?.ok_or_else(show::unknown)?.into()))
}

impl PatchBody {
    fn check(self) -> Result<Wanted, Problem> {
        let mut faults = Vec::new();
        let wanted = Wanted {
            phone: self.phone.and_then(|phone| kept(dto::phone(&phone), &mut faults)),
            max_id: self.max_id.map(|id| id.map(UserId::into_string)),
            first: self.first_name.and_then(|name| kept(dto::name("first_name", name.as_deref()), &mut faults)),
            last: self.last_name.and_then(|name| kept(dto::name("last_name", name.as_deref()), &mut faults)),
            university_id: self.university_id.and_then(|id| kept(dto::university(id), &mut faults)),
        };
        if faults.is_empty() { Ok(wanted) } else { Err(Problem::Invalid { faults }) }
    }
}

/// The value, or nothing and a fault more.
fn kept<T>(result: Result<T, Fault>, faults: &mut Vec<Fault>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

impl Wanted {
    /// A name is looked for again if it is changed, and if it came from the profile of another id.
    async fn patch(self, app: &App, before: Employee) -> EmployeePatch {
        let Self { phone, mut max_id, first, last, university_id } = self;
        let (is_manual, is_nobody) = (before.profile_source == "manual", before.profile_source == "default");
        let renamed = first.is_some() || last.is_some();
        let moved = max_id.as_ref().is_some_and(|id| *id != before.max_id);
        let mut name = None;
        if renamed || (moved && !is_manual) {
            // What came from a profile is not given by anybody, and `Неизвестно` is no name.
            let nothing = FullName { first: String::new(), last: String::new() };
            let base = if (is_manual || renamed) && !is_nobody { before.name } else { nothing };
            let given = FullName { first: first.unwrap_or(base.first), last: last.unwrap_or(base.last) };
            let id = max_id.clone().unwrap_or(before.max_id);
            let named = names::resolve(app, given, id.as_deref(), phone.as_deref().unwrap_or(&before.phone)).await;
            if named.max_id != id && max_id.is_none() {
                max_id = Some(named.max_id);
            }
            name = Some((named.name, named.source, named.version));
        }
        EmployeePatch { phone, max_id, university_id, name }
    }
}

/// Remove an employee
#[utoipa::path(delete, path = "/employees/{id}",
    params(("id" = i64, minimum = 1, description = "their number", example = 1)),
    responses(
        (status = 204, description = "they are no employee any more"),
        (status = 404, description = "there is no such employee", body = ProblemBody, content_type = "application/problem+json",
         example = json!({"type": "urn:weir:problem:not-found", "title": "not found", "status": 404,
             "detail": "there is no such employee"})),
    ))]
pub(super) async fn delete(State(app): State<App>, Path(id): Path<i64>) -> Result<StatusCode, Problem> {
    if app.store.delete_employee(id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(show::unknown()) }
}
