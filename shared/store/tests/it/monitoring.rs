//! What the counts say, and that they say the same after they were put together.

use time::macros::{date, datetime};
use time::{Duration, OffsetDateTime};
use weir_store::{CacheCounts, FailureCount, Period};

use crate::support::Fixture;

/// The moment at which the counts of these tests are looked at.
const NOW: OffsetDateTime = datetime!(2026-06-30 12:00:30 UTC);

async fn run(f: &Fixture, sql: &'static str) {
    sqlx::query(sql).execute(f.pool()).await.expect("a statement");
}

async fn number(f: &Fixture, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(f.pool()).await.expect("a number")
}

/// Compacts until nothing is left to do.
async fn compact(f: &Fixture) -> u64 {
    let mut moved = 0;
    loop {
        match f.store.compact_tallies(NOW).await.expect("a step") {
            0 => return moved,
            step => moved += step,
        }
    }
}

/// Forty days of events every ten minutes in three shards, and cache reads beside them.
const EVENTS: &str = "
    INSERT INTO tallies (what, at, shard, n)
    SELECT what, at, shard, 1
    FROM generate_series(timestamptz '2026-05-21 00:00Z', '2026-06-30 12:00Z', interval '10 minutes') AS at,
         unnest(ARRAY['events.message_created', 'events.ms', 'failed.dead', 'cache.hit']) AS what,
         generate_series(1, 3) AS shard";

#[tokio::test]
async fn coverage_adds_up_all_days_and_shards() {
    let f = Fixture::new().await;
    assert_eq!(f.store.profile_counts().await.unwrap(), weir_store::ProfileCounts::default());
    run(
        &f,
        "INSERT INTO tallies VALUES
         ('profiles', '2025-01-01Z', 0, 5), ('profiles', '2025-01-01Z', 3, 2), ('profiles', '2026-06-30Z', 1, 3),
         ('profiles.named', '2025-01-01Z', 0, 6), ('profiles.named', '2026-06-30Z', 0, -1),
         ('profiles.full', '2025-01-01Z', 0, 4), ('profiles.fresh', '2025-01-01Z', 0, 10),
         ('profiles.source.webhook', '2025-01-01Z', 0, 5), ('profiles.source.default', '2025-01-01Z', 0, 5),
         ('events.x', '2025-01-01Z', 0, 99), ('profiles/', '2025-01-01Z', 0, 99)",
    )
    .await;
    let counts = f.store.profile_counts().await.unwrap();
    assert_eq!((counts.users, counts.named, counts.full), (10, 5, 4));
    assert_eq!(counts.by_source.into_iter().collect::<Vec<_>>(), [("default".into(), 5), ("webhook".into(), 5)]);
}

#[tokio::test]
async fn days_tell_what_there_was_at_their_end_and_what_was_last_changed_on_them() {
    let f = Fixture::new().await;
    run(
        &f,
        "INSERT INTO tallies VALUES
         ('profiles', '2025-01-01Z', 0, 5), ('profiles', '2026-06-29Z', 1, 3), ('profiles', '2026-06-30Z', 1, 1),
         ('profiles.fresh', '2025-01-01Z', 0, 5), ('profiles.fresh', '2026-06-29Z', 0, 3),
         ('profiles.fresh', '2026-06-29Z', 1, -1), ('profiles.fresh', '2026-06-30Z', 1, 2)",
    )
    .await;
    let days = f.store.profile_days(date!(2026 - 06 - 28), date!(2026 - 06 - 30)).await.unwrap();
    let shown: Vec<_> = days.iter().map(|day| (day.counts.users, day.last_changed)).collect();
    assert_eq!(shown, [(5, 0), (8, 2), (9, 2)]);
}

#[tokio::test]
async fn events_of_a_period_are_told_by_what_became_of_them() {
    let f = Fixture::new().await;
    run(
        &f,
        "INSERT INTO tallies VALUES
         ('events.message_created', '2026-06-30 11:59Z', 0, 5), ('events.message_created', '2026-06-30 11:59Z', 9, 1),
         ('events.bot_started', '2026-06-30 12:00Z', 0, 2), ('events.ms', '2026-06-30 12:00Z', 0, 80),
         ('events.bot_started', '2026-06-30 11:58Z', 0, 100), ('events.bot_started', '2026-06-30 12:01Z', 0, 100),
         ('failed.dead', '2026-06-30 12:00Z', 0, 1), ('failed.foreign', '2026-06-30 12:00Z', 0, 4)",
    )
    .await;
    let period = Period::last(Duration::MINUTE, NOW);
    let counts = f.store.webhook_counts(period).await.unwrap();
    assert_eq!((counts.processed(), counts.failures(), counts.ms), (8, 1, 80));
    assert_eq!((counts.by_kind["message_created"], counts.failed["dead"], counts.ignored["foreign"]), (6, 1, 4));
    assert_eq!(f.store.last_event_at().await.unwrap(), Some(datetime!(2026-06-30 12:01 UTC)));
}

#[tokio::test]
async fn without_any_event_there_is_nothing_and_no_error() {
    let f = Fixture::new().await;
    let counts = f.store.webhook_counts(Period::last(Duration::DAY, NOW)).await.unwrap();
    assert_eq!(counts, weir_store::WebhookCounts::default());
    assert_eq!(f.store.last_event_at().await.unwrap(), None);
    assert_eq!(f.store.cache_counts(Period::last(Duration::DAY, NOW)).await.unwrap().reads(), 0);
    assert_eq!(f.store.compact_tallies(NOW).await.unwrap(), 0);
}

#[tokio::test]
async fn reads_of_the_cache_are_added_up() {
    let f = Fixture::new().await;
    run(
        &f,
        "INSERT INTO tallies SELECT what, at, shard, 3
         FROM unnest(ARRAY['cache.hit', 'cache.miss', 'cache.error', 'cache.us', 'cache.later']) AS what,
              unnest(ARRAY[timestamptz '2026-06-30 12:00Z', '2026-06-30 11:30Z', '2026-06-29 12:00Z']) AS at,
              unnest(ARRAY[0, 7]) AS shard",
    )
    .await;
    let counted = f.store.cache_counts(Period::last(Duration::HOUR, NOW)).await.unwrap();
    assert_eq!(counted, CacheCounts { hits: 12, misses: 12, errors: 12, us: 12 });
    assert_eq!(counted.reads(), 36);
    assert_eq!(f.store.webhook_counts(Period::last(Duration::HOUR, NOW)).await.unwrap().processed(), 0);
}

#[tokio::test]
async fn counts_that_were_put_together_say_what_they_said_before() {
    let f = Fixture::new().await;
    run(&f, EVENTS).await;
    let periods = [
        Period::around(NOW - Duration::hours(3), NOW, NOW),
        Period::around(NOW - Duration::days(1), NOW, NOW),
        Period::around(NOW - Duration::days(5), NOW - Duration::days(3), NOW),
        Period::around(NOW - Duration::days(38), NOW - Duration::days(36), NOW),
        Period::around(NOW - Duration::days(40), NOW, NOW),
    ];
    let mut before = Vec::new();
    for period in periods {
        before.push((f.store.webhook_counts(period).await.unwrap(), f.store.cache_counts(period).await.unwrap()));
    }
    let (rows, sum) = (f.count("tallies").await, number(&f, "SELECT sum(n)::bigint FROM tallies").await);
    assert!(compact(&f).await > 0);
    for (period, before) in periods.into_iter().zip(before) {
        let after = (f.store.webhook_counts(period).await.unwrap(), f.store.cache_counts(period).await.unwrap());
        assert_eq!(after, before, "{period:?}");
    }
    assert_eq!(number(&f, "SELECT sum(n)::bigint FROM tallies").await, sum);
    assert!(f.count("tallies").await * 5 < rows, "{} of {rows}", f.count("tallies").await);
    assert_eq!(compact(&f).await, 0, "nothing is left the second time");
}

#[tokio::test]
async fn minutes_become_hours_and_hours_become_days_with_age() {
    let f = Fixture::new().await;
    run(&f, EVENTS).await;
    compact(&f).await;
    let of = "SELECT count(*) FROM tallies WHERE what = 'events.ms' AND at ";
    let rows = async |condition: &str| {
        let sql = sqlx::AssertSqlSafe(format!("{of}{condition}"));
        sqlx::query_scalar::<_, i64>(sql).fetch_one(f.pool()).await.unwrap()
    };
    assert_eq!(rows(">= '2026-06-30 11:51Z'").await, 3, "what may still be counted has its shards");
    assert_eq!(rows(">= '2026-06-30 06:00Z' AND at < '2026-06-30 11:00Z'").await, 30, "ten minutes apart");
    assert_eq!(rows(">= '2026-06-20Z' AND at < '2026-06-21Z'").await, 24, "hours");
    assert_eq!(rows(">= '2026-05-21Z' AND at < '2026-05-26Z'").await, 5, "days");
}

#[tokio::test]
async fn failures_keep_their_shards_while_they_are_young() {
    let f = Fixture::new().await;
    run(&f, EVENTS).await;
    let failures = number(&f, "SELECT sum(n)::bigint FROM tallies WHERE what = 'failed.dead'").await;
    compact(&f).await;
    let young =
        "SELECT count(*) FROM tallies WHERE what = 'failed.dead' AND at >= '2026-06-29Z' AND at < '2026-06-30Z'";
    assert_eq!(number(&f, young).await, 3 * 144);
    // Copied once more, it is what it was.
    let count = FailureCount { reason: "dead".into(), at: datetime!(2026-06-23 10:10 UTC), shard: 1, n: 1 };
    f.store.copy_failures(&[count]).await.unwrap();
    assert_eq!(number(&f, "SELECT sum(n)::bigint FROM tallies WHERE what = 'failed.dead'").await, failures);
}

#[tokio::test]
async fn profiles_of_long_ago_become_one_row_and_the_trend_stays() {
    let f = Fixture::new().await;
    run(
        &f,
        "INSERT INTO tallies (what, at, shard, n)
         SELECT what, at, shard, 1
         FROM generate_series(timestamptz '2024-01-01Z', '2026-06-30Z', interval '1 day') AS at,
              unnest(ARRAY['profiles', 'profiles.named', 'profiles.fresh', 'profiles.source.webhook']) AS what,
              generate_series(0, 2) AS shard",
    )
    .await;
    let (first, last) = (date!(2025 - 07 - 01), date!(2026 - 06 - 30));
    let (days, counts) = (f.store.profile_days(first, last).await.unwrap(), f.store.profile_counts().await.unwrap());
    compact(&f).await;
    assert_eq!(f.store.profile_days(first, last).await.unwrap(), days);
    assert_eq!(f.store.profile_counts().await.unwrap(), counts);
    let old = "SELECT count(*) FROM tallies WHERE what = 'profiles' AND at < '2025-05-26Z'";
    assert_eq!(number(&f, old).await, 1);
    let young = "SELECT count(*) FROM tallies WHERE what = 'profiles' AND at >= '2026-06-29Z'";
    assert_eq!(number(&f, young).await, 1 + 3, "today keeps its shards");
    // What is counted into a day that has gone is put to the others the next time.
    run(&f, "INSERT INTO tallies VALUES ('profiles.fresh', '2024-05-05Z', 0, -4)").await;
    assert_eq!(compact(&f).await, 1);
    assert_eq!(f.store.profile_days(first, last).await.unwrap(), days);
}

/// Counts into old and new rows, as a worker that is late and one that is not.
async fn count(f: &Fixture, times: usize) {
    for turn in 0..times {
        let sql = "INSERT INTO tallies (what, at, shard, n)
                   SELECT 'events.message_created', timestamptz '2026-06-01Z' + interval '1 minute' * m, $1, 1
                   FROM generate_series(0, 60) AS m
                   ON CONFLICT (what, at, shard) DO UPDATE SET n = tallies.n + excluded.n";
        let shard = i16::try_from(turn % 4).unwrap();
        sqlx::query(sql).bind(shard).execute(f.pool()).await.expect("a writer is never made to fail");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_counted_twice_while_writers_and_others_compact() {
    let f = Fixture::new().await;
    let compactors = async {
        for _ in 0..100 {
            f.store.compact_tallies(NOW).await.expect("a step");
        }
    };
    let readers = async {
        let mut last = 0;
        for _ in 0..100 {
            let period = Period::around(datetime!(2026-06-01 0:00 UTC), datetime!(2026-06-02 0:00 UTC), NOW);
            let now = f.store.webhook_counts(period).await.expect("counts").processed();
            assert!(now >= last, "a count went from {last} to {now}");
            last = now;
        }
    };
    let others = async {
        for _ in 0..100 {
            f.store.compact_tallies(NOW).await.expect("a step");
        }
    };
    tokio::join!(count(&f, 60), count(&f, 60), compactors, others, readers);
    compact(&f).await;
    assert_eq!(number(&f, "SELECT sum(n)::bigint FROM tallies").await, 2 * 60 * 61);
    assert_eq!(f.count("tallies").await, 1, "a day");
}

#[tokio::test]
async fn a_row_that_somebody_holds_is_left_for_the_next_time() {
    let f = Fixture::new().await;
    run(
        &f,
        "INSERT INTO tallies VALUES ('events.a', '2026-06-01 00:07Z', 0, 1), ('events.a', '2026-06-01 00:08Z', 0, 2),
                                    ('events.a', '2026-06-01 00:00Z', 0, 4)",
    )
    .await;
    let mut writer = f.pool().begin().await.unwrap();
    sqlx::query("UPDATE tallies SET n = n + 8 WHERE at = '2026-06-01 00:07Z'").execute(&mut *writer).await.unwrap();
    assert_eq!(compact(&f).await, 1);
    writer.commit().await.unwrap();
    let mut writer = f.pool().begin().await.unwrap();
    sqlx::query("UPDATE tallies SET n = n + 16 WHERE at = '2026-06-01 00:00Z'").execute(&mut *writer).await.unwrap();
    assert_eq!(compact(&f).await, 0, "where it should go somebody counts");
    writer.commit().await.unwrap();
    assert_eq!(compact(&f).await, 1);
    assert_eq!(number(&f, "SELECT n FROM tallies").await, 31);
}
