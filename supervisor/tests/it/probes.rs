//! During a fault the probes tell the truth: alive throughout, ready only when it is, and the metrics say what it was.

use serde_json::Value;
use weir_stack::testing::{eventually, own_postgres, unique_name};
use weir_stack::{Process, free_port};
use weir_store::testing;

use crate::http::{accepts, body, request};
use crate::support::{PATIENCE, Stack};

/// A role's ops listener.
struct Ops(u16);

impl Ops {
    /// Has the next role that is started listen there.
    fn announce(stack: &mut Stack) -> Self {
        let port = free_port().unwrap();
        stack.set("WEIR_OPS_ENABLED", "true");
        stack.set("WEIR_OPS_LISTEN", &format!("127.0.0.1:{port}"));
        Self(port)
    }

    async fn status(&self, path: &str) -> u16 {
        request(self.0, "GET", path, "").await.map_or(0, |answer| answer.status)
    }

    async fn reasons(&self) -> String {
        request(self.0, "GET", "/ready", "").await.map_or(Value::Null, |answer| answer.body)["reasons"].to_string()
    }

    /// The sum of a metric over the series whose labels contain `label`.
    async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = crate::http::get_text(self.0, "/metrics").await.unwrap_or_default();
        let ours = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(label);
        text.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until it is not ready because of `reason`, and alive all the same.
    async fn not_ready(&self, reason: &str) {
        eventually(reason, PATIENCE, async || self.reasons().await.contains(reason)).await;
        assert_eq!((self.status("/ready").await, self.status("/live").await), (503, 200), "{reason}");
    }

    async fn ready(&self) {
        eventually("it is ready again", PATIENCE, async || self.status("/ready").await == 200).await;
        assert_eq!(self.status("/live").await, 200);
    }
}

async fn refused(port: u16) -> String {
    let answer = request(port, "POST", "/api/v1/webhook", &body("refused", "c", "x")).await.unwrap();
    assert_eq!(answer.status, 503);
    answer.body["type"].as_str().unwrap().to_owned()
}

async fn set(stack: &Stack, name: &str, value: &str) {
    let mut cmd = redis::cmd("CONFIG");
    cmd.arg("SET").arg(name).arg(value);
    stack.queue().command::<String>(&cmd).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_says_why_it_takes_nothing_and_recovers_by_itself() {
    let mut stack = Stack::new().await;
    let ops = Ops::announce(&mut stack);
    let (gateway, port) = stack.start_gateway().await;
    ops.ready().await;
    assert_eq!(ops.metric("weir_queue_up", "").await, 1.0);

    stack.redis.kill().await;
    ops.not_ready("Redis cannot be reached").await;
    assert_eq!(refused(port).await, "urn:weir:problem:not-ready");
    assert_eq!(ops.metric("weir_queue_up", "").await, 0.0);
    assert!(ops.metric("weir_refused_total", "reason=\"not_ready\"").await >= 1.0);
    stack.redis.restart().await.unwrap();
    ops.ready().await;

    for (name, bad, good, reason, problem) in [
        ("appendfsync", "everysec", "always", "appendfsync is everysec", "not-ready"),
        ("maxmemory-policy", "allkeys-lru", "noeviction", "maxmemory-policy is allkeys-lru", "not-ready"),
        ("maxmemory", "1mb", "0", "of its memory", "memory"),
    ] {
        set(&stack, name, bad).await;
        ops.not_ready(reason).await;
        assert_eq!(refused(port).await, format!("urn:weir:problem:{problem}"));
        set(&stack, name, good).await;
        ops.ready().await;
    }
    assert!(ops.metric("weir_refused_total", "reason=\"memory\"").await >= 1.0);
    accepts(port).await;
    let log = std::fs::read_to_string(stack.log()).unwrap();
    for told in ["appendfsync is everysec", "maxmemory-policy is allkeys-lru", "of its memory", "cannot be reached"] {
        assert!(log.contains(told), "{told} is not in the log");
    }
    drop::<Process>(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_why_it_waits_and_recovers_by_itself() {
    let mut postgres = own_postgres().await;
    let database = testing::migrated_database(|name| postgres.url(name), &unique_name()).await.unwrap();
    let mut stack = Stack::with_database(database).await;
    let (_gateway, port) = stack.start_gateway().await;
    let ops = Ops::announce(&mut stack);
    let _worker = stack.start_worker(&stack.database);
    ops.ready().await;

    postgres.kill().await;
    for n in 0..100 {
        let answer = request(port, "POST", "/api/v1/webhook", &body(&format!("m{n}"), "c", "x")).await.unwrap();
        assert_eq!(answer.status, 202, "the gateway does not need PostgreSQL");
    }
    ops.not_ready("PostgreSQL").await;
    assert!(ops.metric("weir_store_errors_total", "class=\"dependency\"").await >= 1.0);
    postgres.restart().await.unwrap();
    ops.ready().await;
    assert_eq!((stack.drained().await.stored, stack.balance().await.dead_total), (100, 0));

    stack.redis.kill().await;
    ops.not_ready("Redis").await;
    stack.redis.restart().await.unwrap();
    ops.ready().await;
}
