//! The queue is spread over a Redis Cluster: each primary answers for its own partitions.

use weir_core::message::MessageKey;
use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_stack::testing::{Clustered, ClusteredRedis, eventually};

use crate::support::{Gateway, SOON, UNLIMITED, message};

const PARTITIONS: u16 = 8;

async fn start() -> (ClusteredRedis, Queue, Gateway) {
    let set = Clustered::default().start().await;
    let gateway = Gateway::start(&set.url(), PARTITIONS, UNLIMITED, &[]);
    gateway.ready().await;
    let queue = Queue::new(&SecretUrl::new(set.url()), PARTITIONS).unwrap();
    (set, queue, gateway)
}

/// Ids of messages that lie with a node, and of others.
async fn ids(set: &ClusteredRedis, queue: &Queue, prefix: &str, node: usize) -> (Vec<String>, Vec<String>) {
    let (mut there, mut elsewhere) = (Vec::new(), Vec::new());
    for number in 0..24 {
        let id = format!("{prefix}{number}");
        let partition = MessageKey::new("messenger", &id).partition(PARTITIONS);
        let holder = queue.holder(partition).await.unwrap();
        if holder.address() == Some(&set.address(node)) { there.push(id) } else { elsewhere.push(id) }
    }
    assert!(there.len() > 2 && elsewhere.len() > 2);
    (there, elsewhere)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_primary_is_away_the_others_accept_and_each_sender_is_told_the_truth() {
    let (mut set, queue, gateway) = start().await;
    let (its, others) = ids(&set, &queue, "a", 1).await;
    for id in its.iter().chain(&others) {
        gateway.post(&message(id)).await.accepted();
    }
    set.nodes[1].kill().await;
    let (its_new, others_new) = ids(&set, &queue, "b", 1).await;
    for (id, new) in others.iter().zip(&others_new) {
        gateway.post(&message(new)).await.accepted();
        gateway.post(&message(id)).await.duplicate();
    }
    gateway.until("it knows who is away", |health| health.ready && health.details.contains_key("away")).await;
    for id in its.iter().chain(&its_new) {
        let reply = gateway.post(&message(id)).await;
        reply.is_unavailable("not-ready");
    }
    // Two that may share a batch.
    for (its, others) in its_new.iter().zip(&others_new) {
        let (one, other) = (message(its), message(others));
        let (refused, repeat) = tokio::join!(gateway.post(&one), gateway.post(&other));
        refused.is_unavailable("not-ready");
        repeat.duplicate();
    }
    set.nodes[1].restart().await.unwrap();
    gateway.until("all are there", |health| health.ready && !health.details.contains_key("away")).await;
    for id in &its {
        gateway.post(&message(id)).await.duplicate();
    }
    for id in &its_new {
        gateway.post(&message(id)).await.accepted();
    }
    let accepted = its.len() + others.len() + its_new.len() + others_new.len().min(others.len());
    assert_eq!(queue.balance().await.unwrap().accepted as usize, accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_primary_does_not_promise_stops_all_and_is_named() {
    let (set, _queue, gateway) = start().await;
    set.ask(2, &["CONFIG", "SET", "appendfsync", "everysec"]).await;
    gateway.waits_for(&format!("{}: appendfsync is everysec", set.address(2))).await;
    for number in 0..8 {
        gateway.post(&message(&format!("m{number}"))).await.is_unavailable("not-ready");
    }
    set.ask(2, &["CONFIG", "SET", "appendfsync", "always"]).await;
    gateway.ready().await;
    set.ask(0, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
    gateway.waits_for(&format!("{}: Redis uses", set.address(0))).await;
    set.ask(0, &["CONFIG", "SET", "maxmemory", "0"]).await;
    gateway.ready().await;
    gateway.post(&message("a")).await.accepted();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_answers_and_cannot_do_its_work_costs_its_own_partitions() {
    let (set, queue, gateway) = start().await;
    let (its, others) = ids(&set, &queue, "a", 0).await;
    // Without memory the functions cannot be loaded again.
    set.ask(0, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
    set.ask(0, &["FUNCTION", "FLUSH"]).await;
    gateway.until("the others go on", |health| health.ready && health.details.contains_key("away")).await;
    for id in &others {
        gateway.post(&message(id)).await.accepted();
    }
    for id in &its {
        assert_eq!(gateway.post(&message(id)).await.status, 503);
    }
    set.ask(0, &["CONFIG", "SET", "maxmemory", "0"]).await;
    gateway.until("all are there", |health| health.ready && !health.details.contains_key("away")).await;
    for id in &its {
        gateway.post(&message(id)).await.accepted();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_waits_for_the_cluster_and_finds_a_slot_that_moved() {
    let set = Clustered::default().start().await;
    for node in &set.nodes {
        node.pause();
    }
    let gateway = Gateway::start(&set.url(), PARTITIONS, UNLIMITED, &[("gateway.check_every", "1h")]);
    gateway.waits_for("Redis cannot be reached").await;
    for node in &set.nodes {
        node.resume();
    }
    gateway.ready().await;
    let queue = Queue::new(&SecretUrl::new(set.url()), PARTITIONS).unwrap();
    let first = gateway.post(&message("a")).await.accepted();
    let slot = set.slot(&queue.keys(MessageKey::new("messenger", "a").partition(PARTITIONS)).ingest).await;
    let from = set.holder(slot).await.unwrap();
    set.move_slot(slot, from, (from + 1) % 3).await;
    // It has not looked since: the old primary says where to go.
    assert_eq!(gateway.post(&message("a")).await.duplicate(), first);
    eventually("both know", SOON, async || set.holder(slot).await == Some((from + 1) % 3)).await;
}
