//! Whether the API can do its work: `/health`, and what orchestrators ask.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;
use utoipa_axum::routes;
use weir_core::ops::Health;
use weir_core::queue::Queue;
use weir_core::shutdown::Shutdown;
use weir_store::Store;

use crate::api::App;
use crate::extract::Json;
use crate::routes::Table;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long PostgreSQL has for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

const POSTGRESQL: &str = "PostgreSQL does not answer";
const REDIS: &str = "Redis does not answer";

pub(crate) fn routes() -> Table {
    Table::new("Service", "Whether it works, and what it can do.").public(routes!(health))
}

/// What `/health` says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
struct HealthBody {
    /// `ok` or `unavailable`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Of this server.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// What is missing; empty when all is well.
    #[schema(example = json!([]))]
    reasons: Vec<String>,
}

/// Whether requests can be answered now.
///
/// It was looked at within the last seconds; the question costs nothing and needs no key.
#[utoipa::path(get, path = "/health", responses(
    (status = 200, description = "all is well", body = HealthBody,
     example = json!({"status": "ok", "version": "0.1.0", "reasons": []})),
    (status = 503, description = "PostgreSQL or Redis is away", body = HealthBody,
     example = json!({"status": "unavailable", "version": "0.1.0", "reasons": ["PostgreSQL does not answer"]})),
))]
async fn health(State(app): State<App>) -> impl IntoResponse {
    let Health { ready, reasons, .. } = app.health.borrow().clone();
    let (code, status) = if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    (code, Json(HealthBody { status, version: env!("CARGO_PKG_VERSION"), reasons }))
}

/// Looks until shutdown.
pub(crate) async fn watch(store: Store, queue: Queue, health: watch::Sender<Health>, shutdown: Shutdown) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let Some(now) = shutdown.run_until_cancelled(look(&store, &queue)).await else { break };
        health.send_if_modified(|before| {
            let changed = before.ready != now.ready || before.reasons != now.reasons;
            *before = now;
            changed
        });
    }
    health.send_replace(Health::waiting("stopped"));
}

/// One look. What exactly is wrong goes into the log alone: anybody may ask for the health.
async fn look(store: &Store, queue: &Queue) -> Health {
    let (database, redis) = tokio::join!(tokio::time::timeout(PATIENCE, store.ping()), queue.check_layout());
    let mut reasons = Vec::new();
    match database {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "PostgreSQL");
            reasons.push(POSTGRESQL.to_owned());
        }
        Err(_) => {
            tracing::warn!("no answer from PostgreSQL within {PATIENCE:?}");
            reasons.push(POSTGRESQL.to_owned());
        }
    }
    if let Err(error) = redis {
        tracing::warn!(%error, "Redis");
        reasons.push(REDIS.to_owned());
    }
    Health { ready: reasons.is_empty(), reasons, ..Health::default() }
}
