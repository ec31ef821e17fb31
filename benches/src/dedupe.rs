//! Bytes of Redis' memory per remembered id of 32 hex digits.

use std::time::Duration;

use anyhow::Result;
use weir_core::message::{Fingerprint, MessageKey};
use weir_core::queue::Queue;
use weir_core::queue::enqueue::{Bounds, Enqueuer, NewEntry};
use weir_core::secret::SecretUrl;
use weir_stack::testing::redis_with;

use crate::accept::PARTITIONS;
use crate::report::Report;

/// Ids of the second epoch, which is sized from the first: enough of each.
const IDS: usize = 1_000_000;

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let redis = redis_with(&[("appendonly", "no")]).await;
    let queue = Queue::new(&SecretUrl::new(redis.url()), PARTITIONS)?;
    queue.prepare().await?;
    let bounds =
        Bounds { backlog: 1 << 40, window: Duration::from_secs(86_400), remembered: 20_000_000, replicas: None };
    let enqueuer = Enqueuer::new(queue.clone(), bounds);
    let before = used(&queue).await?;
    for chunk in 0..IDS / 1000 {
        let entries: Vec<_> = (0..1000).map(|n| entry(chunk * 1000 + n)).collect();
        for result in enqueuer.enqueue(&entries).await {
            result?;
        }
    }
    // The streams are not what is measured.
    for partition in 0..PARTITIONS {
        let mut trim = redis::cmd("XTRIM");
        trim.arg(&queue.keys(partition).ingest).arg("MAXLEN").arg(0);
        queue.command::<i64>(&trim).await?;
    }
    let bytes = (used(&queue).await? - before) as f64 / IDS as f64;
    report.add("dedupe memory per id (32 hex digits)", bytes, "bytes", "<= 50");
    Ok(())
}

fn entry(number: usize) -> NewEntry {
    let id = format!("{number:032x}");
    NewEntry { key: MessageKey::new("messenger", &id), fingerprint: Fingerprint([7; 7]), envelope: b"{}".to_vec() }
}

async fn used(queue: &Queue) -> Result<u64> {
    Ok(queue.server_state().await?.used_memory())
}
