//! The primary dies or is cut off under load, and Redis Sentinel promotes a replica.
//!
//! After a failover the balance is that of the promoted server: what workers settled at the old one in its last moments
//! may come once more, and a message that was stored before its sender was told so may be accepted again. PostgreSQL
//! knows both. What has to hold: every acknowledged id is a row, each id is one row, and nobody gets two message ids.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use weir_stack::testing::{Replicated, ReplicatedRedis, eventually};
use weir_store::testing;

use crate::ledger::Ledger;
use crate::support::{PATIENCE, Stack};

/// Settings that stop a primary from accepting what no replica receives.
fn strict() -> Vec<(&'static str, String)> {
    vec![("min-replicas-to-write", "1".into()), ("min-replicas-max-lag", "1".into())]
}

async fn stack_at(set: &ReplicatedRedis, level: &str) -> Stack {
    let mut stack = Stack::new().await;
    stack.queue_at(&set.url());
    stack.set("WEIR_GATEWAY_DURABILITY", level);
    stack
}

/// Waits until nothing is in flight and gives all ids that are rows; each must be there once.
async fn rows(stack: &Stack, ledgers: &[&Ledger]) -> Vec<String> {
    let balance = stack.drained().await;
    assert_eq!((balance.dead, balance.stored + balance.duplicate), (0, balance.accepted), "{balance:?}");
    let rows = testing::texts(&stack.database, "SELECT external_message_id FROM messages").await.expect("rows");
    let unique: HashSet<&String> = rows.iter().collect();
    assert_eq!(unique.len(), rows.len(), "an id is there twice");
    let attempted: HashSet<String> = ledgers.iter().flat_map(|ledger| ledger.attempted()).collect();
    assert!(unique.iter().all(|id| attempted.contains(*id)), "rows that nobody sent");
    rows
}

fn lost(ledger: &Ledger, rows: &[String]) -> Vec<String> {
    ledger.lost(&rows.iter().collect())
}

async fn more_are_accepted(ledger: &Ledger, n: usize) {
    let before = ledger.accepted();
    eventually("messages flow", PATIENCE, async || ledger.accepted() >= before + n).await;
}

/// Figures for who runs a test with `--nocapture`.
#[expect(clippy::print_stdout, reason = "a measurement is for people")]
fn report(figures: std::fmt::Arguments<'_>) {
    println!("{figures}");
}

/// How many failovers to measure: two in a test, as many as are asked for by hand.
fn failovers() -> usize {
    std::env::var("WEIR_TEST_FAILOVERS").ok().map_or(2, |count| count.parse().expect("a number of failovers"))
}

/// Kills the primary and gives how long it took until messages were accepted again.
async fn fail_over(set: &ReplicatedRedis, ledger: &Ledger, primary: usize) -> Duration {
    let killed = Instant::now();
    set.nodes[primary].kill().await;
    let accepted = ledger.accepted();
    set.promoted(primary).await;
    eventually("messages flow again", PATIENCE, async || ledger.accepted() > accepted + 32).await;
    killed.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_killed_under_load_loses_nothing_that_was_acknowledged_at_level_replica() {
    let mut set = Replicated { settings: strict(), ..Replicated::default() }.start().await;
    let stack = stack_at(&set, "replica").await;
    let (_gateway, port) = stack.start_gateway().await;
    let _workers = [stack.start_worker(&stack.database), stack.start_worker(&stack.database)];
    let mut ledger = Ledger::start(port, 16);
    let (mut primary, mut times) = (0, Vec::new());
    for round in 1..=failovers() {
        more_are_accepted(&ledger, 500).await;
        let took = fail_over(&set, &ledger, primary).await;
        times.push(took);
        set.nodes[primary].restart().await.expect("the old primary starts");
        // It comes back as the primary that it was; the sentinels make a replica of it.
        let settled = set.settled(2).await;
        report(format_args!("failover {round}: accepted again after {took:.1?}"));
        // The next one, unless this machine was too busy for its sentinels meanwhile.
        primary = settled;
    }
    more_are_accepted(&ledger, 500).await;
    ledger.stop().await;
    let rows = rows(&stack, &[&ledger]).await;
    let lost = lost(&ledger, &rows);
    times.sort_unstable();
    report(format_args!(
        "{} failovers, {} acknowledged, {} lost, {} refused meanwhile, recovery p50 {:.1?} max {:.1?}",
        times.len(),
        ledger.accepted(),
        lost.len(),
        ledger.answers(503),
        times[times.len() / 2],
        times[times.len() - 1],
    ));
    assert!(lost.is_empty(), "{} acknowledged messages are lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    assert_eq!(ledger.two_truths(), 0, "ids whose 2xx answers name different messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_froze_and_wakes_up_after_its_replacement_keeps_nothing_that_was_acknowledged() {
    let set = Replicated { settings: strict(), ..Replicated::default() }.start().await;
    let stack = stack_at(&set, "replica").await;
    let (_gateway, port) = stack.start_gateway().await;
    let _worker = stack.start_worker(&stack.database);
    let mut ledger = Ledger::start(port, 16);
    more_are_accepted(&ledger, 500).await;
    set.nodes[0].pause();
    set.promoted(0).await;
    more_are_accepted(&ledger, 500).await;
    // It believes to be the primary and has the requests of a minute ago in its sockets.
    set.nodes[0].resume();
    set.settled(2).await;
    more_are_accepted(&ledger, 500).await;
    ledger.stop().await;
    let rows = rows(&stack, &[&ledger]).await;
    assert_eq!(lost(&ledger, &rows), Vec::<String>::new());
    assert_eq!(ledger.two_truths(), 0);
}

/// What became of a primary that was cut off from its replicas and sentinels but not from one of the gateways.
struct Split {
    /// Acknowledged and lost: by the gateway that stayed with it, and by the one that asks the sentinels, whose last
    /// messages before the cut were at the old primary too.
    lost: [usize; 2],
    /// How long after the cut it acknowledged something for the last time.
    window: Duration,
}

/// One gateway only knows the old primary, the other one asks the sentinels. The old one is cut off, a replica is
/// promoted, both gateways have senders, and then the cut is mended.
async fn split(level: &str, settings: Vec<(&'static str, String)>) -> Split {
    let set = Replicated { behind_proxy: true, settings, ..Replicated::default() }.start().await;
    let stack = stack_at(&set, level).await;
    let (_stays, old_port) = stack.start_gateway_at(&set.nodes[0].url()).await;
    let (_follows, new_port) = stack.start_gateway().await;
    let _worker = stack.start_worker(&stack.database);
    let (mut old, mut new) = (Ledger::start_as("old", old_port, 8), Ledger::start_as("new", new_port, 8));
    more_are_accepted(&old, 200).await;
    more_are_accepted(&new, 200).await;

    let between = set.proxy.as_ref().expect("a proxy");
    let cut = Instant::now();
    between.stall(true);
    let (mut window, mut accepted) = (Duration::ZERO, old.accepted());
    let (refused, mut flows) = (old.answers(503), None);
    eventually("a replica is promoted and serves", PATIENCE, async || {
        if old.accepted() > accepted {
            (window, accepted) = (cut.elapsed(), old.accepted());
        }
        if flows.is_none() && set.primary().await.is_some_and(|primary| primary != 0) {
            flows = Some(new.accepted() + 200);
        }
        flows.is_some_and(|enough| new.accepted() >= enough)
    })
    .await;
    if level == "replica" {
        assert!(old.answers(503) > refused, "the gateway that stayed answers 503");
        let reply = set.ask(0, &["SET", "x", "y"]).await;
        assert!(reply.contains("-NOREPLICAS"), "the old primary refuses writes: {reply}");
    }
    between.cut();
    between.stall(false);
    eventually("the old primary is a replica", PATIENCE, async || set.ask(0, &["ROLE"]).await.contains("slave")).await;
    let refused = old.answers(503);
    eventually("its gateway takes nothing", PATIENCE, async || old.answers(503) > refused).await;
    for ledger in [&mut old, &mut new] {
        ledger.stop().await;
    }
    let rows = rows(&stack, &[&old, &new]).await;
    assert_eq!(new.two_truths(), 0);
    Split { lost: [&old, &new].map(|ledger| lost(ledger, &rows).len()), window }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_cut_off_refuses_and_nothing_acknowledged_is_lost_at_level_replica() {
    let split = split("replica", strict()).await;
    report(format_args!(
        "level replica: {:?} lost, the last acknowledgement {:.1?} after the cut",
        split.lost, split.window
    ));
    assert_eq!(split.lost, [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn level_disk_does_not_outlive_a_split_and_the_ledger_sees_it() {
    let split = split("disk", Vec::new()).await;
    report(format_args!(
        "level disk: {:?} lost, the last acknowledgement {:.1?} after the cut",
        split.lost, split.window
    ));
    assert!(split.lost[0] > 0, "what the old primary alone had written is gone: the documented limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_finds_the_primary_through_the_sentinels() {
    let set = Replicated { settings: strict(), ..Replicated::default() }.start().await;
    let stack = stack_at(&set, "replica").await;
    stack.prepared().await;
    let port = stack.run(&["redis-cli", "config", "get", "port"]).await.code(0);
    assert!(port.stdout.contains(&set.nodes[0].port().to_string()), "{port:?}");
    let status = stack.run(&["status", "--output", "json"]).await;
    assert!(
        status.stdout.contains(r#""reachable": true"#) || status.stdout.contains(r#""reachable":true"#),
        "{status:?}"
    );
    stack.run(&["dlq", "stats"]).await.code(0);

    let doctor = stack.run(&["doctor"]).await;
    let line = |words: &str| doctor.stdout.lines().any(|line| words.split('|').all(|word| line.contains(word)));
    assert!(line("sentinels|3 of 3 answer"), "{doctor:?}");
    assert!(line("durability|keeps the promise `replica`"), "{doctor:?}");
    assert!(line("warn|replicas|2 are online"), "a failover to the one that lags may lose messages: {doctor:?}");
    for ended in [&port, &status, &doctor] {
        let password = set.nodes[0].password();
        assert!(!ended.stdout.contains(password) && !ended.stderr.contains(password), "{ended:?}");
    }
    set.ask(0, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    let doctor = stack.run(&["doctor"]).await;
    assert!(doctor.stdout.contains("min-replicas-to-write is 0"), "{doctor:?}");
}
