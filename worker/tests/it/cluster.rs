//! The partitions lie with the primaries of a Redis Cluster, and one of those is away.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_core::message::Message;
use weir_core::queue::Queue;
use weir_core::queue::enqueue::Enqueuer;
use weir_core::secret::SecretUrl;
use weir_stack::testing::{Clustered, eventually};
use weir_store::testing;

use crate::support::{PATIENCE, World, bounds, entry, messages};

const PARTITIONS: u16 = 8;

/// By partition.
fn sorted(messages: Vec<Message<'static>>) -> BTreeMap<u16, Vec<Message<'static>>> {
    let mut sorted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for message in messages {
        sorted.entry(message.key().partition(PARTITIONS)).or_default().push(message);
    }
    sorted
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_primary_is_away_a_worker_does_all_of_its_work_in_the_other_partitions() {
    let mut set = Clustered::default().start().await;
    let queue = Queue::new(&SecretUrl::new(set.url()), PARTITIONS).unwrap();
    queue.prepare().await.unwrap();
    let world = World { queue: queue.clone(), ..World::new().await };
    let worker = world.start();
    world.accept_new(&messages(0..100)).await;
    world.drained().await;

    set.nodes[1].kill().await;
    let gone = set.address(1);
    let mut there = Vec::new();
    for partition in 0..PARTITIONS {
        if queue.holder(partition).await.unwrap().address() != Some(&gone) {
            there.push(partition);
        }
    }
    let last = *there.last().unwrap();
    assert!(
        there.len() < usize::from(PARTITIONS) && last == PARTITIONS - 1,
        "some are away, and come before the last one"
    );
    let late = "ALTER TABLE messages ADD CONSTRAINT late CHECK (text <> 'too early')";
    testing::execute(&world.database, late).await.unwrap();
    let mut new = sorted(messages(100..300));
    new.retain(|partition, _| there.contains(partition));
    new.get_mut(&last).unwrap()[0].message_text = "too early".into();
    let new: Vec<_> = new.into_values().flatten().collect();
    let entries: Vec<_> = new.iter().map(entry).collect();
    let results = Enqueuer::new(queue.on_own_link(Duration::from_secs(5)), bounds()).enqueue(&entries).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let stored = 100 + new.len() as i64 - 1;
    eventually("they are rows", PATIENCE, async || world.rows().await == stored).await;
    // A retry comes back when its time has come …
    let retried = async || queue.partition_balance(last).await.is_ok_and(|(balance, _)| balance.retried > 0);
    eventually("one is tried again", PATIENCE, retried).await;
    testing::execute(&world.database, "ALTER TABLE messages DROP CONSTRAINT late").await.unwrap();
    eventually("it is a row", PATIENCE, async || world.rows().await == stored + 1).await;
    // … who is dead is taken over from …
    queue.join(last, Duration::from_secs(60), &["ghost".into()]).await.unwrap();
    queue.declare_dead(last, "ghost").await.unwrap();
    let lease = async |name: &str| {
        let mut ask = redis::cmd("ZSCORE");
        ask.arg(&queue.keys(last).alive).arg(name);
        queue.command::<Option<f64>>(&ask).await.unwrap()
    };
    eventually("nothing is left of it", PATIENCE, async || lease("ghost").await.is_none()).await;
    // … and the leases last.
    let first = lease(&worker.name).await.expect("a lease");
    eventually("two terms later", PATIENCE, async || lease(&worker.name).await.is_some_and(|now| now > first + 3000.0))
        .await;

    set.nodes[1].restart().await.unwrap();
    let rest: Vec<_> =
        sorted(messages(100..300)).into_iter().filter(|(partition, _)| !there.contains(partition)).collect();
    let rest: Vec<_> = rest.into_iter().flat_map(|(_, messages)| messages).collect();
    eventually("all are accepted", PATIENCE, async || world.accept(&rest).await.iter().all(Result::is_ok)).await;
    assert_eq!(world.drained().await.stored, 300);
    assert_eq!(world.rows().await, 300);
    worker.stop().await;
}
