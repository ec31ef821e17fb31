//! Somebody sets a clock by an hour while messages flow.

use std::fs;

use weir_core::queue::Queue;
use weir_stack::testing::{Clock, eventually, redis_by};

use crate::http::{body, request};
use crate::ledger::Ledger;
use crate::support::{PATIENCE, Stack};

const HOUR: i64 = 3600;

/// Leases that were taken by the clock of Redis as it is now: they end within a minute.
async fn renewed(queue: &Queue) -> usize {
    let (seconds, _): (f64, u64) = queue.command(&redis::cmd("TIME")).await.unwrap();
    let mut leases = redis::cmd("ZRANGE");
    leases.arg(&queue.keys(0).alive).arg(0).arg(-1).arg("WITHSCORES");
    let leases: Vec<(String, f64)> = queue.command(&leases).await.unwrap();
    leases.iter().filter(|(_, deadline)| (0.0..60.0).contains(&(deadline / 1000.0 - seconds))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_leap_under_load_lose_nothing_and_cost_no_worker_its_lease() {
    let (of_redis, of_roles) = (Clock::new(), Clock::new());
    let mut stack = Stack::with_server(redis_by(&of_redis).await).await;
    for (name, value) in of_roles.env() {
        stack.set(&name, &value);
    }
    let (_gateway, port) = stack.start_gateway().await;
    let _workers = [stack.start_worker(&stack.database), stack.start_worker(&stack.database)];
    let queue = stack.queue();
    for partition in 0..4 {
        let mut leases = redis::cmd("ZCARD");
        leases.arg(&queue.keys(partition).alive);
        eventually("both work", PATIENCE, async || queue.command::<u64>(&leases).await.is_ok_and(|n| n == 2)).await;
    }
    let mut ledger = Ledger::start(port, 8);
    of_redis.set(HOUR);
    eventually("the gateway warns", PATIENCE, async || {
        fs::read_to_string(stack.log()).is_ok_and(|log| log.contains("the clock of Redis is not ours"))
    })
    .await;
    for (clock, seconds) in
        [(&of_redis, HOUR), (&of_roles, HOUR), (&of_redis, -HOUR), (&of_roles, -HOUR), (&of_redis, 0), (&of_roles, 0)]
    {
        clock.set(seconds);
        let (accepted, rows) = (ledger.accepted(), stack.rows().await);
        eventually("messages flow", PATIENCE, async || {
            ledger.accepted() >= accepted + 500 && stack.rows().await >= rows + 500
        })
        .await;
        eventually("both have renewed their leases by that clock", PATIENCE, async || renewed(&queue).await == 2).await;
    }
    ledger.stop().await;
    ledger.judge(&stack).await;
    let log = fs::read_to_string(stack.log()).unwrap();
    for bad in ["the lease is lost", "took over from a dead worker"] {
        assert!(!log.contains(bad), "{bad}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_not_ours_is_found_by_the_doctor() {
    let of_redis = Clock::new();
    let mut stack = Stack::with_server(redis_by(&of_redis).await).await;
    stack.prepared().await;
    let of_weir = Clock::new();
    for (name, value) in of_weir.env() {
        stack.set(&name, &value);
    }
    let clocks = async || {
        let report = stack.run(&["doctor", "--output", "json"]).await.json();
        let findings = report["findings"].as_array().unwrap().clone();
        let verdict = |part: &str| {
            let found = findings.iter().find(|finding| finding["part"] == part && finding["check"] == "clock");
            found.unwrap_or_else(|| panic!("{report:#}"))["verdict"].as_str().unwrap().to_owned()
        };
        (verdict("redis"), verdict("database"))
    };
    assert_eq!(clocks().await, ("ok".into(), "ok".into()));
    of_redis.set(-HOUR);
    assert_eq!(clocks().await, ("warn".into(), "ok".into()));
    of_redis.set(0);
    of_weir.set(HOUR);
    assert_eq!(clocks().await, ("warn".into(), "warn".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sender_claims_is_judged_by_the_clock_of_the_gateway() {
    let of_redis = Clock::new();
    let stack = Stack::with_server(redis_by(&of_redis).await).await;
    of_redis.set(-100 * 24 * HOUR);
    let (_gateway, port) = stack.start_gateway().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let sent_now = body("a", "c", "x").replace("1640995200", &now.to_string());
    assert_eq!(request(port, "POST", "/api/v1/webhook", &sent_now).await.unwrap().status, 202);
}
