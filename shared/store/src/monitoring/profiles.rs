//! Profiles by day.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::{Date, Duration, OffsetDateTime, UtcOffset};

use crate::tally::{FRESH, FULL, NAMED, PROFILES, SOURCE};
use crate::{Store, StoreError};

/// How many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProfileCounts {
    /// Every user id that was ever seen.
    pub users: i64,
    /// Those with a name of any kind.
    pub named: i64,
    /// Those with a full name.
    pub full: i64,
    /// All of them, by what gave the name that counts.
    pub by_source: BTreeMap<String, i64>,
}

/// One UTC day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileDay {
    /// Which.
    pub day: Date,
    /// How many there were at its end.
    pub counts: ProfileCounts,
    /// How many there are now that were changed on this day and not since.
    pub last_changed: i64,
}

impl ProfileCounts {
    fn add(&mut self, what: &str, n: i64) {
        match what {
            PROFILES => self.users += n,
            NAMED => self.named += n,
            FULL => self.full += n,
            _ => {
                if let Some(source) = what.strip_prefix(SOURCE) {
                    *self.by_source.entry(source.to_owned()).or_default() += n;
                }
            }
        }
    }
}

/// A change of a count, on a day or on any day before those that were asked for.
struct Change {
    what: String,
    day: Option<Date>,
    n: i64,
}

impl Store {
    /// How many profiles there are now.
    pub async fn profile_counts(&self) -> Result<ProfileCounts, StoreError> {
        self.on_connection(async |connection| profile_counts(connection).await).await
    }

    /// How many there were at the end of each day from `first` to `last`. The counts of days that are more than a year ago
    /// may have been put together: see [`compact_tallies`](Store::compact_tallies).
    pub async fn profile_days(&self, first: Date, last: Date) -> Result<Vec<ProfileDay>, StoreError> {
        let since = first.midnight().assume_utc();
        let changes = self.on_connection(async |connection| changes(connection, since).await).await?;
        Ok(days(changes, first, last))
    }
}

pub(crate) async fn profile_counts(connection: &mut PgConnection) -> Result<ProfileCounts, StoreError> {
    // '/' is the character behind '.'.
    let rows = sqlx::query!(
        r#"
        SELECT what, sum(n)::bigint AS "n!" FROM tallies
        WHERE what >= 'profiles' AND what < 'profiles/' AND what <> 'profiles.fresh' GROUP BY what
        "#
    );
    let mut counts = ProfileCounts::default();
    rows.fetch_all(connection).await?.iter().for_each(|row| counts.add(&row.what, row.n));
    Ok(counts)
}

/// How many were changed at `since` or later. It is taken for the beginning of its UTC day.
pub(crate) async fn fresh_since(connection: &mut PgConnection, since: OffsetDateTime) -> Result<i64, StoreError> {
    let fresh = sqlx::query_scalar!(
        r#"
        SELECT coalesce(sum(n), 0)::bigint AS "n!" FROM tallies
        WHERE what = 'profiles.fresh' AND at >= date_trunc('day', $1, 'UTC')
        "#,
        since
    );
    Ok(fresh.fetch_one(connection).await?)
}

async fn changes(connection: &mut PgConnection, since: OffsetDateTime) -> Result<Vec<Change>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT what, CASE WHEN at >= $1 THEN at END AS day, sum(n)::bigint AS "n!" FROM tallies
        WHERE what >= 'profiles' AND what < 'profiles/' GROUP BY 1, 2
        "#,
        since
    );
    let change = |what, day: Option<OffsetDateTime>, n| Change {
        what,
        day: day.map(|day| day.to_offset(UtcOffset::UTC).date()),
        n,
    };
    Ok(rows.fetch_all(connection).await?.into_iter().map(|row| change(row.what, row.day, row.n)).collect())
}

/// From what changed on each day to what there was at its end.
fn days(changes: Vec<Change>, first: Date, last: Date) -> Vec<ProfileDay> {
    let mut counts = ProfileCounts::default();
    let mut by_day: BTreeMap<Date, Vec<Change>> = BTreeMap::new();
    for change in changes {
        match change.day {
            Some(day) => by_day.entry(day).or_default().push(change),
            None => counts.add(&change.what, change.n),
        }
    }
    let mut days = Vec::new();
    let mut day = first;
    while day <= last {
        let mut last_changed = 0;
        for change in by_day.remove(&day).into_iter().flatten() {
            counts.add(&change.what, change.n);
            last_changed += if change.what == FRESH { change.n } else { 0 };
        }
        days.push(ProfileDay { day, counts: counts.clone(), last_changed });
        let Some(next) = day.checked_add(Duration::DAY) else { break };
        day = next;
    }
    days
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    fn change(what: &str, day: Option<Date>, n: i64) -> Change {
        Change { what: what.to_owned(), day, n }
    }

    #[test]
    fn days_add_up_what_came_before_and_days_without_a_change_repeat_the_one_before() {
        let changes = vec![
            change(PROFILES, None, 10),
            change("profiles.source.default", None, 10),
            change(PROFILES, Some(date!(2026 - 03 - 02)), 2),
            change(NAMED, Some(date!(2026 - 03 - 02)), 1),
            change(FRESH, Some(date!(2026 - 03 - 02)), 3),
            change(FRESH, None, 9),
        ];
        let days = days(changes, date!(2026 - 03 - 01), date!(2026 - 03 - 03));
        let shown: Vec<_> = days.iter().map(|d| (d.counts.users, d.counts.named, d.last_changed)).collect();
        assert_eq!(shown, [(10, 0, 0), (12, 1, 3), (12, 1, 0)]);
        assert_eq!(days[2].counts.by_source["default"], 10);
    }
}
