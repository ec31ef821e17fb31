//! The dedupe memory: how long it reaches back, and how it is forgotten.

use std::time::Duration;

use weir_core::queue::enqueue::{Bounds, Enqueued, Enqueuer};
use weir_stack::testing::eventually;

use crate::support::{BOUNDS, Place, SOON, accepted, message, new_id};

/// The number of the current epoch.
async fn epoch(place: &Place) -> u64 {
    place.ask(&["HGET", "weir:{0}:seen:meta", "epoch"]).await
}

/// Appends new messages until the next epoch has begun.
async fn turn(place: &Place, enqueuer: &Enqueuer) {
    let before = epoch(place).await;
    eventually("the epoch turns", SOON, async || {
        new_id(&enqueuer.enqueue(&[message(&rand::random::<u64>().to_string(), "x")]).await[0]);
        epoch(place).await > before
    })
    .await;
}

/// How many ids the buckets of a pattern hold.
async fn remembered(place: &Place, pattern: &str) -> u64 {
    let mut count = 0;
    for bucket in place.ask::<Vec<String>>(&["KEYS", pattern]).await {
        count += place.ask::<u64>(&["HLEN", &bucket]).await;
    }
    count
}

/// What the gateway does every few seconds.
async fn sweep(place: &Place, enqueuer: &Enqueuer) -> bool {
    let (_, sweep) = place.queue.partition_balance(0).await.unwrap();
    let Some(sweep) = sweep else { return false };
    enqueuer.sweep(sweep.partition, sweep.epoch, sweep.buckets).await.unwrap();
    true
}

#[tokio::test]
async fn an_id_is_known_through_two_epochs_and_forgotten_after_them() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer_with(Bounds { window: Duration::from_millis(50), ..BOUNDS });
    let id = new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    turn(&place, &enqueuer).await;
    // A window that does not end, so that the two questions fall into one epoch.
    let patient = place.enqueuer();
    assert_eq!(patient.enqueue(&[message("a", "x")]).await[0].as_ref().unwrap(), &Enqueued::Duplicate(id));

    turn(&place, &enqueuer).await;
    assert!(sweep(&place, &enqueuer).await);
    new_id(&patient.enqueue(&[message("a", "x")]).await[0]);
    place.balance().await;
}

#[tokio::test]
async fn a_full_epoch_ends_before_its_time() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer_with(Bounds { remembered: 100, ..BOUNDS });
    let batch = |name: &str| (0..100).map(|i| message(&format!("{name}{i}"), "x")).collect::<Vec<_>>();
    enqueuer.enqueue(&batch("a")).await.iter().for_each(accepted);
    let first = epoch(&place).await;
    enqueuer.enqueue(&batch("b")[..60]).await.iter().for_each(accepted);
    assert!(epoch(&place).await > first);
    assert_eq!(place.balance().await.remembered, 60);
    assert!(enqueuer.enqueue(&batch("a")).await.iter().all(|result| matches!(result, Ok(Enqueued::Duplicate(_)))));
}

#[tokio::test]
async fn no_epoch_ends_while_an_older_one_is_still_to_be_swept() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer_with(Bounds { window: Duration::from_millis(20), ..BOUNDS });
    new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    turn(&place, &enqueuer).await;
    turn(&place, &enqueuer).await;
    let now = epoch(&place).await;
    // Nobody sweeps: however late it is, the epoch stays.
    let () = place.ask(&["HSET", "weir:{0}:seen:meta", "started", "1"]).await;
    new_id(&enqueuer.enqueue(&[message("b", "x")]).await[0]);
    assert_eq!(epoch(&place).await, now);

    assert!(sweep(&place, &enqueuer).await);
    assert!(!sweep(&place, &enqueuer).await);
    new_id(&enqueuer.enqueue(&[message("c", "x")]).await[0]);
    assert!(epoch(&place).await > now);
}

#[tokio::test]
async fn sweeping_removes_every_key_of_an_old_epoch() {
    let place = Place::new().await;
    let cap = Bounds { remembered: 3000, ..BOUNDS };
    let enqueuer = place.enqueuer_with(cap);
    let of_epoch = async |epoch: u64| {
        let pattern = format!("weir:{{0}}:seen:{epoch}:*");
        place.ask::<Vec<String>>(&["KEYS", &pattern]).await.len()
    };
    let mut epochs = Vec::new();
    for round in 0..4 {
        let batch: Vec<_> = (0..3000).map(|i| message(&format!("{round}-{i}"), "x")).collect();
        enqueuer.enqueue(&batch).await.iter().for_each(accepted);
        epochs.push(epoch(&place).await);
        sweep(&place, &enqueuer).await;
    }
    assert_eq!(of_epoch(epochs[0]).await, 0);
    assert_eq!(of_epoch(epochs[1]).await, 0);
    assert!(of_epoch(epochs[2]).await > 0 && of_epoch(epochs[3]).await > 0);
    // 3000 ids at about 24 a bucket: the guess of 10240 buckets was for the first epoch only.
    assert!(of_epoch(epochs[3]).await <= 128, "{}", of_epoch(epochs[3]).await);
    assert_eq!(place.buckets().await.len(), of_epoch(epochs[2]).await + of_epoch(epochs[3]).await);
}

#[tokio::test]
async fn a_gateway_that_believes_in_an_old_epoch_writes_nothing_there() {
    let place = Place::new().await;
    let (one, two) = (place.enqueuer(), place.enqueuer());
    let id = new_id(&one.enqueue(&[message("a", "x")]).await[0]);
    new_id(&two.enqueue(&[message("warm", "x")]).await[0]);
    let hasty = place.enqueuer_with(Bounds { window: Duration::from_millis(20), ..BOUNDS });
    turn(&place, &hasty).await;
    let now = format!("weir:{{0}}:seen:{}:*", epoch(&place).await);
    let (new, all) = (remembered(&place, &now).await, remembered(&place, "weir:{0}:seen:[0-9]*").await);

    // `two` has not heard of the new epoch.
    assert_eq!(two.enqueue(&[message("a", "x")]).await[0].as_ref().unwrap(), &Enqueued::Duplicate(id));
    new_id(&two.enqueue(&[message("b", "x")]).await[0]);
    assert_eq!(remembered(&place, &now).await, new + 1);
    assert_eq!(remembered(&place, "weir:{0}:seen:[0-9]*").await, all + 1);
}

#[tokio::test]
async fn the_window_that_is_really_held_is_known() {
    let place = Place::new().await;
    assert_eq!(place.balance().await.window_ms, 0);
    place.fill(1).await;
    eventually("the window grows", SOON, async || place.balance().await.window_ms > 50).await;
}
