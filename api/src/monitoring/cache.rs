//! How the profile cache does.

use axum::extract::State;
use serde::Serialize;
use time::Duration;
use utoipa::ToSchema;
use weir_core::profile_cache::{CacheError, CacheServer};

use super::span::{Span, SpanCounted};
use super::{enabled, percentage, ratio, share, switched_off};
use crate::api::App;
use crate::extract::{Json, Query};
use crate::problem::{Problem, ProblemBody};

/// How the profile cache does.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CacheHealth {
    status: Status,
    /// Whether its Redis answers just now.
    #[schema(example = true)]
    redis_connected: bool,
    /// Why it does not; null if it does, or is not asked.
    last_error: Option<String>,
    period: SpanCounted,
    /// Profiles that were looked for.
    #[schema(example = 5000)]
    total_operations: i64,
    /// Those that were there.
    #[schema(example = 4750)]
    hits: i64,
    /// Those that were not.
    #[schema(example = 245)]
    misses: i64,
    /// What got no answer in time, or one that nobody could read.
    #[schema(example = 5)]
    failed_operations: i64,
    /// `hits` of `hits` and `misses`, from 0 to 1.
    #[schema(example = 0.951)]
    cache_hit_rate: f64,
    /// `failed_operations` of `total_operations`, from 0 to 1.
    #[schema(example = 0.001)]
    error_rate: f64,
    /// Milliseconds that Redis took, by profile.
    #[schema(example = 0.4)]
    average_latency_ms: f64,
    /// Milliseconds that it took just now; null if it has not answered.
    #[schema(example = 0.6)]
    ping_ms: Option<f64>,
    /// Null if it has not answered.
    memory: Option<Memory>,
}

/// Whether the cache can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// It can.
    Healthy,
    /// It can, but more reads failed than `CACHE_FAILURE_ALERT_THRESHOLD` allows.
    Degraded,
    /// It does not answer: profiles come from PostgreSQL.
    Unavailable,
    /// There is none, or it is switched off: profiles come from PostgreSQL.
    Disabled,
}

/// Memory of the cache's Redis, which may hold other things too.
#[derive(Debug, Serialize, ToSchema)]
struct Memory {
    /// Bytes in use.
    #[schema(example = 52428800)]
    used_bytes: u64,
    /// Bytes that it may use; null if nothing bounds it.
    #[schema(example = 268435456)]
    max_bytes: Option<u64>,
    /// `used_bytes` of a hundred of `max_bytes`; null if nothing bounds it.
    #[schema(example = 19.53)]
    used_percentage: Option<f64>,
}

/// Hit rate, latency and errors of the profile cache in the last hour or any other period, and its Redis' memory now.
///
/// The alert `cache_failures` fires when of the last 5 minutes' reads more than `CACHE_FAILURE_ALERT_THRESHOLD` failed.
#[utoipa::path(get, path = "/monitoring/cache-health", params(Span), responses(
    (status = 200, description = "the cache's health", body = CacheHealth, example = json!({
        "status": "healthy", "redis_connected": true, "last_error": null,
        "period": {"from": "2026-07-01T23:00:00.000000Z", "to": "2026-07-02T00:00:00.000000Z", "resolution": "minute"},
        "total_operations": 5000, "hits": 4750, "misses": 245, "failed_operations": 5,
        "cache_hit_rate": 0.951, "error_rate": 0.001,
        "average_latency_ms": 0.4, "ping_ms": 0.6,
        "memory": {"used_bytes": 52428800, "max_bytes": 268435456, "used_percentage": 19.53},
    })),
    (status = 404, description = "the monitoring is switched off", body = ProblemBody, example = json!(switched_off())),
))]
pub(super) async fn cache_health(
    State(app): State<App>,
    Query(span): Query<Span>,
) -> Result<Json<CacheHealth>, Problem> {
    let threshold = enabled(&app)?.cache_failure_threshold;
    let period = span.period(Duration::HOUR)?;
    let (counts, server) = tokio::join!(app.store.cache_counts(period), server(&app));
    let counts = counts?;
    let (status, last_error) = match &server {
        Ok(_) if share(counts.errors, counts.reads()) > threshold => (Status::Degraded, None),
        Ok(_) => (Status::Healthy, None),
        Err(CacheError::Off) => (Status::Disabled, None),
        Err(error) => (Status::Unavailable, Some(error.to_string())),
    };
    let server = server.ok();
    let answered = counts.hits + counts.misses;
    Ok(Json(CacheHealth {
        status,
        redis_connected: server.is_some(),
        last_error,
        period: period.into(),
        total_operations: counts.reads(),
        hits: counts.hits,
        misses: counts.misses,
        failed_operations: counts.errors,
        cache_hit_rate: ratio(counts.hits, answered),
        error_rate: ratio(counts.errors, counts.reads()),
        average_latency_ms: thousandths(share(counts.us, answered)),
        ping_ms: server.map(|server| thousandths(server.took.as_micros() as f64)),
        memory: server.map(Memory::of),
    }))
}

async fn server(app: &App) -> Result<CacheServer, CacheError> {
    match &app.cache {
        Some(cache) => cache.server().await,
        None => Err(CacheError::Off),
    }
}

/// Milliseconds of microseconds.
fn thousandths(us: f64) -> f64 {
    us.round() / 1000.0
}

impl Memory {
    fn of(server: CacheServer) -> Self {
        let of = |limit: u64| percentage(i64::try_from(server.used).ok()?, i64::try_from(limit).ok()?).into();
        Self { used_bytes: server.used, max_bytes: server.limit, used_percentage: server.limit.and_then(of) }
    }
}
