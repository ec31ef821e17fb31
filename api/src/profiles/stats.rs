use axum::extract::State;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use weir_store::ProfileStats;

use crate::api::App;
use crate::extract::Json;
use crate::problem::Problem;

/// All profiles in numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfileStats)]
pub(super) struct StatsBody {
    /// User ids that were ever seen.
    #[schema(example = 1000)]
    total_profiles: i64,
    /// Those of whom a name of any kind is known.
    #[schema(example = 900)]
    profiles_with_name: i64,
    /// Those with a full name: both MAX names, or a name of two words that they gave.
    #[schema(example = 700)]
    profiles_with_full_name: i64,
    profiles_by_source: BySource,
    completeness: Completeness,
    freshness: Freshness,
}

/// By the name that counts.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfilesBySource)]
struct BySource {
    /// A name that the user gave.
    user_input: i64,
    /// MAX's name.
    webhook: i64,
    /// No name.
    default: i64,
}

/// Each profile is in one of the three numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfileCompleteness)]
struct Completeness {
    /// With a full name.
    full: i64,
    /// With a name that is not full.
    partial: i64,
    /// Without any.
    none: i64,
    /// Those with a full name as a share of all, 0 to 1; 0 if there are none.
    full_ratio: f64,
}

/// By the UTC day of the last change. Each profile is in one of the numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfileFreshness)]
struct Freshness {
    today: i64,
    /// In the six days before.
    last_7_days: i64,
    /// In the 23 days before those.
    last_30_days: i64,
    older: i64,
}

impl From<ProfileStats> for StatsBody {
    fn from(stats: ProfileStats) -> Self {
        let of = |source| stats.by_source.get(source).copied().unwrap_or_default();
        let full_ratio = if stats.total > 0 { stats.full as f64 / stats.total as f64 } else { 0.0 };
        Self {
            total_profiles: stats.total,
            profiles_with_name: stats.named,
            profiles_with_full_name: stats.full,
            profiles_by_source: BySource {
                user_input: of("user_input"),
                webhook: of("webhook"),
                default: of("default"),
            },
            completeness: Completeness {
                full: stats.full,
                partial: stats.named - stats.full,
                none: stats.total - stats.named,
                full_ratio,
            },
            freshness: Freshness {
                today: stats.fresh.today,
                last_7_days: stats.fresh.week,
                last_30_days: stats.fresh.month,
                older: stats.fresh.older,
            },
        }
    }
}

/// All profiles in numbers
///
/// By source, by how much of a name is known, and by age. The numbers are kept up with every change.
#[utoipa::path(get, path = "/profiles/stats", responses(
    (status = 200, description = "the numbers", body = StatsBody, example = json!({
        "total_profiles": 1000, "profiles_with_name": 900, "profiles_with_full_name": 700,
        "profiles_by_source": {"user_input": 100, "webhook": 800, "default": 100},
        "completeness": {"full": 700, "partial": 200, "none": 100, "full_ratio": 0.7},
        "freshness": {"today": 50, "last_7_days": 250, "last_30_days": 300, "older": 400}
    })),
))]
pub(super) async fn stats(State(app): State<App>) -> Result<Json<StatsBody>, Problem> {
    Ok(Json(app.store.profile_stats(OffsetDateTime::now_utc()).await?.into()))
}
