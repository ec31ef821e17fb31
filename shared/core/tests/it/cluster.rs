//! The partitions lie with the primaries of a Redis Cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir_core::message::MessageId;
use weir_core::queue::consume::Lane;
use weir_core::queue::enqueue::{self, Bounds, EnqueueError, Enqueued, Enqueuer, NewEntry};
use weir_core::queue::letters::{Author, Shelf};
use weir_core::queue::server::Durability;
use weir_core::queue::{Node, Queue, QueueError, keys};
use weir_core::secret::SecretUrl;
use weir_stack::testing::{Clustered, ClusteredRedis, eventually, redis};

use crate::support::{BOUNDS, LATER, LEASE, dead, ids, message, new_id, retry};

const PARTITIONS: u16 = 8;

fn queue(set: &ClusteredRedis) -> Queue {
    Queue::new(&SecretUrl::new(set.url()), PARTITIONS).unwrap()
}

fn enqueuer(queue: &Queue, bounds: Bounds) -> Enqueuer {
    Enqueuer::new(queue.on_own_link(Duration::from_secs(5)), bounds)
}

/// A prepared queue over three primaries.
async fn spread() -> (ClusteredRedis, Queue) {
    let set = Clustered::default().start().await;
    let queue = queue(&set);
    queue.prepare().await.unwrap();
    (set, queue)
}

fn messages(prefix: &str, n: usize) -> Vec<NewEntry> {
    (0..n).map(|number| message(&format!("{prefix}-{number}"), "text")).collect()
}

/// The number of the node that holds a partition, as the queue sees it.
async fn holder(set: &ClusteredRedis, queue: &Queue, partition: u16) -> usize {
    number(set, &queue.holder(partition).await.unwrap())
}

fn number(set: &ClusteredRedis, node: &Node) -> usize {
    (0..set.nodes.len()).find(|number| Some(set.address(*number).as_str()) == node.address()).expect("a node")
}

async fn slot(set: &ClusteredRedis, queue: &Queue, partition: u16) -> u16 {
    set.slot(&queue.keys(partition).ingest).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_partition_does_all_of_its_work_at_its_own_primary() {
    let (set, queue) = spread().await;
    let shares = holders(&set, &queue).await;
    assert_eq!(shares.values().copied().collect::<Vec<_>>(), [3, 2, 3], "the partitions are spread evenly");
    let enqueuer = enqueuer(&queue, BOUNDS);
    let all = messages("a", 200);
    let first: Vec<MessageId> = enqueuer.enqueue(&all).await.iter().map(new_id).collect();
    for (again, first) in enqueuer.enqueue(&all).await.iter().zip(&first) {
        assert!(matches!(again, Ok(Enqueued::Duplicate(id)) if id == first), "{again:?}");
    }
    assert_eq!(enqueue::find(&queue, all[7].key).await.unwrap(), Some(first[7]));

    let (author, name) = (Author { who: "me".into(), why: String::new() }, ["w".to_owned()]);
    for partition in 0..PARTITIONS {
        queue.join(partition, LEASE, &name).await.unwrap();
        let reads = queue.on_own_link(Duration::from_secs(5));
        let entries = reads.read_new(partition, Lane::Ingest, "w", 1000, Duration::from_secs(1)).await.unwrap();
        assert!(entries.len() >= 3, "partition {partition} has too few of 200");
        let targets = [(&entries[0], dead(&entries[0])), (&entries[1], retry(Duration::ZERO))];
        queue.move_entries(partition, Lane::Ingest, "w", &targets).await.unwrap();
        queue.settle(partition, Lane::Ingest, "w", &ids(&entries[2..]), &[]).await.unwrap();
        assert_eq!(queue.bring_back_due(partition, 10).await.unwrap(), 1);
        let letter = queue.letters(partition, Shelf::Dead, "-", 9).await.unwrap().remove(0).entry;
        let replayed = queue.replay(partition, Shelf::Dead, "r", &author, &[&letter]).await.unwrap();
        assert!(replayed[0].is_some());
        let again = reads.read_new(partition, Lane::Retry, "w", 9, Duration::ZERO).await.unwrap();
        assert_eq!(again.len(), 2);
        queue.settle(partition, Lane::Retry, "w", &ids(&again), &[]).await.unwrap();
        assert_eq!(queue.leave(partition, "w").await.unwrap(), 0);
    }
    let balance = queue.balance().await.unwrap();
    assert_eq!((balance.accepted, balance.stored, balance.in_flight(), balance.drift()), (200, 200, 0, 0));
}

/// How many partitions each node holds.
async fn holders(set: &ClusteredRedis, queue: &Queue) -> BTreeMap<usize, usize> {
    let mut shares = BTreeMap::new();
    for partition in 0..PARTITIONS {
        *shares.entry(holder(set, queue, partition).await).or_default() += 1;
    }
    shares
}

/// Which of these results are acceptances, repeats, or failures, by whether the partition lies with `node`.
async fn by_holder(
    set: &ClusteredRedis,
    queue: &Queue,
    entries: &[NewEntry],
    results: &[Result<Enqueued, EnqueueError>],
    node: usize,
) -> [Vec<String>; 2] {
    let mut there = Vec::new();
    for partition in 0..PARTITIONS {
        there.push(holder(set, queue, partition).await == node);
    }
    let mut said = [Vec::new(), Vec::new()];
    for (entry, result) in entries.iter().zip(results) {
        let word = match result {
            Ok(Enqueued::New(_)) => "new",
            Ok(Enqueued::Duplicate(_)) => "duplicate",
            Ok(Enqueued::Conflict(_)) => "conflict",
            Err(EnqueueError::Queue(QueueError::Unknown(_))) => "unknown",
            Err(EnqueueError::Queue(QueueError::Unreachable(_))) => "unreachable",
            Err(EnqueueError::Queue(QueueError::Refused { code, .. })) => code,
            Err(_) => "other",
        };
        said[usize::from(there[usize::from(entry.key.partition(PARTITIONS))])].push(word.to_owned());
    }
    said.map(|words| words.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_away_costs_its_own_partitions_and_no_others() {
    let (mut set, queue) = spread().await;
    let enqueuer = enqueuer(&queue, BOUNDS);
    for result in enqueuer.enqueue(&messages("a", 100)).await {
        new_id(&result);
    }
    set.nodes[1].kill().await;
    let all = messages("b", 100);
    let said = async |results: &[_]| by_holder(&set, &queue, &all, results, 1).await;
    // Over a connection that had ended already, so that nothing was sent, or was not known to have.
    let [others, its] = said(&enqueuer.enqueue(&all).await).await;
    assert_eq!(others, ["new"]);
    assert!(["unknown", "unreachable"].contains(&its[0].as_str()) && its.len() == 1, "{its:?}");
    assert_eq!(said(&enqueuer.enqueue(&all).await).await, [["duplicate"], ["unreachable"]]);
    for partition in 0..PARTITIONS {
        let found = queue.partition_balance(partition).await;
        assert_eq!(found.is_ok(), holder(&set, &queue, partition).await != 1, "{found:?}");
    }
    let servers = queue.servers().await.unwrap();
    assert_eq!((servers.states.len(), servers.away.len()), (2, 1));
    assert_eq!(number(&set, &servers.away[0].0), 1);

    set.nodes[1].restart().await.unwrap();
    eventually("it is back", LATER, async || queue.servers().await.is_ok_and(|servers| servers.away.is_empty())).await;
    eventually("all are there", LATER, async || enqueuer.enqueue(&all).await.iter().all(Result::is_ok)).await;
    let balance = queue.balance().await.unwrap();
    assert_eq!((balance.accepted, balance.drift()), (200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_to_a_primary_that_froze_until_it_answers_again() {
    let (set, queue) = spread().await;
    let enqueuer = Enqueuer::new(queue.on_own_link(Duration::from_secs(2)), BOUNDS);
    let all = messages("a", 50);
    enqueuer.enqueue(&all).await;
    set.nodes[2].pause();
    let later = messages("b", 50);
    let results = enqueuer.enqueue(&later).await;
    assert_eq!(by_holder(&set, &queue, &later, &results, 2).await, [["new"], ["unknown"]]);
    assert_eq!(queue.servers().await.unwrap().away.len(), 1);
    let results = enqueuer.enqueue(&later).await;
    assert_eq!(by_holder(&set, &queue, &later, &results, 2).await, [["duplicate"], ["unreachable"]]);
    let refused = results.iter().find_map(|result| result.as_ref().err()).unwrap().to_string();
    assert!(refused.contains(&set.address(2)) && refused.contains("is away"), "{refused}");
    set.nodes[2].resume();
    eventually("it is back", LATER, async || queue.servers().await.is_ok_and(|servers| servers.away.is_empty())).await;
    let results = enqueuer.enqueue(&later).await;
    let [others, its] = by_holder(&set, &queue, &later, &results, 2).await;
    assert_eq!(others, ["duplicate"]);
    assert!(its == ["new"] || its == ["duplicate"], "what was sent before it froze was done or was not: {its:?}");
    assert_eq!(queue.balance().await.unwrap().accepted, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_has_moved_is_found_by_whoever_needs_it() {
    let (set, queue) = spread().await;
    let enqueuer = enqueuer(&queue, BOUNDS);
    let all = messages("a", 50);
    enqueuer.enqueue(&all).await;
    let (from, slot) = (holder(&set, &queue, 0).await, slot(&set, &queue, 0).await);
    let to = (from + 1) % 3;
    set.move_slot(slot, from, to).await;
    assert_eq!(holder(&set, &queue, 0).await, from, "nobody has looked yet");
    let results = enqueuer.enqueue(&all).await;
    assert!(results.iter().all(|result| matches!(result, Ok(Enqueued::Duplicate(_)))), "{results:?}");
    assert_eq!(holder(&set, &queue, 0).await, to);
    queue.join(0, LEASE, &["w".into()]).await.unwrap();
    let reads = queue.on_own_link(Duration::from_secs(60));
    let read = async || reads.read_new(0, Lane::Ingest, "w", 1000, Duration::from_secs(30)).await;
    let first = read().await.unwrap();
    queue.settle(0, Lane::Ingest, "w", &ids(&first), &[]).await.unwrap();
    // It is told that the stream has gone, and reads on where it is.
    let read_on = async || match read().await {
        Err(QueueError::Refused { code, .. }) if code == "UNBLOCKED" => read().await,
        read => read,
    };
    let (waiting, moving) = tokio::join!(read_on(), async {
        eventually("it waits", LATER, async || set.ask(to, &["INFO", "clients"]).await.contains("blocked_clients:1"))
            .await;
        set.move_slot(slot, to, from).await;
        enqueuer.enqueue(&messages("b", 50)).await
    });
    let new = moving.iter().map(new_id).filter(|id| id.partition == 0).count();
    assert!(new > 0 && !waiting.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_slot_is_on_its_way_a_batch_is_refused_or_goes_where_it_belongs() {
    let (set, queue) = spread().await;
    let enqueuer = enqueuer(&queue, BOUNDS);
    let all = messages("a", 50);
    enqueuer.enqueue(&all).await;
    let (from, slot) = (holder(&set, &queue, 0).await, slot(&set, &queue, 0).await);
    let to = (from + 1) % 3;
    set.begin_move(slot, from, to).await;
    let ours = |entries: Vec<NewEntry>| -> Vec<NewEntry> {
        entries.into_iter().filter(|entry| entry.key.partition(PARTITIONS) == 0).collect()
    };
    // Repeats find all of their keys, new ones would make keys that are at neither place.
    let repeats = ours(messages("a", 50));
    assert!(enqueuer.enqueue(&repeats).await.iter().all(|found| matches!(found, Ok(Enqueued::Duplicate(_)))));
    let new = ours(messages("b", 50));
    for result in enqueuer.enqueue(&new).await {
        assert!(
            matches!(&result, Err(EnqueueError::Queue(QueueError::Refused { code, .. })) if code == "TRYAGAIN"),
            "{result:?}"
        );
    }
    while set.move_some(slot, from, to).await {}
    assert_eq!(holder(&set, &queue, 0).await, from, "it has not changed hands");
    assert!(enqueuer.enqueue(&repeats).await.iter().all(|found| matches!(found, Ok(Enqueued::Duplicate(_)))));
    assert_eq!(
        queue.length(0, Lane::Ingest).await.unwrap(),
        repeats.len() as u64,
        "nothing of what was refused is there"
    );
    set.end_move(slot, from, to).await;
    for result in enqueuer.enqueue(&new).await {
        new_id(&result);
    }
}

/// Enqueues messages one batch after the other, each again until it is accepted, and gives every id's entry.
async fn persistent(enqueuer: Enqueuer, name: usize, stop: Arc<AtomicBool>) -> BTreeMap<String, MessageId> {
    let (mut accepted, mut round) = (BTreeMap::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let ids: Vec<String> = (0..20).map(|number| format!("{name}-{round}-{number}")).collect();
        let mut left = ids;
        while !left.is_empty() {
            let entries: Vec<_> = left.iter().map(|id| message(id, "text")).collect();
            let results = enqueuer.enqueue(&entries).await;
            let mut refused = Vec::new();
            for (id, result) in left.into_iter().zip(results) {
                match result {
                    Ok(Enqueued::New(entry) | Enqueued::Duplicate(entry)) => drop(accepted.insert(id, entry)),
                    Ok(Enqueued::Conflict(_)) => panic!("{id} has only one content"),
                    Err(EnqueueError::Queue(QueueError::Refused { .. })) => refused.push(id),
                    Err(error) => panic!("{id}: {error}"),
                }
            }
            left = refused;
        }
    }
    accepted
}

/// Reads and settles what comes into a partition until `stop`, and then until there is nothing more. Gives the entries.
async fn drain(queue: Queue, partition: u16, stop: Arc<AtomicBool>) -> Vec<String> {
    let reads = queue.on_own_link(Duration::from_secs(5));
    let (mut settled, mut again) = (Vec::new(), false);
    loop {
        let ending = stop.load(Ordering::Relaxed);
        let read = match again {
            true => reads.read_pending(partition, Lane::Ingest, "w", 1000).await,
            false => reads.read_new(partition, Lane::Ingest, "w", 1000, Duration::from_millis(50)).await,
        };
        let entries = match read {
            Ok(entries) => entries,
            Err(QueueError::Refused { .. }) => {
                again = true;
                continue;
            }
            Err(error) => panic!("partition {partition}: {error}"),
        };
        if entries.is_empty() && ending && !again {
            return settled;
        }
        again = false;
        while let Err(error) = queue.settle(partition, Lane::Ingest, "w", &ids(&entries), &[]).await {
            assert!(matches!(error, QueueError::Refused { .. }), "{error}");
        }
        settled.extend(entries.into_iter().map(|entry| entry.id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_lose_nothing_and_double_nothing() {
    let (set, queue) = spread().await;
    let (stop, drained) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for partition in 0..PARTITIONS {
        queue.join(partition, LEASE, &["w".into()]).await.unwrap();
    }
    let senders: Vec<_> =
        (0..3).map(|name| tokio::spawn(persistent(enqueuer(&queue, BOUNDS), name, stop.clone()))).collect();
    let drains: Vec<_> = (0..PARTITIONS).map(|p| tokio::spawn(drain(queue.clone(), p, drained.clone()))).collect();
    for partition in [0, 5] {
        let slot = slot(&set, &queue, partition).await;
        let before = async |queue: &Queue| queue.balance().await.map_or(0, |balance| balance.accepted);
        for _ in 0..2 {
            let flowed = before(&queue).await;
            eventually("messages flow", LATER, async || before(&queue).await > flowed + 100).await;
            let from = set.holder(slot).await.unwrap();
            set.move_slot(slot, from, (from + 1) % 3).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = BTreeMap::new();
    for sender in senders {
        accepted.extend(sender.await.unwrap());
    }
    drained.store(true, Ordering::Relaxed);
    let mut settled = Vec::new();
    for (partition, drain) in drains.into_iter().enumerate() {
        settled.extend(drain.await.unwrap().into_iter().map(|entry| format!("{partition}-{entry}")));
    }
    let entries: BTreeSet<String> = accepted.values().map(ToString::to_string).collect();
    assert_eq!(entries.len(), accepted.len(), "each id has an entry of its own");
    assert_eq!(settled.len(), entries.len(), "each entry came once");
    assert_eq!(settled.into_iter().collect::<BTreeSet<_>>(), entries);
    let balance = queue.balance().await.unwrap();
    let figures = (balance.accepted, balance.stored, balance.in_flight(), balance.drift());
    assert_eq!(figures, (entries.len() as u64, entries.len() as u64, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_joins_later_gets_the_functions() {
    let (mut set, queue) = spread().await;
    let enqueuer = enqueuer(&queue, BOUNDS);
    let all = messages("a", 50);
    enqueuer.enqueue(&all).await;
    let new = set.join().await;
    let (from, slot) = (holder(&set, &queue, 0).await, slot(&set, &queue, 0).await);
    set.begin_move(slot, from, new).await;
    while set.move_some(slot, from, new).await {}
    assert!(!set.ask(new, &["FUNCTION", "LIST"]).await.contains(queue.library()));
    let results = enqueuer.enqueue(&all).await;
    assert!(results.iter().all(|result| matches!(result, Ok(Enqueued::Duplicate(_)))), "{results:?}");
    assert!(set.ask(new, &["FUNCTION", "LIST"]).await.contains(queue.library()), "it was loaded where it was missing");
    set.end_move(slot, from, new).await;
    set.ask(new, &["FUNCTION", "FLUSH"]).await;
    assert_eq!(queue.balance().await.unwrap().accepted, 50);
    set.ask(new, &["FUNCTION", "FLUSH"]).await;
    queue.link().follow().await;
    queue.load().await.unwrap();
    assert!(set.ask(new, &["FUNCTION", "LIST"]).await.contains(queue.library()), "an operator loads it everywhere");
}

/// Settings that stop a primary from accepting what no replica receives.
fn strict() -> Vec<(&'static str, String)> {
    vec![("min-replicas-to-write", "1".into()), ("min-replicas-max-lag", "10".into())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_level_replica_each_primary_answers_for_its_own_replica_and_its_loss() {
    let node_timeout = Duration::from_secs(2);
    let set = Clustered { replicas: 1, settings: strict(), node_timeout, ..Clustered::default() }.start().await;
    let queue = queue(&set);
    queue.prepare().await.unwrap();
    let safe = enqueuer(&queue, Bounds { replicas: Some((1, Duration::from_millis(500))), ..BOUNDS });
    // A busy machine's replica may take longer than that to answer.
    let all = messages("a", 100);
    eventually("replicas have them", LATER, async || safe.enqueue(&all).await.iter().all(Result::is_ok)).await;
    let entries: Vec<_> = safe.enqueue(&all).await;

    // The replica of the first primary says nothing any more.
    set.nodes[3].pause();
    let [others, its] = by_holder(&set, &queue, &all, &safe.enqueue(&all).await, 0).await;
    assert_eq!(its, ["unknown"], "WAIT asks about the replica of the primary that wrote");
    assert!(others == ["duplicate"] || others == ["duplicate", "unknown"], "{others:?}");
    set.nodes[3].resume();
    eventually("it answers", LATER, async || safe.enqueue(&all).await.iter().all(Result::is_ok)).await;

    let slot = slot(&set, &queue, 0).await;
    set.nodes[0].kill().await;
    assert_eq!(set.promoted(slot, 0).await, 3);
    set.ask(3, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    // Nobody has asked who the primaries are: who cannot reach the old one finds out.
    let found = enqueuer(&queue, BOUNDS);
    eventually("all are there", LATER, async || found.enqueue(&all).await.iter().all(Result::is_ok)).await;
    for (before, now) in entries.iter().zip(found.enqueue(&all).await) {
        assert!(
            matches!((before, &now), (Ok(Enqueued::Duplicate(a)), Ok(Enqueued::Duplicate(b))) if a == b),
            "{now:?}"
        );
    }
    assert_eq!(holder(&set, &queue, 0).await, 3);
    assert_eq!(queue.balance().await.unwrap().accepted, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_primary_does_not_promise_is_named_with_its_address() {
    let (set, queue) = spread().await;
    let look = async || queue.servers().await.unwrap().weaknesses(Durability::Disk, 0);
    assert_eq!(look().await, Vec::<String>::new());
    set.ask(1, &["CONFIG", "SET", "appendfsync", "everysec"]).await;
    let found = look().await;
    assert!(
        found.len() == 1 && found[0].starts_with(&format!("{}: appendfsync is everysec", set.address(1))),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_does_not_say_what_the_server_is_and_a_foreign_layout_are_named() {
    let alone = redis().await;
    let url = alone.url().replace("redis://", "redis-cluster://");
    let error = Queue::new(&SecretUrl::new(url), 1).unwrap().prepare().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, QueueError::Deployment(_)) && text.contains("no node of a Redis Cluster"), "{text}");
    assert!(text.contains(&alone.port().to_string()) && !text.contains(alone.password()), "{text}");

    // As it would be after the keys of a single server were copied into a cluster.
    let (_set, queue) = spread().await;
    let mut set = redis::cmd("HSET");
    set.arg(keys::META).arg("schema").arg("1");
    let _: i64 = queue.command(&set).await.unwrap();
    let error = queue.prepare().await.unwrap_err();
    assert!(matches!(&error, QueueError::Deployment(text) if text.contains("schema 1,")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_primary_for_every_slot_a_cluster_may_refuse_everything() {
    let node_timeout = Duration::from_secs(1);
    let set = Clustered { full_coverage: true, node_timeout, ..Clustered::default() }.start().await;
    let queue = queue(&set);
    queue.prepare().await.unwrap();
    let enqueuer = enqueuer(&queue, BOUNDS);
    set.nodes[0].kill().await;
    let all = messages("a", 50);
    eventually("all are refused", LATER, async || {
        let results = enqueuer.enqueue(&all).await;
        results.iter().all(Result::is_err) && by_holder(&set, &queue, &all, &results, 0).await[0] == ["CLUSTERDOWN"]
    })
    .await;
}
