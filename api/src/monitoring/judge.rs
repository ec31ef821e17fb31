//! What is bad. Pure: from figures to findings.
//!
//! Few figures prove nothing, and none are no error. What is near its bound, on the good side, is left as it was found
//! before, so that nothing flaps.

use time::{Duration, OffsetDateTime};
use weir_store::{AlertFacts, AlertView, Finding, Verdict};

use super::{MonitoringConfig, share};

pub(super) const COVERAGE: &str = "profile_coverage";
pub(super) const WEBHOOKS: &str = "webhook_errors";
pub(super) const CACHE: &str = "cache_failures";
pub(super) const SILENCE: &str = "webhook_silence";
pub(super) const STALENESS: &str = "profile_staleness";

/// Every alert that there is.
pub(super) const ALERTS: [&str; 5] = [COVERAGE, WEBHOOKS, CACHE, SILENCE, STALENESS];

/// How far back each looks.
const WEBHOOKS_OF: Duration = Duration::minutes(15);
const CACHE_OF: Duration = Duration::minutes(5);

/// Fewer users, or events or reads of the time that is looked at, prove nothing.
const ENOUGH_USERS: i64 = 20;
const ENOUGH_EVENTS: i64 = 20;

/// So many events in a day are no trickle: silence after it means something.
const STEADY: i64 = 100;

/// How far on the good side of its bound something is well.
const CLEARLY: f64 = 0.01;

/// What is to be looked at.
pub(super) fn view(config: &MonitoringConfig, now: OffsetDateTime) -> AlertView {
    AlertView {
        now,
        webhooks: WEBHOOKS_OF,
        cache: CACHE_OF,
        stale: span(config.stale_after),
        silence: span(config.silence),
    }
}

fn span(span: std::time::Duration) -> Duration {
    Duration::try_from(span).unwrap_or(Duration::MAX)
}

/// How everything stands.
pub(super) fn judge(config: &MonitoringConfig, facts: &AlertFacts, now: OffsetDateTime) -> Vec<Verdict> {
    let verdict = |name, threshold, finding| Verdict { name, threshold, finding };
    let webhooks = &facts.webhooks;
    let events = webhooks.processed() + webhooks.failures();
    let (errors, failures) = (config.webhook_error_threshold, config.cache_failure_threshold);
    vec![
        verdict(COVERAGE, config.coverage_threshold, coverage(config.coverage_threshold, facts)),
        verdict(WEBHOOKS, errors, rate(webhooks.failures(), events, errors)),
        verdict(CACHE, failures, rate(facts.cache.errors, facts.cache.reads(), failures)),
        verdict(SILENCE, config.silence.as_secs_f64(), silence(config, facts, now)),
        verdict(STALENESS, config.staleness_threshold, staleness(config.staleness_threshold, facts)),
    ]
}

fn coverage(threshold: f64, facts: &AlertFacts) -> Finding {
    let named = share(facts.profiles.named, facts.profiles.users);
    if threshold <= 0.0 || (facts.profiles.users > 0 && named >= (threshold + CLEARLY).min(1.0)) {
        Finding::Good
    } else if facts.profiles.users < ENOUGH_USERS || named >= threshold {
        Finding::Unknown
    } else {
        Finding::Bad(named)
    }
}

fn rate(bad: i64, all: i64, threshold: f64) -> Finding {
    let rate = share(bad, all);
    if bad == 0 || threshold >= 1.0 {
        Finding::Good
    } else if all < ENOUGH_EVENTS {
        Finding::Unknown
    } else if rate > threshold {
        Finding::Bad(rate)
    } else if rate <= threshold * 0.8 {
        Finding::Good
    } else {
        Finding::Unknown
    }
}

/// Its value is seconds.
fn silence(config: &MonitoringConfig, facts: &AlertFacts, now: OffsetDateTime) -> Finding {
    let Some(last) = facts.last_event_at else { return Finding::Unknown };
    let silent = now - last;
    if config.silence.is_zero() || silent <= span(config.silence) {
        Finding::Good
    } else if facts.before_silence >= STEADY {
        Finding::Bad(silent.as_seconds_f64())
    } else {
        Finding::Unknown
    }
}

fn staleness(threshold: f64, facts: &AlertFacts) -> Finding {
    let stale = share(facts.stale, facts.profiles.users);
    if threshold >= 1.0 || stale <= threshold - CLEARLY || facts.stale == 0 {
        Finding::Good
    } else if facts.profiles.users < ENOUGH_USERS || stale <= threshold {
        Finding::Unknown
    } else {
        Finding::Bad(stale)
    }
}

/// What an alert says, for people.
pub(super) fn message(name: &str, value: f64, threshold: f64) -> String {
    let (percent, bound) = (value * 100.0, threshold * 100.0);
    match name {
        COVERAGE => format!("{percent:.1} % of users have a profile with a name; {bound:.1} % are wanted"),
        WEBHOOKS => format!("{percent:.1} % of the events of the last 15 minutes failed; {bound:.1} % are allowed"),
        CACHE => format!("{percent:.1} % of the reads of the profile cache failed; {bound:.1} % are allowed"),
        SILENCE => format!("no event came for {:.1} hours, after a day with many", value / 3600.0),
        STALENESS => format!("{percent:.1} % of profiles have not changed for long; {bound:.1} % are allowed"),
        // Of a newer version.
        other => format!("{other}: {value}, where {threshold} is the bound"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::path::Path;

    use time::macros::datetime;
    use weir_core::config::Reader;
    use weir_store::{CacheCounts, ProfileCounts, WebhookCounts};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-06-30 12:00 UTC);

    fn config(env: &[(&str, &str)]) -> MonitoringConfig {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut reader = Reader::new(BTreeMap::new(), env, Path::new("none.toml"), false);
        let config = MonitoringConfig::read(&mut reader);
        reader.finish().unwrap();
        config
    }

    /// Figures with which all is well.
    fn facts() -> AlertFacts {
        AlertFacts {
            profiles: ProfileCounts { users: 1000, named: 900, full: 800, by_source: BTreeMap::new() },
            stale: 100,
            webhooks: events(1000, 10),
            cache: CacheCounts { hits: 900, misses: 100, errors: 0, us: 1 },
            last_event_at: Some(NOW - Duration::minutes(1)),
            before_silence: 0,
        }
    }

    fn events(processed: i64, failed: i64) -> WebhookCounts {
        WebhookCounts {
            by_kind: BTreeMap::from([("message_created".to_owned(), processed)]),
            failed: BTreeMap::from([("dead".to_owned(), failed)]),
            ..WebhookCounts::default()
        }
    }

    fn findings(config: &MonitoringConfig, facts: &AlertFacts) -> HashMap<&'static str, Finding> {
        judge(config, facts, NOW).into_iter().map(|verdict| (verdict.name, verdict.finding)).collect()
    }

    #[test]
    fn every_alert_is_judged_and_all_is_well_when_it_is() {
        let findings = findings(&config(&[]), &facts());
        assert_eq!(findings.len(), ALERTS.len());
        for alert in ALERTS {
            assert_eq!(findings[alert], Finding::Good, "{alert}");
        }
    }

    #[test]
    fn without_any_data_nothing_is_bad() {
        let config = config(&[("PROFILE_STALENESS_ALERT_THRESHOLD", "0.5")]);
        for (alert, finding) in findings(&config, &AlertFacts::default()) {
            assert!(!matches!(finding, Finding::Bad(_)), "{alert}: {finding:?}");
        }
    }

    #[test]
    fn each_alert_fires_beyond_its_bound_waits_beside_it_and_resolves_behind_it() {
        use Finding::{Bad, Good, Unknown};
        let config = config(&[("PROFILE_STALENESS_ALERT_THRESHOLD", "0.5")]);
        let named = |named| AlertFacts { profiles: ProfileCounts { named, ..facts().profiles }, ..facts() };
        let failed = |all, failed| AlertFacts { webhooks: events(all - failed, failed), ..facts() };
        let cache = |errors| AlertFacts { cache: CacheCounts { hits: 95, misses: 0, errors, us: 1 }, ..facts() };
        let stale = |stale| AlertFacts { stale, ..facts() };
        let silent = |hours, before_silence| AlertFacts {
            last_event_at: Some(NOW - Duration::hours(hours)),
            before_silence,
            ..facts()
        };
        let few = AlertFacts { profiles: ProfileCounts { users: 19, ..ProfileCounts::default() }, ..facts() };
        for (alert, facts, expected) in [
            (COVERAGE, named(799), Bad(0.799)),
            (COVERAGE, named(800), Unknown),
            (COVERAGE, named(809), Unknown),
            (COVERAGE, named(810), Good),
            (COVERAGE, few, Unknown),
            (WEBHOOKS, failed(100, 6), Bad(0.06)),
            (WEBHOOKS, failed(100, 5), Unknown),
            (WEBHOOKS, failed(100, 4), Good),
            (WEBHOOKS, failed(19, 19), Unknown),
            (WEBHOOKS, failed(0, 0), Good),
            (CACHE, cache(6), Bad(6.0 / 101.0)),
            (CACHE, cache(5), Unknown),
            (CACHE, cache(1), Good),
            (STALENESS, stale(501), Bad(0.501)),
            (STALENESS, stale(500), Unknown),
            (STALENESS, stale(490), Good),
            (SILENCE, silent(7, 100), Bad(7.0 * 3600.0)),
            (SILENCE, silent(7, 99), Unknown),
            (SILENCE, silent(6, 100), Good),
        ] {
            assert_eq!(findings(&config, &facts)[alert], expected, "{alert} {facts:?}");
        }
    }

    #[test]
    fn what_is_switched_off_is_well() {
        let off = config(&[
            ("PROFILE_QUALITY_ALERT_THRESHOLD", "0"),
            ("WEBHOOK_ERROR_ALERT_THRESHOLD", "1"),
            ("CACHE_FAILURE_ALERT_THRESHOLD", "1"),
            ("WEIR_MONITORING_SILENCE", "0s"),
        ]);
        let facts = AlertFacts {
            profiles: ProfileCounts { users: 100, ..ProfileCounts::default() },
            stale: 100,
            webhooks: events(0, 100),
            cache: CacheCounts { hits: 0, misses: 0, errors: 100, us: 0 },
            last_event_at: Some(NOW - Duration::days(9)),
            before_silence: 1000,
        };
        for (alert, finding) in findings(&off, &facts) {
            assert_eq!(finding, Finding::Good, "{alert}");
        }
    }

    #[test]
    fn every_alert_has_words_of_its_own() {
        let words: std::collections::HashSet<_> = ALERTS.iter().map(|name| message(name, 0.5, 0.8)).collect();
        assert_eq!(words.len(), ALERTS.len());
        assert!(ALERTS.iter().all(|name| !message(name, 0.5, 0.8).contains(name)));
    }
}
