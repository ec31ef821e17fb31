//! An outage is not the message's fault.

use std::time::Duration;

use weir_core::queue::enqueue::Enqueued;
use weir_stack::testing::{Authority, eventually, own_postgres, scratch, unique_name};
use weir_store::testing;

use crate::support::{PATIENCE, World, message, messages};

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_nothing_is_lost_and_no_attempt_is_used_up() {
    let mut postgres = own_postgres().await;
    let database = testing::migrated_database(|name| postgres.url(name), &unique_name()).await.unwrap();
    let world = World::with_database(database, &[]).await;
    let worker = world.start();
    world.accept_new(&messages(0..1000)).await;
    world.drained().await;
    postgres.kill().await;
    for chunk in 1..6 {
        world.accept_new(&messages(chunk * 1000..chunk * 1000 + 1000)).await;
    }
    world.paused(&worker, "PostgreSQL").await;
    let balance = world.balance().await;
    assert!(balance.pending > 0, "{balance:?}");
    assert_eq!((balance.dead_total, balance.retried), (0, 0));
    postgres.restart().await.unwrap();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead_total, balance.retried), (6000, 0, 0));
    assert_eq!(world.rows().await, 6000);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_there_pauses_the_worker_and_kills_no_message() {
    let world = World::new().await;
    testing::execute(&world.database, "ALTER TABLE messages RENAME TO messages_gone").await.unwrap();
    let worker = world.start();
    world.accept_new(&messages(0..10)).await;
    let mut ask = redis::cmd("HGET");
    ask.arg(weir_core::queue::keys::worker(&worker.name)).arg("state");
    eventually("the worker says that it is paused", PATIENCE, async || {
        let state: Result<Option<String>, _> = world.queue.command(&ask).await;
        state.is_ok_and(|state| state.is_some_and(|state| state.starts_with("paused")))
    })
    .await;
    let balance = world.balance().await;
    assert_eq!((balance.dead_total, balance.retried), (0, 0));
    testing::execute(&world.database, "ALTER TABLE messages_gone RENAME TO messages").await.unwrap();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead_total), (10, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_out_of_memory_the_moves_to_retry_and_dead_still_work() {
    let world = World::new().await;
    let mut batch = messages(0..100);
    batch[50].message_text = "a\0b".into();
    world.accept_new(&batch).await;
    let set = |value: &str| {
        let mut cmd = redis::cmd("CONFIG");
        cmd.arg("SET").arg("maxmemory").arg(value);
        cmd
    };
    world.queue.command::<String>(&set("1mb")).await.unwrap();
    let refused = world.accept(&[message(1000)]).await;
    assert!(refused[0].as_ref().is_err_and(|error| error.to_string().contains("OOM")), "{refused:?}");
    let worker = world.start();
    let balance = world.drained().await;
    assert_eq!((balance.accepted, balance.stored, balance.dead), (100, 99, 1));
    world.queue.command::<String>(&set("0")).await.unwrap();
    assert!(matches!(world.accept(&[message(1000)]).await[0], Ok(Enqueued::New(_))));
    assert_eq!(world.drained().await.stored, 100);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_functions_and_wiped_groups_heal_by_themselves() {
    let world = World::new().await;
    let worker = world.start();
    world.accept_new(&messages(0..100)).await;
    world.drained().await;
    world.queue.command::<String>(redis::cmd("FUNCTION").arg("FLUSH")).await.unwrap();
    world.accept_new(&messages(100..200)).await;
    world.drained().await;
    for partition in 0..2 {
        let keys = world.queue.keys(partition);
        for stream in [&keys.ingest, &keys.retry, &keys.suspect] {
            let mut destroy = redis::cmd("XGROUP");
            destroy.arg("DESTROY").arg(stream).arg("workers");
            world.queue.command::<i64>(&destroy).await.unwrap();
        }
    }
    world.accept_new(&messages(200..300)).await;
    eventually("everything is a row", PATIENCE, async || world.rows().await == 300).await;
    assert_eq!(world.number("SELECT count(DISTINCT external_message_id) FROM messages").await, 300);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_wiped_is_worked_from_again() {
    let world = World::new().await;
    let worker = world.start();
    world.accept_new(&messages(0..100)).await;
    world.drained().await;
    for wipe in [&["FLUSHALL"][..], &["FUNCTION", "FLUSH"]] {
        let mut cmd = redis::cmd(wipe[0]);
        cmd.arg(&wipe[1..]);
        world.queue.command::<String>(&cmd).await.unwrap();
    }
    // What comes before any group is there again must be read too.
    world.accept_new(&messages(100..200)).await;
    eventually("everything is a row", PATIENCE, async || world.rows().await == 200).await;
    assert_eq!(world.drained().await.stored, 100);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_comes_back_loses_nothing() {
    let mut world = World::new().await;
    let worker = world.start();
    world.accept_new(&messages(0..2000)).await;
    world.redis.kill().await;
    world.redis.restart().await.unwrap();
    eventually("the queue answers", PATIENCE, async || world.queue.prepare().await.is_ok()).await;
    world.accept_new(&messages(2000..2100)).await;
    let balance = world.drained().await;
    assert_eq!((balance.accepted, balance.stored + balance.duplicate, balance.dead), (2100, 2100, 0));
    assert_eq!(world.rows().await, 2100);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_hands_back_what_it_did_not_finish() {
    let mut postgres = own_postgres().await;
    let database = testing::migrated_database(|name| postgres.url(name), &unique_name()).await.unwrap();
    let world = World::with_database(database, &[]).await;
    postgres.kill().await;
    let mut config = World::config();
    config.drain = Duration::from_millis(200);
    let worker = world.start_with(config);
    world.accept_new(&messages(0..500)).await;
    eventually("a batch is under way", PATIENCE, async || world.balance().await.pending > 0).await;
    worker.stop().await;
    let balance = world.balance().await;
    assert_eq!((balance.pending, balance.undelivered, balance.workers, balance.drift()), (0, 500, 0, 0));
    assert_eq!((balance.suspect, balance.retried), (0, 0));
    postgres.restart().await.unwrap();
    let next = world.start();
    assert_eq!(world.drained().await.stored, 500);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_believed_pauses_the_worker_and_kills_no_message() {
    let (ours, other, folder) = (Authority::new("ours"), Authority::new("another"), scratch());
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, ours.certificate()).unwrap();
    let mut postgres = own_postgres().await;
    let plain = testing::migrated_database(|name| postgres.url(name), &unique_name()).await.unwrap();
    postgres.show(&ours.issue(&["127.0.0.1"])).await;
    let world = World::with_database(plain.clone(), &[]).await;
    let url = format!("{plain}?sslmode=verify-full&sslrootcert={}", ca.display());
    let worker = world.start_on(World::config(), &url);
    world.accept_new(&messages(0..10)).await;
    world.drained().await;

    let mut ask = redis::cmd("HGET");
    ask.arg(weir_core::queue::keys::worker(&worker.name)).arg("state");
    postgres.show(&other.issue(&["127.0.0.1"])).await;
    world.accept_new(&messages(10..20)).await;
    eventually("the worker says why it is paused", PATIENCE, async || {
        let state: Result<Option<String>, _> = world.queue.command(&ask).await;
        let says =
            |state: String| state.starts_with("paused: PostgreSQL needs a person") && state.contains("UnknownIssuer");
        state.is_ok_and(|state| state.is_some_and(says))
    })
    .await;
    let balance = world.balance().await;
    assert_eq!((balance.dead_total, balance.retried, balance.drift()), (0, 0, 0));
    postgres.show(&ours.issue(&["127.0.0.1"])).await;
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead_total, balance.retried), (20, 0, 0));
    worker.stop().await;
}
