//! Monitoring: how well users are known, what became of events, how the cache does, and the alerts about it.
//!
//! Answers come from counts that are kept up with what they count, so that they take milliseconds however much there is.
//! [`judge`] says what is bad, [`watch`] has it judged every few seconds.

mod alerts;
mod cache;
mod config;
mod coverage;
mod judge;
mod quality;
mod span;
mod watch;
mod webhooks;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::routes;
use weir_store::ProfileCounts;

use crate::api::App;
use crate::problem::Problem;
use crate::routes::Table;

pub use config::MonitoringConfig;
pub(crate) use watch::Watch;

pub(crate) fn routes() -> Table {
    Table::new("Monitoring", "How well users are known, what became of events, how the cache does, and alerts.")
        .monitor(routes!(coverage::coverage))
        .monitor(routes!(quality::quality))
        .monitor(routes!(webhooks::webhook_stats))
        .monitor(routes!(cache::cache_health))
        .monitor(routes!(alerts::alerts))
}

const SWITCHED_OFF: &str = "the monitoring is switched off; MONITORING_ENABLED=true switches it on";

/// With `MONITORING_ENABLED=false` there is none.
fn enabled(app: &App) -> Result<&MonitoringConfig, Problem> {
    let config = &app.config.monitoring;
    config.enabled.then_some(config).ok_or_else(|| Problem::not_found(SWITCHED_OFF))
}

/// The problem, as an example.
fn switched_off() -> Value {
    json!({"type": "urn:weir:problem:not-found", "title": "not found", "status": 404, "detail": SWITCHED_OFF})
}

/// Of a hundred, with two decimals; 0 of nothing.
fn percentage(part: i64, all: i64) -> f64 {
    if all <= 0 { 0.0 } else { (share(part, all) * 10_000.0).round() / 100.0 }
}

/// From 0 to 1; 0 of nothing.
fn share(part: i64, all: i64) -> f64 {
    if all <= 0 { 0.0 } else { part as f64 / all as f64 }
}

/// The same with four decimals, for people.
fn ratio(part: i64, all: i64) -> f64 {
    (share(part, all) * 10_000.0).round() / 10_000.0
}

/// All users, by what gave the name that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
struct BySource {
    /// MAX: no name was told by the user.
    #[schema(example = 6900)]
    webhook: i64,
    /// The user told a name.
    #[schema(example = 1600)]
    user_input: i64,
    /// Nobody: no name is known.
    #[schema(example = 1500)]
    default: i64,
}

impl BySource {
    fn of(counts: &ProfileCounts) -> Self {
        let of = |source| counts.by_source.get(source).copied().unwrap_or_default();
        Self { webhook: of("webhook"), user_input: of("user_input"), default: of("default") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_nothing_is_none() {
        assert_eq!((percentage(0, 0), ratio(3, 0), share(1, -1)), (0.0, 0.0, 0.0));
        assert_eq!((percentage(1, 3), ratio(1, 3), percentage(8500, 10_000)), (33.33, 0.3333, 85.0));
    }
}
