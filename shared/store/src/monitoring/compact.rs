//! Puts counts together, so that they stay few: what is over needs no shards, and what is old no minutes.
//!
//! A row moves into another one by being deleted and added there, in one statement: a reader sees the sum before or after,
//! never in between, and a second time there is nothing left to move. Whoever counts at the same time is not waited for: a
//! row that is locked is left for the next time, and a row that is counted into anew after it was moved is moved again.

use sqlx::{Connection, PgConnection};
use time::{Duration, OffsetDateTime};

use super::period::{HOURS_FOR, MINUTES_FOR};
use crate::{Store, StoreError};

/// Keeps workers from compacting at once: 'weircmpt' in ASCII.
const LOCK: i64 = 8_603_398_603_176_505_460;

/// No transaction counts into a minute that is over for so long, but for those that come too late.
const SETTLED: Duration = Duration::minutes(10);

/// How long counts of profiles are kept by the day. A trend shows a year at most.
const DAYS_FOR: Duration = Duration::days(400);

/// Whoever asks for a period has a clock of its own.
const MARGIN: Duration = Duration::hours(1);

/// Rows that move in one transaction.
const STEP: i64 = 5_000;

/// Which counts are put together, and into what.
struct Rule {
    /// All names that begin so: with that itself, or with a dot behind it.
    names: &'static str,
    /// Those that are older.
    age: Duration,
    /// A unit of `date_trunc`.
    into: &'static str,
}

/// How long failures are left alone: they are not added to, but set to what Redis says, shard by shard, for as long as Redis
/// has them; and it has them for longer when no worker was there for days.
const FAILURES_FOR: Duration = Duration::days(8);

const RULES: [Rule; 10] = [
    Rule { names: "cache", age: SETTLED, into: "minute" },
    Rule { names: "events", age: SETTLED, into: "minute" },
    Rule { names: "profiles", age: Duration::DAY, into: "day" },
    Rule { names: "cache", age: MINUTES_FOR.saturating_add(MARGIN), into: "hour" },
    Rule { names: "events", age: MINUTES_FOR.saturating_add(MARGIN), into: "hour" },
    Rule { names: "failed", age: FAILURES_FOR, into: "hour" },
    Rule { names: "cache", age: HOURS_FOR.saturating_add(MARGIN), into: "day" },
    Rule { names: "events", age: HOURS_FOR.saturating_add(MARGIN), into: "day" },
    Rule { names: "failed", age: HOURS_FOR.saturating_add(MARGIN), into: "day" },
    // One row for everything before: 2001-01-01.
    Rule { names: "profiles", age: DAYS_FOR, into: "millennium" },
];

impl Store {
    /// Puts counts together that are over or old, some thousands at most, and returns how many rows went into others. Zero
    /// means that nothing was left, or that somebody else is at it. Safe to call from many processes and while others
    /// count.
    pub async fn compact_tallies(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let moved = self.on_connection(async |connection| compact(connection, now).await).await;
        match moved {
            // Somebody counts into the row that others were to be added to.
            Err(error) if error.is_lock_timeout() => Ok(0),
            moved => moved,
        }
    }
}

async fn compact(connection: &mut PgConnection, now: OffsetDateTime) -> Result<u64, StoreError> {
    for rule in &RULES {
        let mut transaction = connection.begin().await?;
        // Long before PostgreSQL looks for a deadlock: of the two it is this one that gives way.
        sqlx::query("SET LOCAL lock_timeout = '100ms'").execute(&mut *transaction).await?;
        let mine = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "mine!""#, LOCK);
        if !mine.fetch_one(&mut *transaction).await? {
            return Ok(0);
        }
        let moved = rule.apply(&mut transaction, now).await?;
        if moved > 0 {
            transaction.commit().await?;
            return Ok(moved.unsigned_abs());
        }
        transaction.rollback().await?;
    }
    Ok(0)
}

impl Rule {
    async fn apply(&self, connection: &mut PgConnection, now: OffsetDateTime) -> Result<i64, StoreError> {
        let moved = sqlx::query_scalar!(
            r#"
            WITH old AS (
                SELECT what, at, shard FROM tallies
                WHERE what >= $1 AND what < $1 || '/' AND at < $2 AND (shard <> 0 OR at <> date_trunc($3, at, 'UTC'))
                LIMIT $4 FOR UPDATE SKIP LOCKED
            ),
            gone AS (
                DELETE FROM tallies t USING old WHERE t.what = old.what AND t.at = old.at AND t.shard = old.shard
                RETURNING t.what, date_trunc($3, t.at, 'UTC') AS at, t.n
            ),
            kept AS (
                INSERT INTO tallies (what, at, shard, n)
                SELECT what, at, 0, sum(n) FROM gone GROUP BY what, at ORDER BY what, at
                ON CONFLICT (what, at, shard) DO UPDATE SET n = tallies.n + excluded.n
            )
            SELECT count(*) AS "moved!" FROM gone
            "#,
            self.names,
            now - self.age,
            self.into,
            STEP
        );
        Ok(moved.fetch_one(connection).await?)
    }
}
