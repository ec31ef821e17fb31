//! A Redis that cannot keep the promise: 503 until it can again.

use hyper::Method;
use weir_stack::testing::eventually;

use crate::support::{Gateway, House, SOON, UNLIMITED, WEBHOOK, message};

const SELDOM: (&str, &str) = ("gateway.check_every", "1h");

#[tokio::test]
async fn a_weaker_setting_is_noticed_and_so_is_its_end() {
    let house = House::new().await;
    for (at, (setting, weak, strong)) in [
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "volatile-lru", "noeviction"),
        ("appendonly", "no", "yes"),
    ]
    .into_iter()
    .enumerate()
    {
        house.set(setting, weak).await;
        house.gateway.waits_for(&format!("{setting} is {weak}")).await;
        house.post(&message("refused")).await.is_unavailable("not-ready");
        house.set(setting, strong).await;
        house.gateway.ready().await;
        house.post(&message(&at.to_string())).await.accepted();
    }
}

#[tokio::test]
async fn a_log_switched_on_counts_once_it_is_written() {
    let house = House::with_redis(&[("rdb-key-save-delay", "1000"), ("appendonly", "no")], &[]).await;
    let () = house.ask(&["EVAL", "for i = 1, 1000 do redis.call('SET', 'x' .. i, i) end", "0"]).await;
    house.gateway.waits_for("appendonly is no").await;
    for id in ["a", "b"] {
        house.set("appendonly", "yes").await;
        house.gateway.waits_for("written for the first time").await;
        house.post(&message(id)).await.is_unavailable("not-ready");
        house.gateway.ready().await;
        house.post(&message(id)).await.accepted();
        house.set("appendonly", "no").await;
        house.gateway.waits_for("appendonly is no").await;
    }
}

#[tokio::test]
async fn an_ordinary_rewrite_does_not_stop_the_intake() {
    let house = House::with_redis(&[("rdb-key-save-delay", "1000")], &[]).await;
    let () = house.ask(&["EVAL", "for i = 1, 1000 do redis.call('SET', 'x' .. i, i) end", "0"]).await;
    house.set("maxclients", "999").await;
    house.gateway.ready().await;
    // Has been looked at since the setting changed.
    let () = house.ask(&["DEL", "weir:{0}:ingest"]).await;
    eventually("it looks again", SOON, async || house.ask::<u64>(&["EXISTS", "weir:{0}:ingest"]).await == 1).await;
    let () = house.ask(&["BGREWRITEAOF"]).await;
    for id in 0..20 {
        house.post(&message(&id.to_string())).await.accepted();
    }
    let info: String = house.ask(&["INFO", "persistence"]).await;
    assert!(info.contains("aof_rewrite_in_progress:1"), "it went on all the time");
}

#[tokio::test]
async fn a_redis_without_memory_is_told_apart() {
    let house = House::with(UNLIMITED, &[SELDOM]).await;
    house.post(&message("a")).await.accepted();
    house.set("maxmemory", "1mb").await;
    // First by the batch that is refused, then by the guard, which that wakes.
    house.post(&message("b")).await.is_unavailable("memory");
    house.gateway.waits_for("of its memory").await;
    house.post(&message("b")).await.is_unavailable("memory");
    assert_eq!(house.entries().await.len(), 1);
    house.set("maxmemory", "0").await;
    house.gateway.ready().await;
    house.post(&message("b")).await.accepted();
}

#[tokio::test]
async fn a_redis_that_is_nearly_full_takes_no_more() {
    let house = House::with(UNLIMITED, &[("limit.memory_share", "0.5")]).await;
    house.post(&message("a")).await.accepted();
    let text: String = house.ask(&["INFO", "memory"]).await;
    let used: u64 = text.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap();
    house.set("maxmemory", &(used * 3 / 2).to_string()).await;
    house.gateway.waits_for("of its memory").await;
    house.post(&message("b")).await.is_unavailable("memory");
    house.set("maxmemory", &(used * 10).to_string()).await;
    house.gateway.ready().await;
}

#[tokio::test]
async fn a_read_only_redis_takes_nothing() {
    let house = House::with(UNLIMITED, &[SELDOM]).await;
    house.post(&message("a")).await.accepted();
    let () = house.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    house.post(&message("b")).await.is_unavailable("refused");
    house.gateway.waits_for("the server is a slave").await;
    house.post(&message("b")).await.is_unavailable("not-ready");
    let () = house.ask(&["REPLICAOF", "NO", "ONE"]).await;
    house.gateway.ready().await;
    house.post(&message("b")).await.accepted();
}

#[tokio::test]
async fn a_redis_that_loads_its_log_is_waited_for() {
    let mut house = House::with_redis(&[("key-load-delay", "100")], &[]).await;
    let () = house.ask(&["EVAL", "for i = 1, 30000 do redis.call('SET', 'x' .. i, i) end", "0"]).await;
    house.post(&message("a")).await.accepted();
    house.redis.kill().await;
    house.gateway.waits_for("Redis").await;
    let gateway = &house.gateway;
    let while_loading = async {
        gateway.waits_for("LOADING").await;
        gateway.post(&message("b")).await.is_unavailable("not-ready");
    };
    let (started, ()) = tokio::join!(house.redis.restart(), while_loading);
    started.unwrap();
    house.gateway.ready().await;
    house.post(&message("a")).await.duplicate();
    house.post(&message("b")).await.accepted();
}

#[tokio::test]
async fn a_backlog_over_its_limit_is_refused_until_it_is_drained() {
    let house = House::with(UNLIMITED, &[("limit.backlog", "5"), SELDOM]).await;
    for id in 0..5 {
        house.post(&message(&id.to_string())).await.accepted();
    }
    // Even what is known already: nothing is looked up.
    house.post(&message("0")).await.is_unavailable("backlog");
    house.post(&message("more")).await.is_unavailable("backlog");
    assert_eq!(house.entries().await.len(), 5);

    house.queue.join(0, SOON, &["w".into()]).await.unwrap();
    let lane = weir_core::queue::consume::Lane::Ingest;
    let read = house.queue.read_new(0, lane, "w", 10, SOON).await.unwrap();
    let ids: Vec<_> = read.iter().map(|entry| entry.id.as_str()).collect();
    house.queue.settle(0, lane, "w", &ids, &[]).await.unwrap();
    house.post(&message("more")).await.accepted();
}

#[tokio::test]
async fn the_guard_sees_a_backlog_in_retries_too() {
    let house = House::with(UNLIMITED, &[("limit.backlog", "3")]).await;
    house.queue.join(0, SOON, &["w".into()]).await.unwrap();
    let lane = weir_core::queue::consume::Lane::Ingest;
    for id in ["a", "b", "c"] {
        house.post(&message(id)).await.accepted();
        house.queue.read_new(0, lane, "w", 10, SOON).await.unwrap();
    }
    house.queue.leave(0, "w").await.unwrap();
    assert!(house.entries().await.is_empty());
    house.gateway.waits_for("the backlog holds 3 entries").await;
    house.post(&message("d")).await.is_unavailable("backlog");
}

#[tokio::test]
async fn another_number_of_partitions_is_not_served() {
    let house = House::new().await;
    let other = Gateway::start(&house.redis.url(), 7, UNLIMITED, &[]);
    other.waits_for("partitions 1, but partitions 7 is configured").await;
    other.post(&message("a")).await.is_unavailable("not-ready");
    assert_eq!(other.client.send(Method::GET, WEBHOOK, &[], "").await.status, 503);
}

#[tokio::test]
async fn a_wiped_redis_is_made_ready_again() {
    let house = House::new().await;
    house.post(&message("a")).await.accepted();
    let () = house.ask(&["FLUSHALL"]).await;
    let () = house.ask(&["FUNCTION", "FLUSH"]).await;
    house.post(&message("a")).await.accepted();
    eventually("the group is there", SOON, async || {
        let groups: Vec<redis::Value> = house.ask(&["XINFO", "GROUPS", "weir:{0}:ingest"]).await;
        groups.len() == 1 && house.ask::<Option<String>>(&["HGET", "weir:meta", "partitions"]).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_starts_on_a_weaker_redis_is_not_ready() {
    let house = House::with_redis(&[("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")], &[]).await;
    house.gateway.waits_for("appendfsync is everysec").await;
    house.gateway.waits_for("maxmemory-policy is allkeys-lru").await;
    house.post(&message("a")).await.is_unavailable("not-ready");
    house.set("appendfsync", "always").await;
    house.set("maxmemory-policy", "noeviction").await;
    house.gateway.ready().await;
    house.post(&message("a")).await.accepted();
}

#[tokio::test]
async fn a_stream_of_a_wrong_type_is_refused_and_no_id_is_remembered() {
    let house = House::with(UNLIMITED, &[SELDOM]).await;
    house.post(&message("before")).await.accepted();
    let () = house.ask(&["DEL", "weir:{0}:ingest"]).await;
    let () = house.ask(&["SET", "weir:{0}:ingest", "x"]).await;
    for _ in 0..2 {
        // Not once a duplicate of a message that never came in.
        house.post(&message("a")).await.is_unavailable("not-ready");
    }
    house.gateway.waits_for("WRONGTYPE").await;
    let () = house.ask(&["DEL", "weir:{0}:ingest"]).await;
    house.gateway.ready().await;
    house.post(&message("a")).await.accepted();
    house.post(&message("before")).await.duplicate();
}
