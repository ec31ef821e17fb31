//! What became of the events of a period.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Serialize;
use time::Duration;
use utoipa::ToSchema;

use super::span::{Span, SpanCounted};
use super::{enabled, ratio, switched_off};
use crate::api::App;
use crate::extract::{Json, Query};
use crate::moment;
use crate::problem::{Problem, ProblemBody};

/// What became of the events of a period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookStats {
    period: SpanCounted,
    /// Those that were processed and those that failed.
    #[schema(example = 1250)]
    total_events: i64,
    /// Those that were processed.
    #[schema(example = 1238)]
    successful_events: i64,
    /// Those that were malformed, of an unknown type, or became dead letters.
    #[schema(example = 12)]
    failed_events: i64,
    /// `failed_events` of `total_events`, from 0 to 1.
    #[schema(example = 0.0096)]
    error_rate: f64,
    /// Milliseconds from acceptance to processing, of those that were processed; 0 if there are none.
    #[schema(example = 24.5)]
    average_processing_time_ms: f64,
    /// Those of the processed ones that told of a person who is no bot.
    #[schema(example = 1200)]
    profiles_extracted: i64,
    /// Those of them whose profile was stored. They are as many: an event is processed and its profile stored in one
    /// transaction.
    #[schema(example = 1200)]
    profiles_stored: i64,
    /// Those that were processed, by type: MAX's own names, and `message_new` and `callback_query` for the short format.
    events_by_type: BTreeMap<String, i64>,
    /// Those that failed: `malformed`, `unknown`, `dead`.
    errors_by_type: BTreeMap<String, i64>,
    /// Those that count neither as processed nor as failed: `disabled` came while webhooks were switched off, `foreign` are
    /// another messenger's.
    ignored_by_type: BTreeMap<String, i64>,
    /// The minute in which an event was processed last, also before the period; null if there never was one.
    #[schema(example = "2026-07-01T23:59:00.000000Z", format = DateTime)]
    last_event_at: Option<String>,
}

/// What became of webhooks' events, in the last 24 hours or any other period.
///
/// The alert `webhook_errors` fires when of the last 15 minutes more than `WEBHOOK_ERROR_ALERT_THRESHOLD` failed.
#[utoipa::path(get, path = "/monitoring/webhook/stats", params(Span), responses(
    (status = 200, description = "the statistics", body = WebhookStats, example = json!({
        "period": {"from": "2026-07-01T00:00:00.000000Z", "to": "2026-07-02T00:00:00.000000Z", "resolution": "hour"},
        "total_events": 1250, "successful_events": 1238, "failed_events": 12, "error_rate": 0.0096,
        "average_processing_time_ms": 24.5, "profiles_extracted": 1200, "profiles_stored": 1200,
        "events_by_type": {"message_new": 1000, "callback_query": 200, "bot_started": 38},
        "errors_by_type": {"malformed": 2, "unknown": 9, "dead": 1},
        "ignored_by_type": {"foreign": 4},
        "last_event_at": "2026-07-01T23:59:00.000000Z",
    })),
    (status = 404, description = "the monitoring is switched off", body = ProblemBody, example = json!(switched_off())),
))]
pub(super) async fn webhook_stats(
    State(app): State<App>,
    Query(span): Query<Span>,
) -> Result<Json<WebhookStats>, Problem> {
    enabled(&app)?;
    let period = span.period(Duration::DAY)?;
    let counts = app.store.webhook_counts(period).await?;
    let last_event_at = app.store.last_event_at().await?;
    let (processed, failures) = (counts.processed(), counts.failures());
    let average = if processed > 0 { counts.ms as f64 / processed as f64 } else { 0.0 };
    Ok(Json(WebhookStats {
        period: period.into(),
        total_events: processed + failures,
        successful_events: processed,
        failed_events: failures,
        error_rate: ratio(failures, processed + failures),
        average_processing_time_ms: (average * 10.0).round() / 10.0,
        profiles_extracted: counts.people,
        profiles_stored: counts.people,
        events_by_type: counts.by_kind,
        errors_by_type: counts.failed,
        ignored_by_type: counts.ignored,
        last_event_at: last_event_at.map(moment::text),
    }))
}
