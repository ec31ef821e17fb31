use std::time::Duration;

use time::OffsetDateTime;
use weir_store::{DialogCache, NewEvent};

use crate::support::{Fixture, later, message};

const SECOND: Duration = Duration::from_secs(1);

/// Message `n` of the one client of these tests, sent and accepted `after` its first.
fn says(n: usize, phone: &str, after: Duration) -> NewEvent {
    let told = NewEvent { client_phone: (!phone.is_empty()).then(|| phone.to_owned()), ..message(0) };
    NewEvent { key: message(n).key, ..later(&told, after) }
}

async fn phone(f: &Fixture) -> Option<String> {
    sqlx::query_scalar("SELECT phone FROM clients").fetch_one(f.pool()).await.unwrap()
}

async fn last_seen_at(f: &Fixture) -> OffsetDateTime {
    sqlx::query_scalar("SELECT last_seen_at FROM clients").fetch_one(f.pool()).await.unwrap()
}

#[tokio::test]
async fn a_newer_phone_replaces_an_older_one_and_not_the_other_way_round() {
    let f = Fixture::new().await;
    for (n, told, after, wanted) in [
        (1, "", 5, None),
        (2, "111", 5, Some("111")),
        (3, "222", 10, Some("222")),
        (4, "333", 7, Some("222")),
        (5, "", 20, Some("222")),
        (6, "444", 10, Some("444")),
    ] {
        f.persist(&[says(n, told, after * SECOND)]).await;
        assert_eq!(phone(&f).await.as_deref(), wanted, "after message {n}");
    }
}

#[tokio::test]
async fn the_newest_phone_of_a_batch_counts() {
    let f = Fixture::new().await;
    f.persist(&[says(1, "111", SECOND), says(2, "333", 3 * SECOND), says(3, "222", 2 * SECOND)]).await;
    assert_eq!(phone(&f).await.as_deref(), Some("333"));
    f.persist(&[says(4, "666", 6 * SECOND), says(5, "555", 5 * SECOND), says(6, "", 7 * SECOND)]).await;
    assert_eq!(phone(&f).await.as_deref(), Some("666"));
}

#[tokio::test]
async fn a_phone_is_compared_with_the_row_and_not_with_the_memory() {
    let f = Fixture::new().await;
    let elsewhere = DialogCache::new(10);
    f.persist(&[says(1, "111", SECOND)]).await;
    f.store.persist(&elsewhere, &[says(2, "999", 9 * SECOND)]).await.unwrap();
    f.persist(&[says(3, "555", 5 * SECOND)]).await;
    assert_eq!(phone(&f).await.as_deref(), Some("999"));
}

#[tokio::test]
async fn a_change_back_that_a_stale_memory_hides_is_made_up_for_within_a_minute() {
    let f = Fixture::new().await;
    let elsewhere = DialogCache::new(10);
    f.persist(&[says(1, "111", SECOND)]).await;
    f.store.persist(&elsewhere, &[says(2, "222", 2 * SECOND)]).await.unwrap();
    f.persist(&[says(3, "111", 3 * SECOND)]).await;
    assert_eq!(phone(&f).await.as_deref(), Some("222"));
    f.persist(&[says(4, "111", 62 * SECOND)]).await;
    assert_eq!(phone(&f).await.as_deref(), Some("111"));
}

#[tokio::test]
async fn last_seen_is_written_once_a_minute() {
    let f = Fixture::new().await;
    let first = message(0).place.accepted_at();
    for (n, after, wanted) in [(1, 0, 0), (2, 30, 0), (3, 60, 0), (4, 61, 61), (5, 100, 61), (6, 10, 61), (7, 122, 122)]
    {
        f.persist(&[says(n, "", after * SECOND)]).await;
        assert_eq!(last_seen_at(&f).await, first + wanted * SECOND, "after message {n}");
    }
}

#[tokio::test]
async fn a_client_that_nothing_changed_about_is_not_written() {
    let f = Fixture::new().await;
    f.persist(&[says(1, "111", SECOND)]).await;
    let version = || async {
        let xmin: String = sqlx::query_scalar("SELECT xmin::text FROM clients").fetch_one(f.pool()).await.unwrap();
        xmin
    };
    let before = version().await;
    f.persist(&[says(2, "111", 2 * SECOND), says(3, "", 3 * SECOND)]).await;
    f.store.persist(&DialogCache::new(10), &[says(4, "111", 4 * SECOND)]).await.unwrap();
    assert_eq!(version().await, before);
}

#[tokio::test]
async fn a_duplicate_says_nothing_about_its_client() {
    let f = Fixture::new().await;
    f.persist(&[says(1, "111", SECOND)]).await;
    let mut repeat = says(1, "222", 90 * SECOND);
    repeat.place.seq += 1;
    f.persist(&[repeat]).await;
    assert_eq!(phone(&f).await.as_deref(), Some("111"));
}
