//! Settings of the monitoring.

use std::time::Duration;

use weir_core::config::Reader;

/// What is watched, and when somebody is told. All API processes of a system need the same: they judge by turns.
#[derive(Debug, Clone)]
pub struct MonitoringConfig {
    /// Whether there is any. Default true.
    pub enabled: bool,
    /// How often the counts are judged. Default 10 s.
    pub look_every: Duration,
    /// Share of users with a profile below which `profile_coverage` fires; 0 is never. Default 0.8.
    pub coverage_threshold: f64,
    /// Share of events that fail above which `webhook_errors` fires; 1 is never. Default 0.05.
    pub webhook_error_threshold: f64,
    /// Share of reads of the profile cache that fail above which `cache_failures` fires; 1 is never. Default 0.05.
    pub cache_failure_threshold: f64,
    /// How long no event may come before `webhook_silence` fires, if there were at least a hundred in the day before; 0 is for
    /// ever. MAX unsubscribes after eight hours without a 200. Default 6 h.
    pub silence: Duration,
    /// Share of profiles that have not changed for [`stale_after`](Self::stale_after) above which `profile_staleness` fires.
    /// Default 1, which is never: names of people who stay change rarely.
    pub staleness_threshold: f64,
    /// When a profile counts as stale; by days. Default 30 days.
    pub stale_after: Duration,
}

impl MonitoringConfig {
    /// Reads the settings `monitoring.*`.
    pub fn read(reader: &mut Reader) -> Self {
        let look_every = reader.get("monitoring.look_every", &[], Duration::from_secs(10));
        if look_every < Duration::from_millis(100) {
            reader.mistake("monitoring.look_every: 100ms at least");
        }
        Self {
            enabled: reader.get("monitoring.enabled", &["MONITORING_ENABLED"], true),
            look_every,
            coverage_threshold: share(reader, "coverage_threshold", "PROFILE_QUALITY_ALERT_THRESHOLD", 0.8),
            webhook_error_threshold: share(reader, "webhook_error_threshold", "WEBHOOK_ERROR_ALERT_THRESHOLD", 0.05),
            cache_failure_threshold: share(reader, "cache_failure_threshold", "CACHE_FAILURE_ALERT_THRESHOLD", 0.05),
            silence: reader.get("monitoring.silence", &[], Duration::from_secs(6 * 3600)),
            staleness_threshold: share(reader, "staleness_threshold", "PROFILE_STALENESS_ALERT_THRESHOLD", 1.0),
            stale_after: reader.get("monitoring.stale_after", &[], Duration::from_secs(30 * 24 * 3600)),
        }
    }
}

fn share(reader: &mut Reader, name: &str, older: &str, default: f64) -> f64 {
    let key = format!("monitoring.{name}");
    let share = reader.get(&key, &[older], default);
    if !(0.0..=1.0).contains(&share) {
        reader.mistake(format!("{key} ({older}): is not between 0 and 1"));
    }
    share
}
