//! Somebody sets the clock of Redis.

use std::time::Duration;

use weir_core::queue::QueueError;
use weir_core::queue::consume::Lane;
use weir_stack::testing::{Clock, eventually, redis_by};

use crate::support::{LEASE, Place, SOON, ids, retry};

const HOUR: i64 = 3600;

async fn place() -> (Place, Clock) {
    let clock = Clock::new();
    (Place::on(redis_by(&clock).await, 1).await, clock)
}

/// Milliseconds until a lease runs out.
async fn left(place: &Place, name: &str) -> i64 {
    let (seconds, micros): (i64, i64) = place.ask(&["TIME"]).await;
    let deadline: f64 = place.ask(&["ZSCORE", "weir:{0}:alive", name]).await;
    deadline as i64 - seconds * 1000 - micros / 1000
}

async fn renew(place: &Place, name: &str) -> Result<(), QueueError> {
    place.queue.renew(0, LEASE, &[name.to_owned()]).await
}

#[tokio::test]
async fn a_clock_that_leaps_ahead_makes_nobody_dead() {
    let (place, clock) = place().await;
    for name in ["one", "two", "dead"] {
        place.join(name).await;
    }
    place.fill(30).await;
    let held = place.read(Lane::Ingest, "two", 10).await;
    place.read(Lane::Ingest, "dead", 10).await;
    clock.set(HOUR);
    eventually("Redis sees it", SOON, async || left(&place, "one").await < 0).await;
    // Whoever comes first has not renewed yet: it cannot tell who is dead.
    assert_eq!(place.queue.reap(0, "one", true).await.unwrap(), None);
    renew(&place, "one").await.unwrap();
    assert_eq!(place.queue.reap(0, "one", true).await.unwrap(), None, "the others have a term to renew");
    renew(&place, "two").await.unwrap();
    place.settle(Lane::Ingest, "two", &ids(&held)).await;
    assert_eq!((place.balance().await.stored, place.balance().await.suspect), (10, 0));

    // Who does not renew within that term is dead.
    clock.set(HOUR + 40);
    renew(&place, "one").await.unwrap();
    renew(&place, "two").await.unwrap();
    clock.set(HOUR + 70);
    eventually("the dead one is found", SOON, async || {
        place.queue.reap(0, "one", true).await.unwrap().is_some_and(|reaped| reaped.consumer == "dead")
    })
    .await;
    assert_eq!(place.queue.reap(0, "one", true).await.unwrap(), None);
    assert_eq!(place.balance().await.suspect, 10);
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_no_dead_worker_for_long() {
    let (place, clock) = place().await;
    place.join("living").await;
    place.join("dead").await;
    place.fill(10).await;
    place.read(Lane::Ingest, "dead", 10).await;
    clock.set(-HOUR);
    eventually("Redis sees it", SOON, async || left(&place, "dead").await > 3_000_000).await;
    renew(&place, "living").await.unwrap();
    let left = left(&place, "dead").await;
    assert!((1..=600_000).contains(&left), "{left} ms");
    let soon = left as u64 / 1000 + 1;
    // Nobody is late while the clock passes that time in one leap; those who live renew, and the dead one does not.
    clock.set(-HOUR + soon as i64 - 30);
    renew(&place, "living").await.unwrap();
    clock.set(-HOUR + soon as i64 + 1);
    eventually("the dead one is found", SOON, async || place.queue.reap(0, "living", true).await.unwrap().is_some())
        .await;
    assert_eq!(place.balance().await.suspect, 10);
}

#[tokio::test]
async fn ids_go_up_and_retries_are_kept_whatever_the_clock_does() {
    let (place, clock) = place().await;
    place.join("w").await;
    let mut all = place.fill(5).await;
    let entries = place.read(Lane::Ingest, "w", 2).await;
    place.move_to("w", &entries[0], retry(Duration::from_secs(5))).await;
    for seconds in [-HOUR, HOUR, -2 * HOUR, 0] {
        clock.set(seconds);
        all.extend(place.fill(5).await);
    }
    let order = |id: &String| {
        let (ms, seq) = id.split_once('-').unwrap();
        (ms.parse::<u64>().unwrap(), seq.parse::<u64>().unwrap())
    };
    assert!(all.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])), "{all:?}");

    clock.set(-HOUR);
    assert_eq!(place.queue.bring_back_due(0, 10).await.unwrap(), 0, "later than planned");
    assert_eq!(place.balance().await.due, 1);
    clock.set(HOUR);
    eventually("it comes back", SOON, async || place.queue.bring_back_due(0, 10).await.unwrap() == 1).await;
    assert_eq!(place.read(Lane::Retry, "w", 10).await[0].origin, entries[0].id);
    assert_eq!(place.balance().await.drift(), 0);
}
