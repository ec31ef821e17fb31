//! Has the counts judged every few seconds, until shutdown. Several processes may: one of them judges at a time, and what
//! fires or resolves is written down, logged and counted by that one. What fires is a metric of all of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use weir_core::shutdown::Shutdown;
use weir_store::{AlertChange, AlertFilter, Store, StoreError};

use super::MonitoringConfig;
use super::judge::{ALERTS, judge, message, view};

/// More than there are alerts.
const ALL: i64 = 100;

/// Judges what the store's counts say.
pub(crate) struct Watch {
    store: Store,
    config: MonitoringConfig,
}

impl Watch {
    pub(crate) fn new(store: Store, config: MonitoringConfig) -> Self {
        Self { store, config }
    }

    /// Looks until shutdown.
    pub(crate) async fn run(self, stop: Shutdown) {
        let mut tick = tokio::time::interval(self.config.look_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_blind = false;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let Some(look) = stop.run_until_cancelled(self.look()).await else { break };
            // Once for each time that it is away; the API's health says so too.
            match look {
                Ok(_) => is_blind = false,
                Err(error) if !is_blind => {
                    is_blind = true;
                    tracing::warn!(%error, "the counts cannot be looked at; alerts stay as they are");
                }
                Err(_) => {}
            }
        }
    }

    /// One look. Gives what this process changed, which is nothing if another one judges at this moment, or if there is no
    /// monitoring.
    pub(crate) async fn look(&self) -> Result<Vec<AlertChange>, StoreError> {
        if !self.config.enabled {
            return Ok(Vec::new());
        }
        let now = OffsetDateTime::now_utc();
        let view = view(&self.config, now);
        let changes = self.store.judge_alerts(&view, |facts| judge(&self.config, facts, now)).await?;
        let changes = changes.unwrap_or_default();
        changes.iter().for_each(tell);
        self.export().await?;
        Ok(changes)
    }

    /// From what is written down: all processes say the same.
    async fn export(&self) -> Result<(), StoreError> {
        let firing = self.store.alerts(AlertFilter::Firing, ALL).await?;
        for name in ALERTS {
            let fires = firing.iter().any(|alert| alert.name == name);
            metrics::gauge!("weir_alert_firing", "alert" => name).set(if fires { 1.0 } else { 0.0 });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        metrics::gauge!("weir_alerts_looked_timestamp_seconds").set(now.as_secs_f64());
        Ok(())
    }
}

fn tell(change: &AlertChange) {
    let (alert, change) = match change {
        AlertChange::Fired(alert) => (alert, "fired"),
        AlertChange::Resolved(alert) => (alert, "resolved"),
    };
    metrics::counter!("weir_alerts_total", "alert" => alert.name.clone(), "change" => change).increment(1);
    let message = message(&alert.name, alert.value, alert.threshold);
    match alert.resolved_at {
        None => {
            tracing::error!(alert = alert.name, value = alert.value, threshold = alert.threshold, "alert: {message}")
        }
        Some(_) => tracing::info!(alert = alert.name, "the alert is over: {message}"),
    }
}
