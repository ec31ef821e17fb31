//! How many profiles there are, and how good, from counts that are kept up with them.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime, Time, UtcOffset};

use super::NameSource;
use crate::{Store, StoreError, tally};

/// All profiles in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileStats {
    /// User ids that were ever seen.
    pub total: i64,
    /// Those with a name of any kind.
    pub named: i64,
    /// Those with a full name.
    pub full: i64,
    /// By the source of the name that counts.
    pub by_source: BTreeMap<&'static str, i64>,
    /// By the UTC day of the last change: on the present one, on one of the last 7, of the last 30, and before that.
    pub fresh: Freshness,
}

/// Profiles by the UTC day of their last change. Each is in one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Today.
    pub today: i64,
    /// In the six days before.
    pub week: i64,
    /// In the 23 days before those.
    pub month: i64,
    /// Earlier.
    pub older: i64,
}

impl Store {
    /// The numbers of all profiles, at `now`. Milliseconds, however many there are.
    pub async fn profile_stats(&self, now: OffsetDateTime) -> Result<ProfileStats, StoreError> {
        let today = now.to_offset(UtcOffset::UTC).replace_time(Time::MIDNIGHT);
        let (week, month) = (today - Duration::days(6), today - Duration::days(29));
        let counts = sqlx::query!(
            r#"
            SELECT what, coalesce(sum(n), 0)::bigint AS "all!",
                   coalesce(sum(n) FILTER (WHERE at >= $1), 0)::bigint AS "today!",
                   coalesce(sum(n) FILTER (WHERE at >= $2 AND at < $1), 0)::bigint AS "week!",
                   coalesce(sum(n) FILTER (WHERE at >= $3 AND at < $2), 0)::bigint AS "month!",
                   coalesce(sum(n) FILTER (WHERE at < $3), 0)::bigint AS "older!"
            FROM tallies WHERE what >= 'profiles' AND what < 'profiles/' GROUP BY what
            "#,
            today,
            week,
            month
        );
        let counts = self.on_connection(async |connection| Ok(counts.fetch_all(connection).await?)).await?;
        let mut stats = ProfileStats::default();
        for source in [NameSource::UserInput, NameSource::Webhook, NameSource::Default] {
            stats.by_source.insert(source.as_str(), 0);
        }
        for row in counts {
            match row.what.as_str() {
                tally::PROFILES => stats.total = row.all,
                tally::NAMED => stats.named = row.all,
                tally::FULL => stats.full = row.all,
                tally::FRESH => {
                    stats.fresh = Freshness { today: row.today, week: row.week, month: row.month, older: row.older };
                }
                what => {
                    let source = what.strip_prefix(tally::SOURCE).unwrap_or_default();
                    if let Some((_, count)) = stats.by_source.iter_mut().find(|(name, _)| **name == source) {
                        *count = row.all;
                    }
                }
            }
        }
        Ok(stats)
    }
}
