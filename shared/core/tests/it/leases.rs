//! Who is alive, and what becomes of the work of who is not.

use std::time::Duration;

use weir_core::queue::QueueError;
use weir_core::queue::consume::Lane;
use weir_core::queue::lease::Reaped;
use weir_stack::testing::eventually;

use crate::support::{Place, SOON, dead, ids, journey, retry};

async fn reap(place: &Place, name: &str) -> Option<Reaped> {
    place.queue.reap(0, name, true).await.unwrap()
}

/// Reaps until nobody is dead; gives all steps.
async fn reap_all(place: &Place, name: &str) -> Vec<Reaped> {
    let mut steps = Vec::new();
    while let Some(step) = reap(place, name).await {
        steps.push(step);
    }
    steps
}

async fn consumers(place: &Place) -> u64 {
    let mut count = 0;
    for stream in ["ingest", "retry", "suspect"] {
        let stream = format!("weir:{{0}}:{stream}");
        count += place.ask::<Vec<redis::Value>>(&["XINFO", "CONSUMERS", &stream, "workers"]).await.len() as u64;
    }
    count
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let place = Place::new().await;
    place.join("w").await;
    let again = place.queue.join(0, Duration::from_secs(1), &["v".into(), "w".into()]).await;
    assert!(matches!(again, Err(QueueError::Fenced)));
    assert_eq!(place.balance().await.workers, 1, "none of the names was taken");
    place.queue.renew(0, Duration::from_secs(1), &["w".into()]).await.unwrap();
}

#[tokio::test]
async fn the_entries_of_a_dead_worker_become_suspects() {
    let place = Place::new().await;
    place.join("living").await;
    place.queue.join(0, Duration::from_millis(1), &["dead".into()]).await.unwrap();
    place.fill(30).await;
    let entries = place.read(Lane::Ingest, "dead", 20).await;
    place.queue.renew(0, Duration::from_secs(60), &["dead".into()]).await.unwrap();
    place.queue.move_entries(0, Lane::Ingest, "dead", &[(&entries[0], retry(Duration::ZERO))]).await.unwrap();
    place.queue.bring_back_due(0, 1).await.unwrap();
    place.read(Lane::Retry, "dead", 1).await;
    place.read(Lane::Ingest, "living", 5).await;
    assert_eq!(reap(&place, "living").await, None, "its lease holds");

    place.queue.renew(0, Duration::ZERO, &["dead".into()]).await.unwrap();
    eventually("the lease runs out", SOON, async || {
        reap(&place, "living").await == Some(Reaped { consumer: "dead".into(), moved: 20, finished: true })
    })
    .await;
    assert_eq!(reap(&place, "living").await, None);
    assert_eq!(consumers(&place).await, 1);
    let balance = place.balance().await;
    assert_eq!((balance.suspect, balance.pending, balance.undelivered, balance.workers), (20, 5, 5, 1));

    let suspects = place.read(Lane::Suspect, "living", 100).await;
    assert!(suspects.iter().all(|entry| entry.crashes == 0), "they were not alone when the worker died");
    for entry in &entries {
        let suspect = suspects.iter().find(|suspect| suspect.origin == entry.id).unwrap();
        assert_eq!(suspect.envelope, entry.envelope);
    }
    let retried = suspects.iter().find(|suspect| suspect.origin == entries[0].id).unwrap();
    assert_eq!(retried.journey.attempts, journey(1).attempts);

    let late = place.queue.settle(0, Lane::Ingest, "dead", &ids(&entries), &[]).await;
    assert!(matches!(late, Err(QueueError::Fenced)), "a zombie");
    assert_eq!(place.balance().await.stored, 0);
}

#[tokio::test]
async fn only_a_death_in_suspect_counts_as_a_crash() {
    let place = Place::new().await;
    place.join("living").await;
    place.fill(2).await;
    place.join("w0").await;
    assert_eq!(place.read(Lane::Ingest, "w0", 2).await.len(), 2);
    for round in 0..4_u32 {
        let name = format!("w{round}");
        place.queue.declare_dead(0, &name).await.unwrap();
        assert!(reap(&place, "living").await.unwrap().finished);
        let next = format!("w{}", round + 1);
        place.join(&next).await;
        let suspect = place.read(Lane::Suspect, &next, 1).await.remove(0);
        // Two entries take turns: each is read by every second worker.
        assert_eq!(suspect.crashes, round / 2);
        assert_eq!(place.balance().await.suspect, 2);
    }
}

#[tokio::test]
async fn suspects_come_together_until_a_death_among_them_and_alone_afterwards() {
    let place = Place::new().await;
    let die = async |name: &str| {
        place.queue.declare_dead(0, name).await.unwrap();
        reap_all(&place, "living").await;
    };
    let suspects = async |name: &str, count| place.queue.read_suspects(0, name, count).await.unwrap();
    place.join("living").await;
    assert!(suspects("living", 100).await.is_empty());
    place.fill(30).await;
    place.join("first").await;
    place.read(Lane::Ingest, "first", 30).await;
    die("first").await;

    place.join("second").await;
    assert_eq!(suspects("second", 20).await.len(), 20, "so many at most");
    die("second").await;
    // Ten that nothing is held against, and behind them twenty that were there at a death.
    assert_eq!(suspects("living", 100).await.len(), 10);
    for _ in 0..20 {
        let alone = suspects("living", 100).await;
        assert_eq!(alone.iter().map(|entry| entry.crashes).collect::<Vec<_>>(), [1]);
    }
    assert!(suspects("living", 100).await.is_empty());
}

#[tokio::test]
async fn a_large_estate_is_taken_over_in_steps() {
    let place = Place::new().await;
    place.join("living").await;
    place.join("dead").await;
    place.fill(450).await;
    assert_eq!(place.read(Lane::Ingest, "dead", 450).await.len(), 450);
    place.queue.declare_dead(0, "dead").await.unwrap();
    let steps = reap_all(&place, "living").await;
    let moved: Vec<_> = steps.iter().map(|step| (step.moved, step.finished)).collect();
    assert_eq!(moved, [(200, false), (200, false), (50, true)]);
    let balance = place.balance().await;
    assert_eq!((balance.suspect, balance.pending, balance.ingest_length), (450, 0, 0));
}

#[tokio::test]
async fn a_half_reaped_worker_stays_fenced() {
    let place = Place::new().await;
    place.join("living").await;
    place.join("dead").await;
    place.fill(300).await;
    let entries = place.read(Lane::Ingest, "dead", 300).await;
    place.queue.renew(0, Duration::ZERO, &["dead".into()]).await.unwrap();
    eventually("the lease runs out", SOON, async || reap(&place, "living").await.is_some()).await;
    assert!(matches!(place.queue.renew(0, Duration::from_secs(9), &["dead".into()]).await, Err(QueueError::Fenced)));
    let late = place.queue.settle(0, Lane::Ingest, "dead", &ids(&entries), &[]).await;
    assert!(matches!(late, Err(QueueError::Fenced)));
    reap_all(&place, "living").await;
    assert_eq!(place.balance().await.suspect, 300);
}

#[tokio::test]
async fn a_consumer_without_any_lease_is_taken_over_but_not_the_caller() {
    let place = Place::new().await;
    place.fill(10).await;
    place.join("caller").await;
    place.read(Lane::Ingest, "caller", 4).await;
    place.read(Lane::Ingest, "stranger", 4).await;
    place.queue.renew(0, Duration::ZERO, &["caller".into()]).await.unwrap();
    eventually("the stranger is reaped", SOON, async || reap(&place, "caller").await.is_some()).await;
    assert_eq!(reap(&place, "caller").await, None);
    let balance = place.balance().await;
    assert_eq!((balance.suspect, balance.pending, balance.undelivered), (4, 4, 2));
}

#[tokio::test]
async fn after_an_outage_only_the_condemned_are_reaped() {
    let place = Place::new().await;
    place.join("living").await;
    for name in ["late", "condemned"] {
        place.queue.join(0, Duration::ZERO, &[name.into()]).await.unwrap();
    }
    place.queue.declare_dead(0, "condemned").await.unwrap();
    let reaped = place.queue.reap(0, "living", false).await.unwrap().unwrap();
    assert_eq!(reaped.consumer, "condemned");
    assert_eq!(place.queue.reap(0, "living", false).await.unwrap(), None);
    place.queue.renew(0, Duration::from_secs(60), &["late".into()]).await.unwrap();
    assert_eq!(reap(&place, "living").await, None);
}

#[tokio::test]
async fn who_leaves_hands_back_without_an_attempt() {
    let place = Place::new().await;
    place.join("w").await;
    place.join("next").await;
    place.fill(300).await;
    let entries = place.read(Lane::Ingest, "w", 250).await;
    place.settle(Lane::Ingest, "w", &ids(&entries[..20])).await;
    place.move_to("w", &entries[20], retry(Duration::ZERO)).await;
    place.queue.bring_back_due(0, 1).await.unwrap();
    assert_eq!(place.read(Lane::Retry, "w", 5).await.len(), 1);

    assert_eq!(place.queue.leave(0, "w").await.unwrap(), 230);
    let balance = place.balance().await;
    assert_eq!((balance.pending, balance.undelivered, balance.suspect, balance.workers), (0, 280, 0, 1));
    assert_eq!(consumers(&place).await, 0);
    let back = place.read(Lane::Retry, "next", 500).await;
    assert_eq!(back.len(), 230);
    for entry in &back {
        assert_eq!(entry.journey.attempts, u32::from(entry.origin == entries[20].id));
        let first = entries.iter().find(|first| first.id == entry.origin).unwrap();
        assert_eq!(first.envelope, entry.envelope);
    }
    assert!(matches!(place.queue.leave(0, "w").await, Err(QueueError::Fenced)));
}

#[tokio::test]
async fn a_suspect_that_is_handed_back_stays_a_suspect_with_its_crashes() {
    let place = Place::new().await;
    for name in ["a", "b", "c"] {
        place.join(name).await;
    }
    place.fill(1).await;
    place.read(Lane::Ingest, "a", 1).await;
    place.queue.declare_dead(0, "a").await.unwrap();
    reap_all(&place, "c").await;
    place.read(Lane::Suspect, "b", 1).await;
    place.queue.declare_dead(0, "b").await.unwrap();
    reap_all(&place, "c").await;
    assert_eq!(place.read(Lane::Suspect, "c", 1).await[0].crashes, 1);
    assert_eq!(place.queue.leave(0, "c").await.unwrap(), 1);
    place.join("d").await;
    assert_eq!(place.read(Lane::Suspect, "d", 1).await[0].crashes, 1);
    assert_eq!(place.balance().await.suspect, 1);
}

#[tokio::test]
async fn entries_that_vanished_are_counted_as_lost() {
    let place = Place::new().await;
    let written = place.fill(3).await;
    for name in ["w", "v", "living"] {
        place.join(name).await;
    }
    place.read(Lane::Ingest, "w", 1).await;
    place.read(Lane::Ingest, "v", 1).await;
    let () = place.ask(&["XDEL", "weir:{0}:ingest", &written[0], &written[1]]).await;
    place.queue.declare_dead(0, "w").await.unwrap();
    assert!(reap(&place, "living").await.unwrap().finished);
    place.queue.leave(0, "v").await.unwrap();
    let balance = place.queue.balance().await.unwrap();
    assert_eq!((balance.lost, balance.drift()), (2, 2));
}

#[tokio::test]
async fn a_dead_letter_of_a_worker_that_died_later_stays_one() {
    let place = Place::new().await;
    place.join("w").await;
    place.join("living").await;
    place.fill(2).await;
    let entries = place.read(Lane::Ingest, "w", 2).await;
    place.move_to("w", &entries[0], dead(&entries[0])).await;
    place.queue.declare_dead(0, "w").await.unwrap();
    reap_all(&place, "living").await;
    let balance = place.balance().await;
    assert_eq!((balance.dead, balance.suspect), (1, 1));
}
