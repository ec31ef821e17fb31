//! A Redis that answers and refuses: 503 with a reason, nothing written, and its end is noticed.

use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_stack::free_port;
use weir_stack::testing::{eventually, redis_with};

use crate::support::{Gateway, House, SOON, UNLIMITED, message};

const SELDOM: (&str, &str) = ("gateway.check_every", "1h");

/// Everything the queue's functions write for a message.
async fn written(house: &House) -> (usize, Vec<String>, Option<String>) {
    let seen: Vec<String> = house.ask(&["KEYS", "weir:{0}:seen:[0-9]*"]).await;
    (house.entries().await.len(), seen, house.ask(&["HGET", "weir:{0}:count", "accepted"]).await)
}

#[tokio::test]
async fn without_enough_replicas_nothing_is_written() {
    let house = House::with(UNLIMITED, &[SELDOM]).await;
    house.post(&message("a")).await.accepted();
    let before = written(&house).await;
    house.set("min-replicas-to-write", "1").await;
    // First by the batch that is refused, then by the guard, which that wakes.
    house.post(&message("b")).await.is_unavailable("refused");
    house.gateway.waits_for("NOREPLICAS").await;
    house.post(&message("b")).await.is_unavailable("not-ready");
    assert_eq!(written(&house).await, before);
    house.set("min-replicas-to-write", "0").await;
    house.gateway.ready().await;
    house.post(&message("b")).await.accepted();
}

/// Runs `words`, which loop for ever, on a connection of its own until `kill` ends it.
async fn busy(words: &'static [&'static str], prepare: &[&str], kill: [&str; 2]) {
    let house = House::with_redis(&[("busy-reply-threshold", "50")], &[("gateway.batch_timeout", "2s")]).await;
    house.post(&message("a")).await.accepted();
    if !prepare.is_empty() {
        let _: redis::Value = house.ask(prepare).await;
    }
    let url = SecretUrl::new(house.redis.url());
    let looping = tokio::spawn(async move {
        let queue = Queue::new(&url, 1).unwrap().on_own_link(SOON);
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        queue.command::<redis::Value>(&cmd).await
    });
    house.gateway.waits_for("BUSY").await;
    house.post(&message("b")).await.is_unavailable("not-ready");
    let killer = house.queue.on_own_link(SOON);
    eventually("the script is killed", SOON, async || {
        let _: Result<redis::Value, _> = killer.command(redis::cmd(kill[0]).arg(kill[1])).await;
        looping.is_finished()
    })
    .await;
    house.gateway.ready().await;
    house.post(&message("a")).await.duplicate();
    house.post(&message("b")).await.accepted();
    assert_eq!(house.entries().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_busy_with_a_script_is_waited_for() {
    busy(&["EVAL", "while true do end", "0"], &[], ["SCRIPT", "KILL"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_busy_with_a_function_is_waited_for() {
    const LIBRARY: &str = "#!lua name=loop\nredis.register_function{function_name='loop', \
                           callback=function() while true do end end, flags={'no-writes'}}";
    busy(&["FCALL", "loop", "0"], &["FUNCTION", "LOAD", LIBRARY], ["FUNCTION", "KILL"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_meets_a_busy_redis_is_not_called_accepted() {
    let house = House::with_redis(&[("busy-reply-threshold", "50")], &[SELDOM, ("gateway.batch_timeout", "2s")]).await;
    house.post(&message("a")).await.accepted();
    let looping = house.queue.on_own_link(SOON);
    let looping = tokio::spawn(async move {
        looping.command::<redis::Value>(redis::cmd("EVAL").arg("while true do end").arg(0)).await
    });
    let probe = house.queue.on_own_link(SOON);
    eventually("it is busy", SOON, async || {
        probe.command::<String>(&redis::cmd("PING")).await.is_err_and(|error| error.to_string().contains("BUSY"))
    })
    .await;
    house.post(&message("b")).await.is_unavailable("refused");
    house.gateway.waits_for("BUSY").await;
    let _: redis::Value = probe.command(redis::cmd("SCRIPT").arg("KILL")).await.unwrap();
    looping.await.unwrap().unwrap_err();
    house.gateway.ready().await;
    house.post(&message("b")).await.accepted();
}

#[tokio::test]
async fn a_node_of_a_redis_cluster_behind_the_url_of_one_server_is_a_mistake_that_is_named() {
    let port = free_port().unwrap().to_string();
    let node = redis_with(&[("cluster-enabled", "yes"), ("cluster-port", &port)]).await;
    let gateway = Gateway::start(&node.url(), 2, UNLIMITED, &[]);
    // Without slots, with all of them, and once some are elsewhere.
    gateway.waits_for("write redis-cluster://").await;
    gateway.post(&message("a")).await.is_unavailable("not-ready");
    let queue = Queue::new(&SecretUrl::new(node.url()), 2).unwrap();
    let () = queue.command(redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"])).await.unwrap();
    gateway.waits_for("write redis-cluster://").await;
    gateway.post(&message("a")).await.is_unavailable("not-ready");
}
