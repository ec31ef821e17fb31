//! Redis goes away under load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::Method;
use tokio::task::JoinSet;
use weir_stack::testing::eventually;

use crate::support::{Gateway, House, SOON, UNLIMITED, WEBHOOK, message};

#[tokio::test]
async fn a_gateway_starts_without_redis_and_finds_it_later() {
    let mut redis = weir_stack::testing::redis().await;
    redis.kill().await;
    let gateway = Gateway::start(&redis.url(), 4, UNLIMITED, &[]);
    gateway.waits_for("Redis cannot be reached").await;
    gateway.post(&message("a")).await.is_unavailable("not-ready");
    gateway.client.send(Method::GET, WEBHOOK, &[], "").await.is_unavailable("not-ready");
    redis.restart().await.unwrap();
    gateway.ready().await;
    gateway.post(&message("a")).await.accepted();
}

#[tokio::test]
async fn a_redis_that_was_just_killed_is_a_503() {
    let mut house = House::with(UNLIMITED, &[("gateway.check_every", "1h")]).await;
    house.post(&message("a")).await.accepted();
    house.redis.kill().await;
    for _ in 0..5 {
        assert_eq!(house.post(&message("b")).await.status, 503);
    }
    house.redis.restart().await.unwrap();
    house.gateway.ready().await;
    house.post(&message("a")).await.duplicate();
    house.post(&message("b")).await.accepted();
}

#[tokio::test]
async fn senders_that_are_refused_together_are_told_different_times() {
    let mut redis = weir_stack::testing::redis().await;
    redis.kill().await;
    let gateway = Gateway::start(&redis.url(), 1, UNLIMITED, &[]);
    gateway.waits_for("Redis cannot be reached").await;
    let mut times = BTreeSet::new();
    for id in 0..50 {
        let reply = gateway.post(&message(&id.to_string())).await;
        reply.is_unavailable("not-ready");
        times.insert(reply.header("retry-after").to_owned());
    }
    assert!(times.len() > 1, "{times:?}");
    redis.restart().await.unwrap();
    gateway.ready().await;
}

/// What a sender that never gives up has noted.
#[derive(Default)]
struct Ledger {
    /// Message ids of 202, by our id.
    accepted: BTreeMap<String, String>,
    refused: usize,
}

/// Posts messages under ids of its own until told to stop, each again and again until it is accepted.
async fn send(gateway: crate::support::Client, name: usize, count: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Ledger {
    let mut ledger = Ledger::default();
    for i in 0.. {
        let id = format!("{name}-{i}");
        loop {
            let reply = gateway.post(WEBHOOK, &message(&id)).await;
            match reply.status {
                200 | 202 => {
                    ledger.accepted.insert(id, reply.text("message_id"));
                    count.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                503 => ledger.refused += 1,
                _ => panic!("{reply:?}"),
            }
            tokio::task::yield_now().await;
        }
        if stop.load(Ordering::SeqCst) {
            break;
        }
    }
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_redis_is_killed_under_load() {
    let mut house = House::new().await;
    let (count, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut senders = JoinSet::new();
    for name in 0..16 {
        senders.spawn(send(house.gateway.client.clone(), name, count.clone(), stop.clone()));
    }
    for _ in 0..3 {
        let goal = count.load(Ordering::SeqCst) + 500;
        eventually("messages are accepted", SOON, async || count.load(Ordering::SeqCst) > goal).await;
        house.redis.kill().await;
        house.gateway.waits_for("Redis").await;
        house.redis.restart().await.unwrap();
    }
    let goal = count.load(Ordering::SeqCst) + 500;
    eventually("it recovers by itself", SOON, async || count.load(Ordering::SeqCst) > goal).await;
    stop.store(true, Ordering::SeqCst);
    let ledgers = senders.join_all().await;

    let stream: BTreeMap<String, String> = house
        .entries()
        .await
        .iter()
        .map(|entry| {
            let envelope: serde_json::Value = serde_json::from_slice(&entry.fields["e"]).unwrap();
            (format!("0-{}", entry.id), envelope["id"].as_str().unwrap().to_owned())
        })
        .collect();
    let mut sent = BTreeSet::new();
    for (id, message_id) in ledgers.iter().flat_map(|ledger| &ledger.accepted) {
        assert_eq!(stream.get(message_id), Some(id), "{message_id} was acknowledged");
        sent.insert(id.clone());
    }
    assert!(ledgers.iter().map(|ledger| ledger.refused).sum::<usize>() > 0, "there were refusals meanwhile");
    assert_eq!(stream.len(), sent.len(), "every message is there once");
    assert_eq!(house.queue.balance().await.unwrap().drift(), 0);
}
