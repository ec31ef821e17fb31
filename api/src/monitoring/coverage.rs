//! Who of all users is known by name.

use axum::extract::State;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{BySource, enabled, percentage, switched_off};
use crate::api::App;
use crate::extract::Json;
use crate::moment;
use crate::problem::{Problem, ProblemBody};

/// Who of all users is known by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Coverage {
    /// Every user id that was ever seen.
    #[schema(example = 10000)]
    total_users: i64,
    /// Those with a name of any kind.
    #[schema(example = 8500)]
    users_with_profiles: i64,
    /// Those with a full name: both names of MAX, or a name of two words that they told.
    #[schema(example = 7200)]
    users_with_full_names: i64,
    /// `users_with_profiles` of `total_users`, of a hundred.
    #[schema(example = 85.0)]
    coverage_percentage: f64,
    /// `users_with_full_names` of `total_users`, of a hundred.
    #[schema(example = 72.0)]
    full_name_percentage: f64,
    /// All users, by what gave the name that counts.
    profiles_by_source: BySource,
    /// When this was counted: now.
    #[schema(example = "2026-07-01T12:00:00.000000Z", format = DateTime)]
    last_updated: String,
}

/// How many users are known by name.
///
/// The alert `profile_coverage` fires when `coverage_percentage` is below `PROFILE_QUALITY_ALERT_THRESHOLD`.
#[utoipa::path(get, path = "/monitoring/profiles/coverage", responses(
    (status = 200, description = "the coverage", body = Coverage, example = json!({
        "total_users": 10000, "users_with_profiles": 8500, "users_with_full_names": 7200,
        "coverage_percentage": 85.0, "full_name_percentage": 72.0,
        "profiles_by_source": {"webhook": 6900, "user_input": 1600, "default": 1500},
        "last_updated": "2026-07-01T12:00:00.000000Z",
    })),
    (status = 404, description = "the monitoring is switched off", body = ProblemBody, example = json!(switched_off())),
))]
pub(super) async fn coverage(State(app): State<App>) -> Result<Json<Coverage>, Problem> {
    enabled(&app)?;
    let counts = app.store.profile_counts().await?;
    Ok(Json(Coverage {
        total_users: counts.users,
        users_with_profiles: counts.named,
        users_with_full_names: counts.full,
        coverage_percentage: percentage(counts.named, counts.users),
        full_name_percentage: percentage(counts.full, counts.users),
        profiles_by_source: BySource::of(&counts),
        last_updated: moment::text(OffsetDateTime::now_utc()),
    }))
}
