//! Level `replica`: a 2xx is on as many replicas as were asked for, also when the primary is another one meanwhile.

use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_stack::testing::{Replicated, ReplicatedRedis};

use crate::support::{Gateway, Reply, UNLIMITED, message};

const LEVEL: (&str, &str) = ("gateway.durability", "replica");

async fn replicated(replicas: usize, sentinels: usize) -> ReplicatedRedis {
    let settings = vec![("min-replicas-to-write", "1".to_owned())];
    Replicated { replicas, sentinels, settings, ..Replicated::default() }.start().await
}

async fn entries(url: &str) -> Vec<String> {
    let queue = Queue::new(&SecretUrl::new(url), 1).unwrap();
    let entries = queue.range("weir:{0}:ingest", "-", "+", 1000).await.unwrap();
    entries.into_iter().map(|entry| format!("0-{}", entry.id)).collect()
}

/// Posts a message until a replica has it.
async fn safe(gateway: &Gateway, id: &str) -> Reply {
    loop {
        let reply = gateway.post(&message(id)).await;
        if reply.status != 503 {
            return reply;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_replica_has_is_unknown_through_every_gateway_until_one_has_it() {
    let set = replicated(1, 0).await;
    let url = set.nodes[0].url();
    let start = || Gateway::start(&url, 1, UNLIMITED, &[LEVEL]);
    let (one, other) = (start(), start());
    for gateway in [&one, &other] {
        gateway.ready().await;
    }
    assert_eq!(safe(&one, "a").await.text("message_id"), safe(&other, "a").await.duplicate());
    set.nodes[1].pause();
    for gateway in [&one, &other, &one] {
        // The first one writes it, the repeats find it: none may say that it is safe.
        gateway.post(&message("b")).await.is_unavailable("unknown");
    }
    // Even of what a replica has had for long nobody knows it at the moment.
    other.post(&message("a")).await.is_unavailable("unknown");
    set.nodes[1].resume();
    let retried = safe(&other, "b").await.duplicate();
    let found = entries(&url).await;
    assert_eq!((found.len(), &retried), (2, &found[1]));
    assert_eq!(safe(&one, "b").await.duplicate(), retried);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_gone_or_a_setting_that_lets_a_lone_primary_write_makes_it_unready() {
    let mut set = replicated(1, 0).await;
    let gateway = Gateway::start(&set.nodes[0].url(), 1, UNLIMITED, &[LEVEL]);
    gateway.ready().await;
    gateway.post(&message("a")).await.accepted();
    for (setting, weak, strong) in [("min-replicas-to-write", "0", "1"), ("min-replicas-max-lag", "3600", "10")] {
        set.ask(0, &["CONFIG", "SET", setting, weak]).await;
        gateway.waits_for(&format!("{setting} is {weak}")).await;
        gateway.post(&message("b")).await.is_unavailable("not-ready");
        set.ask(0, &["CONFIG", "SET", setting, strong]).await;
        gateway.ready().await;
    }
    set.nodes[1].kill().await;
    gateway.waits_for("0 of 1 replicas are online").await;
    gateway.post(&message("b")).await.is_unavailable("not-ready");
    assert_eq!(set.ask(0, &["XLEN", "weir:{0}:ingest"]).await.lines().last(), Some(":1"));
    set.nodes[1].restart().await.unwrap();
    gateway.ready().await;
    gateway.post(&message("b")).await.accepted();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_leaves_a_primary_that_the_sentinels_no_longer_name() {
    let set = Replicated { replicas: 1, ..Replicated::default() }.start().await;
    let gateway = Gateway::start(&set.url(), 1, UNLIMITED, &[]);
    gateway.ready().await;
    let first = gateway.post(&message("a")).await.accepted();
    // The old one still takes writes and calls itself the primary.
    set.ask(1, &["REPLICAOF", "NO", "ONE"]).await;
    set.point_at(1).await;
    let node = async |node: usize| entries(&set.nodes[node].url()).await;
    let mut number = 0;
    let moved = loop {
        number += 1;
        let id = gateway.post(&message(&format!("m{number}"))).await.accepted();
        if node(1).await.contains(&id) {
            break id;
        }
        assert!(node(0).await.contains(&id) && number < 10_000, "{id} is at neither");
    };
    // And it stays there, with what was copied before.
    let after = gateway.post(&message("after")).await.accepted();
    assert_eq!(gateway.post(&message("a")).await.duplicate(), first);
    let new = node(1).await;
    assert!(new.contains(&first) && new.contains(&moved) && new.contains(&after), "{new:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_demotion_there_is_503_until_the_new_primary_is_found() {
    let set = Replicated { replicas: 1, ..Replicated::default() }.start().await;
    let gateway = Gateway::start(&set.url(), 1, UNLIMITED, &[("gateway.check_every", "1h")]);
    gateway.ready().await;
    gateway.post(&message("a")).await.accepted();
    set.ask(0, &["REPLICAOF", "127.0.0.1", &set.nodes[1].port().to_string()]).await;
    gateway.post(&message("b")).await.is_unavailable("refused");
    gateway.waits_for("a replica").await;
    gateway.post(&message("b")).await.is_unavailable("not-ready");
    set.ask(1, &["REPLICAOF", "NO", "ONE"]).await;
    set.point_at(1).await;
    gateway.ready().await;
    gateway.post(&message("a")).await.duplicate();
    let id = gateway.post(&message("b")).await.accepted();
    assert_eq!(entries(&set.nodes[1].url()).await.last(), Some(&id));
}
