use axum::extract::State;

use super::dto::EmployeeBody;
use crate::api::App;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};

/// An employee
#[utoipa::path(get, path = "/employees/{id}",
    params(("id" = i64, minimum = 1, description = "their number", example = 1)),
    responses(
        (status = 200, description = "who they are", body = EmployeeBody, example = json!({
            "id": 1, "phone": "+1234567890", "max_id": "12345", "first_name": "Иван", "last_name": "Петров",
            "university_id": 1, "profile_source": "webhook", "profile_last_updated": "2026-07-01T12:00:00.000000Z",
            "created_at": "2026-07-01T12:00:01.000000Z", "updated_at": "2026-07-01T12:00:01.000000Z"
        })),
        (status = 404, description = "there is no such employee", body = ProblemBody, content_type = "application/problem+json",
         example = json!({"type": "urn:weir:problem:not-found", "title": "not found", "status": 404,
             "detail": "there is no such employee"})),
    ))]
pub(super) async fn show(State(app): State<App>, Path(id): Path<i64>) -> Result<Json<EmployeeBody>, Problem> {
    Ok(Json(app.store.find_employee(id).await?.ok_or_else(unknown)?.into()))
}

/// The problem of a number that nobody has.
pub(super) fn unknown() -> Problem {
    Problem::not_found("there is no such employee")
}
