//! Group commit, and what is known of a batch that got no answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use weir_stack::Direction;
use weir_stack::testing::eventually;

use crate::support::{House, SOON, UNLIMITED, head, message};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_posts_of_one_id_one_is_new_and_all_get_its_message_id() {
    let house = House::new().await;
    let mut posts = JoinSet::new();
    for _ in 0..1000 {
        let client = house.gateway.client.clone();
        posts.spawn(async move { client.post(crate::support::WEBHOOK, &message("one")).await });
    }
    let replies = posts.join_all().await;
    let ids: BTreeSet<_> = replies.iter().map(|reply| reply.text("message_id")).collect();
    let count = |status| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((count(202), count(200), ids.len()), (1, 999, 1));
    assert_eq!(house.entries().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_the_same_moment_share_one_function_call() {
    let house = House::with(UNLIMITED, &[("gateway.check_every", "1h")]).await;
    house.post(&message("warm")).await.accepted();
    let before = house.calls().await;
    let mut posts = JoinSet::new();
    for i in 0..200 {
        let client = house.gateway.client.clone();
        posts.spawn(async move { client.post(crate::support::WEBHOOK, &message(&i.to_string())).await.accepted() });
    }
    let ids: BTreeSet<_> = posts.join_all().await.into_iter().collect();
    let calls = house.calls().await - before;
    assert_eq!(ids.len(), 200);
    assert!((1..=100).contains(&calls), "{calls} calls for 200 messages");
}

#[tokio::test]
async fn while_batches_are_out_the_next_one_gathers() {
    let house = House::with_proxy(&[]).await;
    house.post(&message("warm")).await.accepted();
    let before = house.calls().await;
    house.proxy().stall(true);
    let mut posts = JoinSet::new();
    for i in 0..50 {
        let client = house.gateway.client.clone();
        posts.spawn(async move { client.post(crate::support::WEBHOOK, &message(&i.to_string())).await.accepted() });
    }
    // All of them are with the gateway: nothing more arrives at its sockets than 50 requests.
    tokio::task::yield_now().await;
    let in_time = tokio::time::timeout(Duration::from_millis(500), posts.join_next()).await;
    assert!(in_time.is_err(), "nothing is answered before Redis has answered");
    house.proxy().stall(false);
    assert_eq!(posts.join_all().await.len(), 50);
    let calls = house.calls().await - before;
    assert!((1..=3).contains(&calls), "two are out at most, and the third takes the rest: {calls}");
}

#[tokio::test]
async fn a_batch_without_an_answer_is_unknown_and_the_retry_gets_the_truth() {
    let house = House::with_proxy(&[("gateway.batch_timeout", "400ms"), ("gateway.replica_timeout", "100ms")]).await;
    house.post(&message("warm")).await.accepted();
    house.proxy().swallow_replies(true);
    house.post(&message("a")).await.is_unavailable("unknown");
    house.proxy().swallow_replies(false);
    house.gateway.ready().await;
    let retried = house.post(&message("a")).await.duplicate();
    let entries = house.entries().await;
    assert_eq!((entries.len(), retried), (2, format!("0-{}", entries[1].id)));
}

#[tokio::test]
async fn a_slow_redis_is_waited_for_no_longer_than_the_batch_timeout() {
    let house = House::with_proxy(&[("gateway.batch_timeout", "500ms"), ("gateway.replica_timeout", "100ms")]).await;
    house.post(&message("warm")).await.accepted();
    house.proxy().stall(true);
    let started = Instant::now();
    house.post(&message("a")).await.is_unavailable("unknown");
    let took = started.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(2)).contains(&took), "{took:?}");
    house.gateway.waits_for("Redis cannot be reached").await;
    house.post(&message("a")).await.is_unavailable("not-ready");
    house.proxy().stall(false);
    house.gateway.ready().await;
    let reply = house.post(&message("a")).await;
    assert!([200, 202].contains(&reply.status), "{reply:?}");
    assert_eq!(house.post(&message("a")).await.duplicate(), reply.text("message_id"));
    assert_eq!(house.entries().await.len(), 2);
}

#[tokio::test]
async fn too_many_in_flight_are_refused_at_once() {
    let house = House::with_proxy(&[("limit.in_flight", "2")]).await;
    house.post(&message("warm")).await.accepted();
    house.redis.pause();
    let mut posts = JoinSet::new();
    for id in ["first", "second"] {
        let seen = Arc::new(AtomicBool::new(false));
        let flag = seen.clone();
        house.proxy().watch(id, Direction::Request, move || flag.store(true, Ordering::SeqCst));
        let client = house.gateway.client.clone();
        posts.spawn(async move { client.post(crate::support::WEBHOOK, &message(id)).await.accepted() });
        eventually("it is on its way", SOON, async || seen.load(Ordering::SeqCst)).await;
    }
    house.post(&message("third")).await.is_unavailable("in-flight");
    house.redis.resume();
    posts.join_all().await;
    house.post(&message("third")).await.accepted();
}

#[tokio::test]
async fn a_client_that_goes_away_changes_nothing() {
    let house = House::with_proxy(&[]).await;
    house.post(&message("warm")).await.accepted();
    let (seen, faults) = (Arc::new(AtomicBool::new(false)), house.proxy().faults());
    let flag = seen.clone();
    house.proxy().watch("the-one", Direction::Request, move || {
        if !flag.swap(true, Ordering::SeqCst) {
            faults.stall(true);
        }
    });
    let body = message("the-one").to_string();
    let mut raw = house.gateway.connect().await;
    raw.write(head(&format!("content-length: {}\r\n", body.len())) + &body).await;
    eventually("the batch is on its way", SOON, async || seen.load(Ordering::SeqCst)).await;
    drop(raw);
    house.proxy().stall(false);
    eventually("the message is there", SOON, async || house.entries().await.len() == 2).await;
    house.post(&message("the-one")).await.duplicate();
}
