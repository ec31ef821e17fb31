//! Processes that die, freeze and come back, under load.

use std::sync::Arc;
use std::sync::Mutex;

use weir_stack::Signal;
use weir_stack::testing::{eventually, own_postgres, unique_name};
use weir_stack::{Direction, FaultProxy};
use weir_store::testing;

use crate::http::{body, request};
use crate::ledger::Ledger;
use crate::support::{PATIENCE, Stack};

/// The URL of a database through a proxy.
fn through(url: &str, proxy: &FaultProxy) -> String {
    let (before, rest) = url.split_once("127.0.0.1:").expect("a local server");
    let database = rest.split_once('/').expect("a database").1;
    format!("{before}{}/{database}", proxy.addr())
}

fn address(url: &str) -> std::net::SocketAddr {
    let host = url.rsplit('@').next().expect("a host").split('/').next().expect("a host");
    host.parse().expect("an address")
}

/// Posts `n` messages and expects 202 for each; `text` is that of message number `special`.
async fn post_all(port: u16, n: usize, special: usize, text: &str) {
    for number in 0..n {
        let text = if number == special { text } else { "Здравствуйте" };
        let answer =
            request(port, "POST", "/api/v1/webhook", &body(&format!("m{number}"), &format!("c{}", number % 97), text))
                .await;
        assert_eq!(answer.expect("an answer").status, 202);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_before_its_commit_loses_and_doubles_nothing() {
    let stack = Stack::new().await;
    let (_gateway, port) = stack.start_gateway().await;
    post_all(port, 300, 299, "the last one").await;
    let proxy = FaultProxy::start(address(&stack.database)).await;
    let worker = Arc::new(stack.start_worker(&through(&stack.database, &proxy)));
    let (victim, faults) = (worker.clone(), proxy.faults());
    proxy.watch(b"COMMIT".to_vec(), Direction::Request, move || {
        faults.cut();
        victim.signal(Signal::KILL);
    });
    eventually("the worker is dead", PATIENCE, async || worker.exited().is_some()).await;
    let _next = stack.start_worker(&stack.database);
    let balance = stack.drained().await;
    assert_eq!((balance.stored, balance.duplicate, balance.dead), (300, 0, 0));
    assert_eq!(stack.rows().await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_after_its_commit_and_before_its_ack_doubles_nothing() {
    let stack = Stack::new().await;
    let (_gateway, port) = stack.start_gateway().await;
    post_all(port, 300, 299, "the last one").await;
    let proxy = FaultProxy::start(address(&stack.database)).await;
    let worker = Arc::new(stack.start_worker(&through(&stack.database, &proxy)));
    let victim = worker.clone();
    // The command tag of a transaction that is committed, which the worker never sees.
    proxy.watch(b"COMMIT\0".to_vec(), Direction::Reply, move || victim.signal(Signal::KILL));
    eventually("the worker is dead", PATIENCE, async || worker.exited().is_some()).await;
    assert!(stack.rows().await > 0, "nothing was committed");
    let _next = stack.start_worker(&stack.database);
    let balance = stack.drained().await;
    assert_eq!((balance.stored, balance.duplicate, balance.dead), (300, 0, 0));
    assert_eq!(stack.rows().await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_message_that_kills_its_worker_harms_only_itself() {
    let stack = Stack::new().await;
    let (_gateway, port) = stack.start_gateway().await;
    post_all(port, 1000, 500, "POISON-POISON").await;
    let proxy = FaultProxy::start(address(&stack.database)).await;
    let url = through(&stack.database, &proxy);
    let queue = stack.queue();
    let current = Arc::new(Mutex::new(Arc::new(stack.start_worker(&url))));
    let (victim, faults) = (current.clone(), proxy.faults());
    proxy.watch(b"POISON-POISON".to_vec(), Direction::Request, move || {
        faults.cut();
        victim.lock().expect("no panic").signal(Signal::KILL);
    });
    eventually("the good ones are rows and the poison is a dead letter", PATIENCE * 2, async || {
        let worker = current.lock().expect("no panic").clone();
        if worker.exited().is_some() {
            *current.lock().expect("no panic") = Arc::new(stack.start_worker(&url));
        }
        queue.balance().await.is_ok_and(|balance| balance.in_flight() == 0)
    })
    .await;
    let balance = stack.drained().await;
    assert_eq!((balance.stored, balance.dead), (999, 1));
    assert_eq!(stack.rows().await, 999);
    let letters = stack.run(&["dlq", "list", "--output", "json"]).await.code(0).json();
    assert_eq!(
        (&letters[0]["class"], &letters[0]["external_message_id"]),
        (&"crash".into(), &"m500".into()),
        "{letters}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_under_load_loses_nothing_that_it_acknowledged() {
    let stack = Stack::new().await;
    let (mut gateway, port) = stack.start_gateway().await;
    let _worker = stack.start_worker(&stack.database);
    let mut ledger = Ledger::start(port, 16);
    for kill in 1..=3 {
        eventually("messages flow", PATIENCE, async || ledger.accepted() >= kill * 500).await;
        gateway.kill().await;
        gateway = stack.start_gateway_on(port);
    }
    let before = ledger.accepted();
    eventually("messages flow again", PATIENCE, async || ledger.accepted() >= before + 500).await;
    ledger.stop().await;
    ledger.judge(&stack).await;
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_under_load_loses_nothing_that_was_acknowledged() {
    let mut stack = Stack::new().await;
    let (_gateway, port) = stack.start_gateway().await;
    let _worker = stack.start_worker(&stack.database);
    let mut ledger = Ledger::start(port, 16);
    for kill in 1..=3 {
        let before = ledger.accepted();
        eventually("messages flow", PATIENCE, async || ledger.accepted() >= before + 500).await;
        stack.redis.kill().await;
        let refused = ledger.answers(503);
        eventually("the gateway answers 503", PATIENCE, async || ledger.answers(503) > refused).await;
        stack.redis.restart().await.unwrap_or_else(|error| panic!("restart {kill}: {error}"));
    }
    let before = ledger.accepted();
    eventually("messages flow again", PATIENCE, async || ledger.accepted() >= before + 500).await;
    ledger.stop().await;
    ledger.judge(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_the_gateway_accepts_and_all_is_stored_afterwards() {
    let mut postgres = own_postgres().await;
    let database = testing::migrated_database(|name| postgres.url(name), &unique_name()).await.expect("a database");
    let stack = Stack::with_database(database).await;
    let (_gateway, port) = stack.start_gateway().await;
    let _worker = stack.start_worker(&stack.database);
    let mut ledger = Ledger::start(port, 8);
    eventually("messages flow", PATIENCE, async || ledger.accepted() >= 500).await;
    postgres.kill().await;
    let before = ledger.accepted();
    eventually("messages are accepted all the same", PATIENCE, async || ledger.accepted() >= before + 2000).await;
    let log = stack.log();
    eventually("the worker has noticed", PATIENCE, async || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("PostgreSQL is away"))
    })
    .await;
    let balance = stack.balance().await;
    assert_eq!((balance.dead_total, balance.retried, ledger.answers(503)), (0, 0, 0));
    postgres.restart().await.expect("postgres starts");
    ledger.stop().await;
    ledger.judge(&stack).await;
    assert_eq!(stack.balance().await.retried, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_that_comes_back_changes_nothing_that_others_did() {
    let stack = Stack::new().await;
    let (_gateway, port) = stack.start_gateway().await;
    let proxy = FaultProxy::start(address(&stack.database)).await;
    let zombie = Arc::new(stack.start_worker(&through(&stack.database, &proxy)));
    let frozen = zombie.clone();
    // Frozen between what it wrote and the answer: it will believe that it may still settle.
    proxy.watch(b"COMMIT\0".to_vec(), Direction::Reply, move || frozen.signal(Signal::STOP));
    post_all(port, 200, 0, "x").await;
    let _other = stack.start_worker(&stack.database);
    let balance = stack.drained().await;
    assert_eq!((balance.stored, balance.dead), (200, 0));
    zombie.signal(Signal::CONT);
    let log = stack.log();
    eventually("the zombie has found out", PATIENCE, async || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("the lease is lost"))
    })
    .await;
    let after = stack.drained().await;
    assert_eq!((after.stored, after.duplicate, after.dead_total), (200, 0, 0));
    assert_eq!(stack.rows().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_within_a_transaction_does_not_keep_its_locks() {
    let stack = Stack::new().await;
    let (_gateway, port) = stack.start_gateway().await;
    let proxy = FaultProxy::start(address(&stack.database)).await;
    let zombie = Arc::new(stack.start_worker(&through(&stack.database, &proxy)));
    let frozen = zombie.clone();
    // Its keys are inserted and not committed: whoever takes over meets them.
    proxy.watch(b"FREEZE-HERE".to_vec(), Direction::Request, move || frozen.signal(Signal::STOP));
    post_all(port, 50, 25, "FREEZE-HERE").await;
    let _other = stack.start_worker(&stack.database);
    let balance = stack.drained().await;
    assert_eq!((balance.stored, balance.dead_total, balance.retried), (50, 0, 0));
    assert_eq!(stack.rows().await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_posts_of_one_id_through_two_gateways_are_one_row() {
    let stack = Stack::new().await;
    // A thousand messages of one client at once are more than its limit lets through.
    let source = "[[source]]\nname = \"messenger\"\nper_client = \"off\"\n";
    std::fs::write(stack.data().join("weir.toml"), source).expect("a configuration");
    let (_one, first) = stack.start_gateway().await;
    let (_two, second) = stack.start_gateway().await;
    let posts = (0..1000).map(|n| {
        let port = if n % 2 == 0 { first } else { second };
        tokio::spawn(async move {
            request(port, "POST", "/api/v1/webhook", &body("same", "c", "x")).await.expect("an answer")
        })
    });
    let posts: Vec<_> = posts.collect();
    let mut answers = Vec::new();
    for post in posts {
        answers.push(post.await.expect("no panic"));
    }
    assert_eq!(answers.iter().filter(|answer| answer.status == 202).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 999);
    assert!(answers.iter().all(|answer| answer.body["message_id"] == answers[0].body["message_id"]));
    let _worker = stack.start_worker(&stack.database);
    stack.drained().await;
    assert_eq!(stack.rows().await, 1);
}
