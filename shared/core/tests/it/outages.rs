//! Redis restarts, forgets its functions or its data, or has no memory left.

use std::time::Duration;

use weir_core::queue::QueueError;
use weir_core::queue::consume::Lane;
use weir_core::queue::enqueue::{EnqueueError, Enqueued};
use weir_stack::FaultProxy;
use weir_stack::testing::eventually;

use crate::support::{Place, SOON, dead, ids, message, new_id, retry};

#[tokio::test]
async fn functions_load_again_after_a_flush() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    let id = new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    let () = place.ask(&["FUNCTION", "FLUSH"]).await;
    let () = place.ask(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(enqueuer.enqueue(&[message("a", "x")]).await[0].as_ref().unwrap(), &Enqueued::Duplicate(id));
    let () = place.ask(&["FUNCTION", "FLUSH"]).await;
    assert_eq!(place.balance().await.accepted, 1);
}

#[tokio::test]
async fn a_wiped_redis_is_a_new_queue() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    place.join("w").await;
    new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    let entries = place.read(Lane::Ingest, "w", 10).await;
    let () = place.ask(&["FLUSHALL"]).await;
    new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    assert_eq!(place.balance().await.accepted, 1);

    // The old worker has no lease here, and the group is missing until somebody prepares it.
    let error = place.queue.settle(0, Lane::Ingest, "w", &ids(&entries), &[]).await.unwrap_err();
    assert!(matches!(error, QueueError::Fenced), "{error:?}");
    let error = place.queue.read_new(0, Lane::Ingest, "w", 1, Duration::from_millis(1)).await.unwrap_err();
    assert!(error.is_missing_group(), "{error:?}");
    assert_eq!(place.queue.prepare().await.unwrap(), 3);
    place.join("w").await;
    assert_eq!(place.read(Lane::Ingest, "w", 10).await.len(), 1);
}

#[tokio::test]
async fn a_killed_redis_loses_nothing_and_is_found_again() {
    let mut place = Place::with_partitions(2).await;
    let enqueuer = place.enqueuer();
    let batch: Vec<_> = (0..500).map(|i| message(&i.to_string(), "x")).collect();
    let before: Vec<_> = enqueuer.enqueue(&batch).await.iter().map(new_id).collect();
    place.join("w").await;
    let read = place.read(Lane::Ingest, "w", 50).await;
    place.settle(Lane::Ingest, "w", &ids(&read[..20])).await;

    place.redis.kill().await;
    let down = enqueuer.enqueue(&[message("while down", "x")]).await;
    assert!(
        matches!(&down[0], Err(EnqueueError::Queue(QueueError::Unreachable(_) | QueueError::Unknown(_)))),
        "{down:?}"
    );
    place.redis.restart().await.unwrap();

    eventually("it is found again", SOON, async || place.queue.balance().await.is_ok()).await;
    let balance = place.balance().await;
    assert_eq!((balance.accepted, balance.stored, balance.pending, balance.undelivered), (500, 20, 30, 450));
    let again = enqueuer.enqueue(&batch).await;
    for (id, result) in before.iter().zip(&again) {
        assert_eq!(result.as_ref().unwrap(), &Enqueued::Duplicate(*id));
    }
    let rest = place.queue.read_pending(0, Lane::Ingest, "w", 100).await.unwrap();
    assert_eq!(ids(&rest), ids(&read[20..]));
    place.settle(Lane::Ingest, "w", &ids(&rest)).await;
    assert_eq!(place.balance().await.stored, 50);
}

#[tokio::test]
async fn the_balance_holds_after_a_rewrite_of_the_log_and_a_restart() {
    let mut place = Place::new().await;
    place.fill(300).await;
    place.join("w").await;
    let read = place.read(Lane::Ingest, "w", 100).await;
    place.settle(Lane::Ingest, "w", &ids(&read[..50])).await;
    let () = place.ask(&["BGREWRITEAOF"]).await;
    eventually("the log is rewritten", SOON, async || place.info("persistence", "aof_rewrite_in_progress").await == 0)
        .await;
    // Redis forgets in a restart what the group has read since the rewrite: its own lag is wrong from then on.
    let more = place.read(Lane::Ingest, "w", 120).await;
    place.settle(Lane::Ingest, "w", &ids(&more[..100])).await;
    place.redis.kill().await;
    place.redis.restart().await.unwrap();
    eventually("it is found again", SOON, async || place.queue.balance().await.is_ok()).await;
    let balance = place.balance().await;
    assert_eq!((balance.stored, balance.pending, balance.undelivered), (150, 70, 80));

    let rest = place.read(Lane::Ingest, "w", 1000).await;
    assert_eq!(rest.len(), 80);
    for entries in [&read[50..], &more[100..], &rest] {
        place.settle(Lane::Ingest, "w", &ids(entries)).await;
    }
    let balance = place.balance().await;
    assert_eq!((balance.stored, balance.in_flight(), balance.ingest_length), (300, 0, 0));
    place.fill(5).await;
    assert_eq!(place.balance().await.undelivered, 5);
}

#[tokio::test]
async fn a_wiped_group_begins_again_with_what_is_still_there() {
    let place = Place::new().await;
    place.fill(300).await;
    place.join("w").await;
    let read = place.read(Lane::Ingest, "w", 100).await;
    place.settle(Lane::Ingest, "w", &ids(&read[..60])).await;
    let () = place.ask(&["XGROUP", "DESTROY", "weir:{0}:ingest", "workers"]).await;
    assert_eq!(place.queue.balance().await.unwrap().undelivered, 240);
    assert_eq!(place.queue.prepare().await.unwrap(), 1);
    let balance = place.balance().await;
    assert_eq!((balance.stored, balance.pending, balance.undelivered), (60, 0, 240));
    let again = place.read(Lane::Ingest, "w", 1000).await;
    place.settle(Lane::Ingest, "w", &ids(&again)).await;
    assert_eq!(place.balance().await.stored, 300);
}

#[tokio::test]
async fn without_memory_nothing_is_accepted_and_work_goes_on() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    for name in ["w", "v", "x"] {
        place.join(name).await;
    }
    place.fill(40).await;
    let entries = place.read(Lane::Ingest, "w", 10).await;
    place.read(Lane::Ingest, "v", 10).await;
    place.read(Lane::Ingest, "x", 10).await;
    place.exhaust_memory().await;

    let before = place.balance().await;
    let buckets = place.buckets().await.len();
    let refused = enqueuer.enqueue(&[message("a", "x"), message("b", "x")]).await;
    for result in &refused {
        let Err(EnqueueError::Queue(QueueError::Refused { code, .. })) = result else { panic!("{result:?}") };
        assert_eq!(code, "OOM");
    }
    assert_eq!((place.balance().await.accepted, place.buckets().await.len()), (before.accepted, buckets));

    place.settle(Lane::Ingest, "w", &ids(&entries[..4])).await;
    place.move_to("w", &entries[4], retry(Duration::ZERO)).await;
    place.move_to("w", &entries[5], dead(&entries[5])).await;
    assert_eq!(place.queue.bring_back_due(0, 10).await.unwrap(), 1);
    place.queue.declare_dead(0, "v").await.unwrap();
    let reaped = place.queue.reap(0, "w", true).await.unwrap().unwrap();
    assert_eq!((reaped.consumer.as_str(), reaped.moved, reaped.finished), ("v", 10, true));
    assert_eq!(place.queue.leave(0, "x").await.unwrap(), 10);
    place.queue.renew(0, Duration::from_secs(9), &["w".into()]).await.unwrap();

    let after = place.balance().await;
    assert_eq!((after.stored, after.dead, after.suspect), (4, 1, 10));
    assert_eq!((after.undelivered, after.pending), (10 + 10 + 1, 4));
    assert_eq!(place.elsewhere().prepare().await.unwrap(), 0, "a role can start while memory is short");
}

#[tokio::test]
async fn functions_that_are_missing_while_memory_is_short_are_a_refusal() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    place.fill(1).await;
    let () = place.ask(&["FUNCTION", "FLUSH"]).await;
    place.exhaust_memory().await;
    let results = enqueuer.enqueue(&[message("a", "x")]).await;
    assert!(matches!(&results[0], Err(EnqueueError::Queue(QueueError::Refused { code, .. })) if code == "OOM"));
    let error = place.queue.balance().await.unwrap_err();
    assert!(matches!(&error, QueueError::Refused { code, .. } if code == "OOM"), "{error:?}");

    place.set("maxmemory", "0").await;
    new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
}

#[tokio::test]
async fn a_read_only_redis_refuses_and_is_looked_for_again() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    let () = place.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let connections = async || place.info("stats", "total_connections_received").await;
    let before = connections().await;
    for _ in 0..2 {
        let results = enqueuer.enqueue(&[message("b", "x")]).await;
        assert!(
            matches!(&results[0], Err(EnqueueError::Queue(QueueError::Refused { code, .. })) if code == "READONLY"),
            "{results:?}"
        );
    }
    assert!(connections().await > before, "the second one went over another connection");
    let () = place.ask(&["REPLICAOF", "NO", "ONE"]).await;
    new_id(&enqueuer.enqueue(&[message("b", "x")]).await[0]);
}

#[tokio::test]
async fn a_batch_without_an_answer_is_unknown_and_its_repeat_learns_the_truth() {
    let place = Place::new().await;
    let proxy = FaultProxy::start(([127, 0, 0, 1], place.redis.port()).into()).await;
    let url = place.redis.url().replace(&format!(":{}/", place.redis.port()), &format!(":{}/", proxy.addr().port()));
    let far = weir_core::queue::Queue::new(&weir_core::secret::SecretUrl::new(url), 1).unwrap();
    let enqueuer =
        weir_core::queue::enqueue::Enqueuer::new(far.on_own_link(Duration::from_millis(300)), crate::support::BOUNDS);
    new_id(&enqueuer.enqueue(&[message("warm", "x")]).await[0]);

    proxy.swallow_replies(true);
    let results = enqueuer.enqueue(&[message("a", "x")]).await;
    assert!(matches!(&results[0], Err(EnqueueError::Queue(QueueError::Unknown(_)))), "{results:?}");
    proxy.swallow_replies(false);
    let Ok(Enqueued::Duplicate(id)) = enqueuer.enqueue(&[message("a", "x")]).await[0] else {
        panic!("the first was written")
    };
    assert_eq!(place.queue.range("weir:{0}:ingest", &id.entry(), &id.entry(), 1).await.unwrap().len(), 1);

    proxy.stall(true);
    let results = enqueuer.enqueue(&[message("b", "x")]).await;
    assert!(matches!(&results[0], Err(EnqueueError::Queue(QueueError::Unknown(_)))), "{results:?}");
    // The connection is a new one now, and making it takes too long as well: nothing was sent.
    let results = enqueuer.enqueue(&[message("c", "x")]).await;
    assert!(matches!(&results[0], Err(EnqueueError::Queue(QueueError::Unreachable(_)))), "{results:?}");
    proxy.stall(false);
    eventually("it answers again", SOON, async || enqueuer.enqueue(&[message("d", "x")]).await[0].is_ok()).await;
}
