//! Who lost its lease changes nothing any more; who died is taken over from.

use weir_core::queue::QueueError;
use weir_core::queue::consume::Lane;
use weir_core::queue::letters::Shelf;
use weir_stack::testing::eventually;

use crate::support::{PATIENCE, World, messages};
use std::time::Duration;

/// Reads everything of a partition as a consumer that then dies.
async fn read_and_die(world: &World, partition: u16, name: &str) -> Vec<String> {
    let lease = Duration::from_secs(3600);
    world.queue.join(partition, lease, &[name.to_owned()]).await.unwrap();
    let read = world.queue.read_new(partition, Lane::Ingest, name, 1000, Duration::from_millis(10)).await.unwrap();
    world.queue.declare_dead(partition, name).await.unwrap();
    read.into_iter().map(|entry| entry.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_dead_worker_are_stored_by_another_without_a_crash_counted() {
    let world = World::new().await;
    world.accept_new(&messages(0..100)).await;
    let held = read_and_die(&world, 0, "dead").await.len() + read_and_die(&world, 1, "dead").await.len();
    assert_eq!(held, 100);
    let worker = world.start();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead, balance.workers), (100, 0, 1));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_ack_of_a_zombie_changes_nothing() {
    let world = World::new().await;
    world.accept_new(&messages(0..50)).await;
    let ids = read_and_die(&world, 0, "zombie").await;
    let late: Vec<_> = ids.iter().map(String::as_str).collect();
    let answer = world.queue.settle(0, Lane::Ingest, "zombie", &late, &[]).await;
    assert!(matches!(answer, Err(QueueError::Fenced)), "{answer:?}");
    let worker = world.start();
    let balance = world.drained().await;
    assert_eq!(balance.stored, 50);
    // Even under a lease of another name the entries are gone from its hands.
    world.queue.join(0, Duration::from_secs(60), &["zombie2".to_owned()]).await.unwrap();
    world.queue.settle(0, Lane::Ingest, "zombie2", &late, &[]).await.unwrap();
    assert_eq!((world.balance().await.stored, world.balance().await.drift()), (50, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_lease_starts_over_under_another_name() {
    let world = World::new().await;
    let worker = world.start();
    world.accept_new(&messages(0..10)).await;
    world.drained().await;
    for partition in 0..2 {
        assert!(world.queue.declare_dead(partition, &worker.name).await.unwrap() >= 1);
    }
    let again = format!("{}.1.0", worker.name);
    let mut ask = redis::cmd("ZSCORE");
    ask.arg(&world.queue.keys(0).alive).arg(&again);
    eventually("it is back", PATIENCE, async || {
        world.queue.command::<Option<f64>>(&ask).await.is_ok_and(|score| score.is_some_and(|score| score > 0.0))
    })
    .await;
    world.accept_new(&messages(10..20)).await;
    assert_eq!(world.drained().await.stored, 20);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_there_at_three_deaths_is_a_dead_letter_of_class_crash() {
    let world = World::new().await;
    let batch = messages(0..20);
    world.accept_new(&batch).await;
    read_and_die(&world, 0, "first").await;
    read_and_die(&world, 1, "first").await;
    let reaper = "reaper".to_owned();
    for partition in 0..2 {
        world.queue.join(partition, Duration::from_secs(3600), std::slice::from_ref(&reaper)).await.unwrap();
        while world.queue.reap(partition, &reaper, false).await.unwrap().is_some() {}
    }
    // One entry of partition 0 is alone with a worker at each of three deaths.
    let mut origin = None;
    for death in 0..3 {
        let name = format!("victim{death}");
        world.queue.join(0, Duration::from_secs(3600), std::slice::from_ref(&name)).await.unwrap();
        loop {
            let entry =
                world.queue.read_new(0, Lane::Suspect, &name, 1, Duration::from_millis(10)).await.unwrap().remove(0);
            let wanted = origin.get_or_insert_with(|| entry.origin.clone()).clone();
            if entry.origin == wanted {
                assert_eq!(entry.crashes, death);
                break;
            }
            world.queue.settle(0, Lane::Suspect, &name, &[&entry.id], &[]).await.unwrap();
        }
        world.queue.declare_dead(0, &name).await.unwrap();
        while world.queue.reap(0, &reaper, false).await.unwrap().is_some() {}
    }
    let worker = world.start();
    let balance = world.drained().await;
    assert_eq!(balance.dead, 1, "{balance:?}");
    let letter = world.letters(Shelf::Dead).await.remove(0);
    assert_eq!((letter.class.as_str(), letter.crashes, Some(letter.origin)), ("crash", 3, origin));
    worker.stop().await;
}
