//! What became of events.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Period;
use crate::tally::{EVENTS, EVENTS_MS, EVENTS_PEOPLE, FAILED};
use crate::{Store, StoreError};

/// Reasons that are nobody's failure: somebody else's webhook on this path, or all of them switched off.
const NO_FAILURES: [&str; 2] = ["disabled", "foreign"];

/// Events of a period.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookCounts {
    /// Those that were processed, by kind.
    pub by_kind: BTreeMap<String, i64>,
    /// Those that could not be, by reason.
    pub failed: BTreeMap<String, i64>,
    /// Those that nobody wanted to process, by reason.
    pub ignored: BTreeMap<String, i64>,
    /// Milliseconds from acceptance to processing, of all that were processed.
    pub ms: i64,
    /// Those of the processed ones that told of a person.
    pub people: i64,
}

impl WebhookCounts {
    /// How many were processed.
    pub fn processed(&self) -> i64 {
        self.by_kind.values().sum()
    }

    /// How many failed.
    pub fn failures(&self) -> i64 {
        self.failed.values().sum()
    }

    fn add(&mut self, what: &str, n: i64) {
        let reason = what.strip_prefix(FAILED);
        let (counts, name) = match (reason, what.strip_prefix(EVENTS)) {
            (Some(reason), _) if NO_FAILURES.contains(&reason) => (&mut self.ignored, reason),
            (Some(reason), _) => (&mut self.failed, reason),
            (None, _) if what == EVENTS_MS => return self.ms += n,
            (None, _) if what == EVENTS_PEOPLE => return self.people += n,
            (None, Some(kind)) => (&mut self.by_kind, kind),
            (None, None) => return,
        };
        *counts.entry(name.to_owned()).or_default() += n;
    }
}

impl Store {
    /// What became of the events of a period.
    pub async fn webhook_counts(&self, period: Period) -> Result<WebhookCounts, StoreError> {
        self.on_connection(async |connection| webhook_counts(connection, period).await).await
    }

    /// The minute in which an event was processed last; none if none ever was.
    pub async fn last_event_at(&self) -> Result<Option<OffsetDateTime>, StoreError> {
        self.on_connection(async |connection| last_event_at(connection).await).await
    }
}

/// One look into the index for each name that there is, and then for its rows in the period alone: a plain condition on
/// both would walk through all rows of these names.
pub(crate) async fn webhook_counts(connection: &mut PgConnection, period: Period) -> Result<WebhookCounts, StoreError> {
    let rows = sqlx::query!(
        r#"
        WITH RECURSIVE names AS (
            SELECT min(what) AS what FROM tallies WHERE what >= 'events.' AND what < 'failed/'
            UNION ALL
            SELECT (SELECT min(t.what) FROM tallies t WHERE t.what > names.what AND t.what < 'failed/')
            FROM names WHERE names.what IS NOT NULL
        )
        SELECT names.what AS "what!", counted.n::bigint AS "n!"
        FROM names, LATERAL (
            SELECT sum(t.n) AS n FROM tallies t WHERE t.what = names.what AND t.at >= $1 AND t.at < $2
        ) AS counted
        WHERE counted.n IS NOT NULL
        "#,
        period.from,
        period.to
    );
    let mut counts = WebhookCounts::default();
    rows.fetch_all(connection).await?.iter().for_each(|row| counts.add(&row.what, row.n));
    Ok(counts)
}

pub(crate) async fn last_event_at(connection: &mut PgConnection) -> Result<Option<OffsetDateTime>, StoreError> {
    let last = sqlx::query_scalar!(
        r#"
        WITH RECURSIVE names AS (
            SELECT min(what) AS what FROM tallies WHERE what >= 'events.' AND what < 'events/'
            UNION ALL
            SELECT (SELECT min(t.what) FROM tallies t WHERE t.what > names.what AND t.what < 'events/')
            FROM names WHERE names.what IS NOT NULL
        )
        SELECT max(latest.at) AS at
        FROM names, LATERAL (SELECT max(t.at) AS at FROM tallies t WHERE t.what = names.what) AS latest
        "#
    );
    Ok(last.fetch_one(connection).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_apart_by_their_names() {
        let mut counts = WebhookCounts::default();
        for (what, n) in [
            ("events.message_created", 5),
            ("events.bot_started", 2),
            ("events.ms", 90),
            ("events.people", 6),
            ("failed.unknown", 1),
            ("failed.dead", 2),
            ("failed.disabled", 7),
            ("failed.foreign", 8),
            ("exotic", 9),
        ] {
            counts.add(what, n);
        }
        assert_eq!((counts.processed(), counts.failures(), counts.ms, counts.people), (7, 3, 90, 6));
        assert_eq!(counts.ignored.values().sum::<i64>(), 15);
    }
}
