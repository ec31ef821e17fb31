//! Gateways, workers and commands over a Redis Cluster, as they are.

use std::collections::HashSet;
use std::time::Duration;

use weir_core::queue::keys::worker;
use weir_stack::testing::{Clustered, ClusteredRedis, eventually};
use weir_store::testing;

use crate::ledger::Ledger;
use crate::support::{PATIENCE, Stack};

async fn stack_at(set: &ClusteredRedis) -> Stack {
    let mut stack = Stack::new().await;
    stack.queue_at(&set.url());
    stack
}

async fn more_are_accepted(ledger: &Ledger, n: usize) {
    let before = ledger.accepted();
    eventually("messages flow", PATIENCE, async || ledger.accepted() >= before + n).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_fleet_works_over_a_cluster_while_a_slot_moves_and_a_worker_dies() {
    let set = Clustered::default().start().await;
    let stack = stack_at(&set).await;
    let (_gateway, port) = stack.start_gateway().await;
    let (_worker, doomed) = (stack.start_worker(&stack.database), stack.start_worker(&stack.database));
    let mut ledger = Ledger::start(port, 16);
    more_are_accepted(&ledger, 300).await;
    let slot = set.slot(&stack.queue().keys(2).ingest).await;
    let from = set.holder(slot).await.expect("a primary");
    set.move_slot(slot, from, (from + 1) % 3).await;
    doomed.kill().await;
    more_are_accepted(&ledger, 300).await;
    ledger.stop().await;
    ledger.judge(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_killed_under_load_loses_nothing_that_was_acknowledged_at_level_replica() {
    let settings = vec![("min-replicas-to-write", "1".into()), ("min-replicas-max-lag", "2".into())];
    let node_timeout = Duration::from_secs(2);
    let mut set = Clustered { replicas: 1, node_timeout, settings, ..Clustered::default() }.start().await;
    let mut stack = stack_at(&set).await;
    stack.set("WEIR_GATEWAY_DURABILITY", "replica");
    let (_gateway, port) = stack.start_gateway().await;
    let _workers = [stack.start_worker(&stack.database), stack.start_worker(&stack.database)];
    let mut ledger = Ledger::start(port, 16);
    more_are_accepted(&ledger, 300).await;
    let slot = set.slot(&stack.queue().keys(0).ingest).await;
    let old = set.holder(slot).await.expect("a primary");
    set.nodes[old].kill().await;
    set.promoted(slot, old).await;
    // Until then the new one has no replica, which is weaker than promised.
    set.nodes[old].restart().await.expect("the old primary comes back as a replica");
    more_are_accepted(&ledger, 300).await;
    ledger.stop().await;

    // The promoted replica may not know what was settled in the last moment, and what comes again is a row already.
    let balance = stack.drained().await;
    assert_eq!((balance.dead, balance.stored + balance.duplicate), (0, balance.accepted), "{balance:?}");
    let rows = testing::texts(&stack.database, "SELECT external_message_id FROM messages").await.expect("rows");
    let unique: HashSet<&String> = rows.iter().collect();
    assert_eq!(unique.len(), rows.len(), "an id is there twice");
    assert_eq!(ledger.lost(&unique), Vec::<String>::new(), "of {} acknowledged", ledger.accepted());
    assert_eq!(ledger.two_truths(), 0, "ids whose 2xx answers name different messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_finds_its_way_in_a_cluster() {
    let set = Clustered::default().start().await;
    let mut stack = stack_at(&set).await;
    stack.run(&["migrate", "functions"]).await.code(0);
    for node in 0..3 {
        let functions = set.ask(node, &["FUNCTION", "LIST"]).await;
        assert!(functions.contains(stack.queue().library()), "node {node}: {functions}");
    }
    let url = format!("http://{}", stack.gateway(&[]).await);
    let names = [stack.worker(&[]).await, stack.worker(&[]).await];
    let sent = stack.run(&["send", "--count", "200", "--url", &url]).await.code(0);
    stack.drained().await;

    // Those that hold no lease are found by their keys alone.
    let phantoms: Vec<String> = (0..12).map(|number| format!("phantom-{number}")).collect();
    for name in &phantoms {
        let mut beat = redis::cmd("HSET");
        beat.arg(worker(name)).arg("beat_ms").arg(1);
        stack.queue().command::<i64>(&beat).await.expect("a heartbeat");
    }
    let names = [&names[..], &phantoms].concat();
    let listed = stack.run(&["fleet", "list", "--output", "json"]).await.code(0);
    assert!(names.iter().all(|name| listed.stdout.contains(name)), "heartbeats lie with any primary: {listed:?}");
    let status = stack.run(&["status", "--output", "json"]).await;
    assert_eq!(status.json()["redis"]["reachable"], true, "{status:?}");
    assert_eq!(status.json()["balance"]["accepted"], 200);
    stack.run(&["dlq", "stats"]).await.code(0);
    let one = "SELECT external_message_id FROM messages LIMIT 1";
    let id = testing::texts(&stack.database, one).await.expect("an id").remove(0);
    let shown = stack.run(&["message", "show", &id]).await.code(0).says(&["stored"]);
    let key = stack.queue().keys(1).ingest.clone();
    let length = stack.run(&["redis-cli", "xlen", &key]).await.code(0);
    assert!(!length.stdout.contains("MOVED"), "{length:?}");

    let doctor = stack.run(&["doctor"]).await;
    let line = |words: &str| doctor.stdout.lines().any(|line| words.split('|').all(|word| line.contains(word)));
    assert!(line("cluster|partitions: ") && line("functions|is loaded"), "{doctor:?}");
    for node in 0..3 {
        assert!(line(&format!("durability|{}: keeps the promise `disk`", set.address(node))), "{doctor:?}");
    }
    for ended in [&sent, &listed, &status, &shown, &doctor] {
        assert!(!ended.text().contains(set.nodes[0].password()), "{ended:?}");
    }
    set.nodes[1].kill().await;
    for command in ["doctor", "status"] {
        let ended = stack.run(&[command]).await;
        assert!(ended.code != 0 && ended.text().contains(&set.address(1)), "{ended:?}");
    }
}
