//! The primary is another server than before, and the links find it.

use std::time::Duration;

use weir_core::queue::enqueue::{Bounds, EnqueueError, Enqueued, Enqueuer};
use weir_core::queue::server::Durability;
use weir_core::queue::{Queue, QueueError};
use weir_core::secret::SecretUrl;
use weir_stack::free_port;
use weir_stack::testing::{Replicated, ReplicatedRedis, eventually, redis_with};

use crate::support::{BOUNDS, LATER, message, new_id};

/// A queue that the sentinels lead to, and batches over a link of their own.
fn queue(set: &ReplicatedRedis) -> (Queue, Enqueuer) {
    let queue = Queue::new(&SecretUrl::new(set.url()), 2).unwrap();
    let enqueuer = Enqueuer::new(queue.on_own_link(Duration::from_secs(5)), BOUNDS);
    (queue, enqueuer)
}

async fn port(queue: &Queue) -> u64 {
    let ports: Vec<String> = queue.command(redis::cmd("CONFIG").arg("GET").arg("port")).await.unwrap();
    ports[1].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_primary_and_after_its_death_to_the_next_one() {
    let set = Replicated::default().start().await;
    let (queue, enqueuer) = queue(&set);
    queue.prepare().await.unwrap();
    assert_eq!(port(&queue).await, u64::from(set.nodes[0].port()));
    let bounds = Bounds { replicas: Some((2, Duration::from_secs(4))), ..BOUNDS };
    let safe = Enqueuer::new(queue.on_own_link(Duration::from_secs(5)), bounds);
    let id = new_id(&safe.enqueue(&[message("a", "x")]).await[0]);

    set.nodes[0].kill().await;
    let next = set.promoted(0).await;
    eventually("the queue answers", LATER, async || queue.balance().await.is_ok()).await;
    assert_eq!(port(&queue).await, u64::from(set.nodes[next].port()));
    // Over the link that still had the dead one: nothing is sent twice, so the first try may be the one that finds out.
    eventually("batches are written", LATER, async || {
        matches!(enqueuer.enqueue(&[message("a", "x")]).await[0], Ok(Enqueued::Duplicate(found)) if found == id)
    })
    .await;

    // One that was away when the others decided knows less than they, and is not believed even if it answers first.
    let stale = Replicated { replicas: 0, sentinels: 1, ..Replicated::default() }.start().await;
    let (ours, theirs) = (hosts(&set), hosts(&stale));
    let url = set.url().replace(&ours.join(","), &format!("{},{},{}", theirs[0], ours[0], ours[1]));
    let mixed = Queue::new(&SecretUrl::new(url), 2).unwrap();
    for _ in 0..20 {
        let primary = mixed.link().primary().await.unwrap();
        assert_eq!(primary.addr().to_string(), set.address(next).to_string());
    }
}

/// The sentinels' addresses.
fn hosts(set: &ReplicatedRedis) -> Vec<String> {
    let url = set.url();
    let hosts = url.split('@').nth(1).unwrap().split('/').next().unwrap();
    hosts.split(',').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_the_sentinels_no_longer_name_is_left_although_it_answers() {
    let set = Replicated { replicas: 1, ..Replicated::default() }.start().await;
    let (queue, enqueuer) = queue(&set);
    queue.prepare().await.unwrap();
    new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    // Both take writes now and call themselves the primary.
    set.ask(1, &["REPLICAOF", "NO", "ONE"]).await;
    set.point_at(1).await;
    assert_eq!(port(&queue).await, u64::from(set.nodes[0].port()), "nobody has looked yet");

    queue.link().follow().await;
    assert_eq!(port(&queue).await, u64::from(set.nodes[1].port()));
    new_id(&enqueuer.enqueue(&[message("b", "x")]).await[0]);
    assert!(set.ask(1, &["HGET", "weir:{0}:count", "accepted"]).await.contains('1'));
    let written = [0, 1].map(|partition| format!("weir:{{{partition}}}:ingest"));
    let mut lengths = [0, 0];
    for (node, length) in lengths.iter_mut().enumerate() {
        for stream in &written {
            *length += set.ask(node, &["XLEN", stream]).await.matches(":1").count();
        }
    }
    assert_eq!(lengths, [1, 2], "the batches' link has left the old one too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_meets_a_demoted_primary_is_refused_and_the_next_one_finds_the_new() {
    let set = Replicated { replicas: 1, ..Replicated::default() }.start().await;
    let (queue, enqueuer) = queue(&set);
    queue.prepare().await.unwrap();
    new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    set.ask(1, &["REPLICAOF", "NO", "ONE"]).await;
    set.ask(0, &["REPLICAOF", "127.0.0.1", &set.nodes[1].port().to_string()]).await;
    set.point_at(1).await;
    let refused = enqueuer.enqueue(&[message("b", "x")]).await.remove(0);
    assert!(
        matches!(&refused, Err(EnqueueError::Queue(QueueError::Refused { code, .. })) if code == "READONLY"),
        "{refused:?}"
    );
    new_id(&enqueuer.enqueue(&[message("b", "x")]).await[0]);
    assert_eq!(port(&queue).await, u64::from(set.nodes[1].port()), "the other links need no refusal of their own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_the_sentinels_name_too_early_is_not_used() {
    let set = Replicated { replicas: 1, ..Replicated::default() }.start().await;
    let (queue, enqueuer) = queue(&set);
    queue.prepare().await.unwrap();
    set.point_at(1).await;
    queue.link().follow().await;
    let error = queue.balance().await.unwrap_err();
    assert!(matches!(&error, QueueError::Unreachable(text) if text.contains("which is a replica")), "{error}");
    let result = enqueuer.enqueue(&[message("a", "x")]).await.remove(0);
    assert!(matches!(&result, Err(EnqueueError::Queue(QueueError::Unreachable(_)))), "nothing was sent: {result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sentinels_do_not_know_is_named() {
    let set = Replicated { replicas: 0, ..Replicated::default() }.start().await;
    let ask = async |url: String| Queue::new(&SecretUrl::new(url), 1).unwrap().balance().await.unwrap_err();
    let error = ask(set.url().replace("/mymaster/", "/other/")).await;
    assert!(matches!(&error, QueueError::Deployment(text) if text.contains("no primary called other")), "{error}");
    let error = ask(set.url().replace("sentinel_password=", "sentinel_password=hunter2")).await;
    assert!(matches!(&error, QueueError::Deployment(_)), "{error}");
    assert!(error.to_string().contains("sentinel 127.0.0.1:") && !error.to_string().contains("hunter2"), "{error}");
    let error = ask("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster".into()).await;
    assert!(matches!(&error, QueueError::Unreachable(text) if text.contains("sentinel 127.0.0.1:")), "{error}");
    // Two of three are enough, and so is one.
    let alive = set.url().replacen("127.0.0.1:", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:", 1);
    let queue = Queue::new(&SecretUrl::new(alive), 1).unwrap();
    queue.prepare().await.unwrap();
    let silent = queue.link().sentinels().await.iter().filter(|seen| seen.primary.is_err()).count();
    assert_eq!(silent, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn level_replica_asks_for_settings_that_stop_an_old_primary() {
    let set = Replicated { sentinels: 0, ..Replicated::default() }.start().await;
    let queue = Queue::new(&SecretUrl::new(set.nodes[0].url()), 1).unwrap();
    let look = async |replicas| queue.server_state().await.unwrap().weaknesses(Durability::Replica, replicas);
    let found = look(2).await;
    assert!(
        found.len() == 1 && found[0].contains("min-replicas-to-write is 0") && found[0].ends_with("; set 2"),
        "{found:?}"
    );
    set.ask(0, &["CONFIG", "SET", "min-replicas-to-write", "2"]).await;
    assert_eq!(look(2).await, Vec::<String>::new());
    for lag in ["0", "60"] {
        set.ask(0, &["CONFIG", "SET", "min-replicas-max-lag", lag]).await;
        let found = look(2).await;
        assert!(found.len() == 1 && found[0].starts_with(&format!("min-replicas-max-lag is {lag}")), "{found:?}");
    }
    set.ask(0, &["CONFIG", "SET", "min-replicas-max-lag", "10"]).await;
    let found = look(3).await;
    assert!(found[0].contains("2 of 3 replicas are online"), "{found:?}");
    set.nodes[2].kill().await;
    eventually("one is missed", LATER, async || look(2).await.iter().any(|why| why.contains("1 of 2 replicas"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_cluster_says_to_a_url_of_one_server_is_a_mistake_of_the_deployment() {
    let bus = || free_port().unwrap().to_string();
    let (ours, theirs) = (bus(), bus());
    let one = redis_with(&[("cluster-enabled", "yes"), ("cluster-port", &ours)]).await;
    let two = redis_with(&[("cluster-enabled", "yes"), ("cluster-port", &theirs)]).await;
    let [ours, other] = [&one, &two].map(|node| Queue::new(&SecretUrl::new(node.url()), 2).unwrap());
    let ask = async |queue: &Queue, words: &[&str]| {
        queue.command::<redis::Value>(redis::cmd("CLUSTER").arg(words)).await.unwrap();
    };
    let says = async |queue: &Queue, code: &str| match queue.prepare().await.unwrap_err() {
        QueueError::Deployment(text) => text.contains(code) && text.contains("write redis-cluster://"),
        error => panic!("{code}: {error:?}"),
    };
    assert!(says(&ours, "CLUSTERDOWN").await);
    ask(&other, &["ADDSLOTSRANGE", "0", "16383"]).await;
    ask(&ours, &["MEET", "127.0.0.1", &two.port().to_string(), &theirs]).await;
    eventually("the other node's slots are known", LATER, async || says(&ours, "MOVED").await).await;
    let id: String = ours.command(redis::cmd("CLUSTER").arg("MYID")).await.unwrap();
    let slot: u64 = ours.command(redis::cmd("CLUSTER").arg(&["KEYSLOT", "weir:meta"])).await.unwrap();
    ask(&other, &["SETSLOT", &slot.to_string(), "MIGRATING", &id]).await;
    eventually("a slot is on its way", LATER, async || says(&other, "ASK").await).await;
}
