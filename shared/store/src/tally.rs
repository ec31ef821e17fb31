//! Counts over time (table `tallies`), kept up in the transaction of what they count.
//!
//! A count is the sum over its shards: two transactions that count the same thing at once mostly do so in different rows. It is
//! the last statement of a transaction, so that a row is locked for no longer than the commit takes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime, Time};

use crate::{NameSource, Store, StoreError};

/// All user ids that were ever seen, by the day on which they were first seen.
pub(crate) const PROFILES: &str = "profiles";
/// Those with a name of any kind: net change by day.
pub(crate) const NAMED: &str = "profiles.named";
/// Those with a full name: net change by day.
pub(crate) const FULL: &str = "profiles.full";
/// Those of a source, behind the dot: net change by day.
pub(crate) const SOURCE: &str = "profiles.source.";
/// By the day of their last change.
pub(crate) const FRESH: &str = "profiles.fresh";
/// Events that were processed, of the kind behind the dot: by minute.
pub(crate) const EVENTS: &str = "events.";
/// Milliseconds from their acceptance to their processing, added up: by minute.
pub(crate) const EVENTS_MS: &str = "events.ms";
/// Those that told of a person: by minute.
pub(crate) const EVENTS_PEOPLE: &str = "events.people";
/// Webhooks that were no events, or became dead letters, for the reason behind the dot: by minute. Copied from the queue; the
/// shard is its partition.
pub(crate) const FAILED: &str = "failed.";
/// What readers of the profile cache got, behind the dot: by minute.
pub(crate) const CACHE: &str = "cache.";

/// What profiles of a source are counted as.
pub(crate) fn of_source(source: NameSource) -> &'static str {
    match source {
        NameSource::Manual => "profiles.source.manual",
        NameSource::UserInput => "profiles.source.user_input",
        NameSource::Webhook => "profiles.source.webhook",
        NameSource::Default => "profiles.source.default",
    }
}

/// Rows over which one count is spread.
const SHARDS: i16 = 16;

/// What a transaction has to count. Sorted, which is the order in which all transactions lock the rows.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<(Cow<'static, str>, OffsetDateTime), i64>);

impl Tally {
    /// Counts `n` more of `what` in the minute of `at`.
    pub(crate) fn minute(&mut self, what: impl Into<Cow<'static, str>>, at: OffsetDateTime, n: i64) {
        let second = at.second();
        let minute = at.replace_nanosecond(0).unwrap_or(at) - Duration::seconds(i64::from(second));
        self.add(what.into(), minute, n);
    }

    /// Counts `n` more of `what` on the UTC day of `at`.
    pub(crate) fn day(&mut self, what: impl Into<Cow<'static, str>>, at: OffsetDateTime, n: i64) {
        let day = at.to_offset(time::UtcOffset::UTC).replace_time(Time::MIDNIGHT);
        self.add(what.into(), day, n);
    }

    fn add(&mut self, what: Cow<'static, str>, at: OffsetDateTime, n: i64) {
        *self.0.entry((what, at)).or_default() += n;
    }

    /// Writes the counts.
    pub(crate) async fn write(mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        self.0.retain(|_, n| *n != 0);
        if self.0.is_empty() {
            return Ok(());
        }
        let shard = (uuid::Uuid::new_v4().as_u128() % SHARDS as u128) as i16;
        let names: Vec<&str> = self.0.keys().map(|(what, _)| what.as_ref()).collect();
        let times: Vec<OffsetDateTime> = self.0.keys().map(|(_, at)| *at).collect();
        let numbers: Vec<i64> = self.0.values().copied().collect();
        sqlx::query!(
            r#"
            INSERT INTO tallies (what, at, shard, n)
            SELECT what, at, $1, n FROM unnest($2::text[], $3::timestamptz[], $4::bigint[]) AS t (what, at, n)
            ON CONFLICT (what, at, shard) DO UPDATE SET n = tallies.n + excluded.n
            "#,
            shard,
            &names as &[&str],
            &times,
            &numbers
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Store {
    /// Counts what readers of the profile cache got, in the minute of `at`: each number under its name behind `cache.`.
    pub async fn add_cache_counts(&self, at: OffsetDateTime, counts: &[(&str, u64)]) -> Result<(), StoreError> {
        let mut tally = Tally::default();
        for (name, n) in counts {
            tally.minute(format!("{CACHE}{name}"), at, i64::try_from(*n).unwrap_or(i64::MAX));
        }
        self.on_connection(async |connection| tally.write(connection).await).await
    }
}

/// How many webhooks were no events, or became dead letters, in one minute and one partition of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCount {
    /// Why.
    pub reason: String,
    /// Start of the minute.
    pub at: OffsetDateTime,
    /// The partition.
    pub shard: i16,
    /// All of them, not only those since the last time.
    pub n: i64,
}

impl Store {
    /// Notes counts that are kept elsewhere, of the last seven days: older ones may have been [put
    /// together](Store::compact_tallies) and would be counted twice. A smaller one than before changes nothing: the other place has lost its data and
    /// begins anew.
    pub async fn copy_failures(&self, counts: &[FailureCount]) -> Result<(), StoreError> {
        if counts.is_empty() {
            return Ok(());
        }
        let mut sorted: Vec<&FailureCount> = counts.iter().collect();
        sorted.sort_by(|a, b| (&a.reason, a.at, a.shard).cmp(&(&b.reason, b.at, b.shard)));
        let what: Vec<String> = sorted.iter().map(|count| format!("{FAILED}{}", count.reason)).collect();
        let insert = sqlx::query!(
            r#"
            INSERT INTO tallies (what, at, shard, n)
            SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::smallint[], $4::bigint[])
            ON CONFLICT (what, at, shard) DO UPDATE SET n = greatest(tallies.n, excluded.n) WHERE tallies.n < excluded.n
            "#,
            &what,
            &sorted.iter().map(|count| count.at).collect::<Vec<_>>(),
            &sorted.iter().map(|count| count.shard).collect::<Vec<_>>(),
            &sorted.iter().map(|count| count.n).collect::<Vec<_>>()
        );
        self.on_connection(async |connection| Ok(insert.execute(connection).await?)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn what_falls_into_one_minute_or_day_is_counted_together() {
        let mut tally = Tally::default();
        tally.minute("a", datetime!(2026-01-02 03:04:05.6 UTC), 1);
        tally.minute("a", datetime!(2026-01-02 06:04:59.9 +3), 2);
        tally.day("b", datetime!(2026-01-02 03:04:05 UTC), 1);
        tally.day("b", datetime!(2026-01-03 02:59:59 +3), -1);
        let counts: Vec<_> = tally.0.iter().map(|((what, at), n)| (what.as_ref(), *at, *n)).collect();
        let expected = [("a", datetime!(2026-01-02 03:04 UTC), 3), ("b", datetime!(2026-01-02 00:00 UTC), 0)];
        assert_eq!(counts, expected);
    }

    #[test]
    fn every_source_is_counted_under_its_word() {
        for source in [NameSource::Manual, NameSource::UserInput, NameSource::Webhook, NameSource::Default] {
            assert_eq!(of_source(source).strip_prefix(SOURCE), Some(source.as_str()));
        }
    }
}
