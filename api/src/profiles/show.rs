use axum::extract::State;

use super::{ProfileBody, UserId};
use crate::api::App;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};

/// A person's profile
///
/// There is one for every user id that was ever seen, also for those of whom no name is known.
#[utoipa::path(get, path = "/profiles/{user_id}",
    params(("user_id" = String, pattern = "^[A-Za-z0-9._@-]{1,64}$", description = "the provider's id", example = "12345")),
    responses(
        (status = 200, description = "what is known", body = ProfileBody, example = json!({
            "user_id": "12345", "display_name": "Иван Петров", "max_first_name": "Иван", "max_last_name": "Петров",
            "user_provided_name": "", "has_full_name": true, "source": "webhook",
            "last_updated": "2026-07-01T12:00:00.000000Z"
        })),
        (status = 404, description = "this id was never seen", body = ProblemBody, content_type = "application/problem+json",
         example = json!({"type": "urn:weir:problem:not-found", "title": "not found", "status": 404,
             "detail": "this user id was never seen"})),
    ))]
pub(super) async fn show(State(app): State<App>, Path(user_id): Path<String>) -> Result<Json<ProfileBody>, Problem> {
    let user_id = UserId::of_path(&user_id)?;
    let profile = app.profiles.get(user_id.as_str()).await?.ok_or_else(unknown)?;
    Ok(Json(profile.into()))
}

/// The problem of an id that was never seen.
pub(super) fn unknown() -> Problem {
    Problem::not_found("this user id was never seen")
}
