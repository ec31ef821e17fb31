//! What a server promises, and how one tells that it does not keep it.

use std::time::Duration;

use weir_core::queue::enqueue::{Bounds, EnqueueError, Enqueued, Enqueuer};
use weir_core::queue::server::{Durability, ServerState};
use weir_core::queue::{Queue, QueueError};
use weir_core::secret::SecretUrl;
use weir_stack::testing::{eventually, redis_with};

use crate::support::{BOUNDS, Place, SOON, message, new_id};

async fn weaknesses(place: &Place, wanted: Durability) -> Vec<String> {
    place.queue.server_state().await.unwrap().weaknesses(wanted, 1)
}

/// Another look by somebody who has looked before.
async fn look(place: &Place, seen: &mut ServerState) -> Vec<String> {
    let mut state = place.queue.server_state().await.unwrap();
    state.learn_from(seen);
    *seen = state;
    seen.weaknesses(Durability::Disk, 1)
}

#[tokio::test]
async fn every_setting_that_weakens_the_promise_is_named() {
    let place = Place::new().await;
    assert_eq!(weaknesses(&place, Durability::Disk).await, Vec::<String>::new());
    for (setting, bad, good) in [
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("appendonly", "no", "yes"),
    ] {
        place.set(setting, bad).await;
        let found = weaknesses(&place, Durability::Disk).await;
        assert!(found.len() == 1 && found[0].starts_with(&format!("{setting} is {bad}")), "{found:?}");
        let in_memory = weaknesses(&place, Durability::Memory).await;
        assert_eq!(in_memory.len(), usize::from(setting == "maxmemory-policy"), "{in_memory:?}");
        place.set(setting, good).await;
    }
    let found = weaknesses(&place, Durability::Replica).await;
    assert!(found.iter().any(|reason| reason.starts_with("0 of 1 replicas are online")), "{found:?}");
    let () = place.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let found = weaknesses(&place, Durability::Memory).await;
    assert_eq!(found, ["the server is a slave: give the address of the primary"]);
}

/// A Redis that writes a thousand keys a second when it rewrites its log.
async fn slow_writer(appendonly: &str) -> Place {
    let place = Place::with_settings(&[("rdb-key-save-delay", "1000"), ("appendonly", appendonly)]).await;
    let () = place.ask(&["EVAL", "for i = 1, 1500 do redis.call('SET', 'x' .. i, i) end", "0"]).await;
    place
}

async fn is_rewriting(place: &Place) -> bool {
    place.info("persistence", "aof_rewrite_in_progress").await == 1
}

const FIRST: &str = "the append-only file is being written for the first time: wait";

#[tokio::test]
async fn a_log_that_was_just_switched_on_counts_once_it_is_written() {
    let place = slow_writer("no").await;
    let mut seen = ServerState::default();
    assert_eq!(look(&place, &mut seen).await.len(), 1);
    // The second time the server remembers the size of the first log: INFO looks like that of any rewrite.
    for _ in 0..2 {
        place.set("appendonly", "yes").await;
        assert_eq!(weaknesses(&place, Durability::Disk).await, [FIRST], "who looks for the first time");
        assert_eq!(look(&place, &mut seen).await, [FIRST]);
        eventually("the log is written", SOON, async || look(&place, &mut seen).await.is_empty()).await;
        assert!(!is_rewriting(&place).await);
        place.set("appendonly", "no").await;
    }
}

#[tokio::test]
async fn an_ordinary_rewrite_weakens_nothing() {
    let place = slow_writer("yes").await;
    let () = place.ask(&["BGREWRITEAOF"]).await;
    assert!(is_rewriting(&place).await);
    assert_eq!(weaknesses(&place, Durability::Disk).await, Vec::<String>::new(), "it was on from the start");
    eventually("the rewrite ends", SOON, async || !is_rewriting(&place).await).await;

    // Some setting was changed at run time: only who was there knows that it was another one.
    place.set("maxclients", "999").await;
    let mut seen = ServerState::default();
    assert_eq!(look(&place, &mut seen).await, Vec::<String>::new());
    let () = place.ask(&["BGREWRITEAOF"]).await;
    assert!(is_rewriting(&place).await);
    assert_eq!(look(&place, &mut seen).await, Vec::<String>::new());
    assert_eq!(weaknesses(&place, Durability::Disk).await, [FIRST]);
}

#[tokio::test]
async fn memory_is_bounded_by_the_setting_or_the_machine() {
    let place = Place::new().await;
    let free = place.queue.server_state().await.unwrap();
    assert!(free.memory_limit() > 100 << 20 && free.used_memory() > 0);
    place.set("maxmemory", "77mb").await;
    assert_eq!(place.queue.server_state().await.unwrap().memory_limit(), 77 << 20);
}

#[tokio::test]
async fn at_level_replica_a_batch_counts_once_replicas_have_it() {
    let primary = redis_with(&[("min-replicas-to-write", "1")]).await;
    let url = SecretUrl::new(primary.url());
    let queue = Queue::new(&url, 2).unwrap();
    let password = primary.url().split([':', '@']).nth(2).unwrap().to_owned();
    let of = format!("127.0.0.1 {}", primary.port());
    let replica = redis_with(&[("replicaof", &of), ("masterauth", &password), ("repl-diskless-sync-delay", "0")]).await;
    eventually("the replica is connected", SOON, async || {
        queue.server_state().await.unwrap().weaknesses(Durability::Replica, 1).is_empty()
    })
    .await;
    queue.prepare().await.unwrap();

    let bounds = Bounds { replicas: Some((1, Duration::from_millis(500))), ..BOUNDS };
    let enqueuer = Enqueuer::new(queue.on_own_link(Duration::from_secs(5)), bounds);
    let batch: Vec<_> = (0..20).map(|i| message(&i.to_string(), "x")).collect();
    let first: Vec<_> = enqueuer.enqueue(&batch).await.iter().map(new_id).collect();

    replica.pause();
    for name in ["0", "fresh"] {
        // A duplicate promises as much as the first answer did.
        let results = enqueuer.enqueue(&[message(name, "x")]).await;
        assert!(matches!(&results[0], Err(EnqueueError::Queue(QueueError::Unknown(_)))), "{name}: {results:?}");
    }
    replica.resume();
    eventually("the replica has caught up", SOON, async || {
        enqueuer
            .enqueue(&batch)
            .await
            .iter()
            .zip(&first)
            .all(|(result, id)| matches!(result, Ok(Enqueued::Duplicate(found)) if found == id))
    })
    .await;
}
