//! The alerts that fire, and those that are over.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_store::AlertFilter;

use super::judge::message;
use super::{enabled, switched_off};
use crate::api::App;
use crate::extract::{Json, Query};
use crate::moment;
use crate::page::Limit;
use crate::problem::{Problem, ProblemBody};

/// Which alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those that fire, or only those that are over.
    #[param(inline, example = "firing")]
    state: Option<AlertState>,
    /// How many at most: 1 to 500.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 500, default = 50, example = 50)]
    limit: Limit,
}

/// Whether an alert is over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AlertState {
    /// It is not.
    Firing,
    /// It is.
    Resolved,
}

/// Alerts, those that fire first, then the newest.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alerts {
    alerts: Vec<Alert>,
    /// How many fire, listed or not.
    #[schema(example = 1)]
    firing: usize,
}

/// An alert, from firing to resolving.
#[derive(Debug, Serialize, ToSchema)]
struct Alert {
    /// Tells one time it fired from another.
    #[schema(example = 17)]
    id: i64,
    /// `profile_coverage`, `webhook_errors`, `cache_failures`, `webhook_silence` or `profile_staleness`.
    #[schema(example = "webhook_errors")]
    name: String,
    /// Whether it is over.
    state: AlertState,
    /// What it means.
    #[schema(example = "7.5 % of the events of the last 15 minutes failed; 5.0 % are allowed")]
    message: String,
    /// What was measured when it fired: a share from 0 to 1, or seconds of silence.
    #[schema(example = 0.075)]
    value: f64,
    /// The bound at that time.
    #[schema(example = 0.05)]
    threshold: f64,
    /// When it fired.
    #[schema(example = "2026-07-01T12:00:00.000000Z", format = DateTime)]
    fired_at: String,
    /// When it was over; null while it is not.
    #[schema(example = "2026-07-01T12:20:00.000000Z", format = DateTime)]
    resolved_at: Option<String>,
}

/// Alerts that fire, and those that are over.
///
/// Each fires once, when a bound is crossed, and resolves once, when all is clearly well again. Each is a line of the log
/// and a metric, `weir_alert_firing`, too.
#[utoipa::path(get, path = "/monitoring/alerts", params(Which), responses(
    (status = 200, description = "the alerts", body = Alerts, example = json!({
        "alerts": [{"id": 17, "name": "webhook_errors", "state": "firing",
                    "message": "7.5 % of the events of the last 15 minutes failed; 5.0 % are allowed",
                    "value": 0.075, "threshold": 0.05, "fired_at": "2026-07-01T12:00:00.000000Z", "resolved_at": null}],
        "firing": 1,
    })),
    (status = 404, description = "the monitoring is switched off", body = ProblemBody, example = json!(switched_off())),
))]
pub(super) async fn alerts(State(app): State<App>, Query(which): Query<Which>) -> Result<Json<Alerts>, Problem> {
    enabled(&app)?;
    let filter = match which.state {
        None => AlertFilter::All,
        Some(AlertState::Firing) => AlertFilter::Firing,
        Some(AlertState::Resolved) => AlertFilter::Resolved,
    };
    let alerts = app.store.alerts(filter, i64::from(which.limit.0)).await?;
    let firing = app.store.alerts(AlertFilter::Firing, i64::from(crate::page::MOST)).await?.len();
    Ok(Json(Alerts { alerts: alerts.into_iter().map(Alert::from).collect(), firing }))
}

impl From<weir_store::Alert> for Alert {
    fn from(alert: weir_store::Alert) -> Self {
        Self {
            id: alert.id,
            message: message(&alert.name, alert.value, alert.threshold),
            name: alert.name,
            state: if alert.resolved_at.is_none() { AlertState::Firing } else { AlertState::Resolved },
            value: alert.value,
            threshold: alert.threshold,
            fired_at: moment::text(alert.fired_at),
            resolved_at: alert.resolved_at.map(moment::text),
        }
    }
}
