//! The planted fault `set-before-xadd`: how a queue would be written that remembers an id in one step and appends the
//! message in another.

use std::time::{SystemTime, UNIX_EPOCH};

use redis::{Pipeline, RedisResult, Value};

use super::enqueue::{EnqueueError, Enqueued, NewEntry};
use super::{Queue, QueueError};
use crate::message::MessageId;

/// An epoch and a number of buckets of its own: whatever the real functions remember is not touched.
const EPOCH: u64 = 1;
const BUCKETS: u32 = 4096;

pub(super) async fn enqueue(queue: &Queue, entries: &[NewEntry]) -> Vec<Result<Enqueued, EnqueueError>> {
    let results = match remember(queue, entries).await {
        Ok(results) => results,
        Err(error) => return entries.iter().map(|_| Err(error.clone().into())).collect(),
    };
    match append(queue, entries, &results).await {
        Ok(()) => results.into_iter().map(Ok).collect(),
        Err(error) => entries.iter().map(|_| Err(error.clone().into())).collect(),
    }
}

async fn remember(queue: &Queue, entries: &[NewEntry]) -> Result<Vec<Enqueued>, QueueError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let mut pipeline = Pipeline::new();
    for entry in entries {
        let bucket = queue.keys(partition(queue, entry)).seen(EPOCH, entry.key.bucket(BUCKETS));
        pipeline.cmd("HSETNX").arg(bucket).arg(&entry.key.0[..]).arg(now);
    }
    let replies = values(queue.link().pipeline(&mut pipeline).await?)?;
    Ok(entries
        .iter()
        .zip(replies)
        .map(|(entry, reply)| {
            let id = MessageId { partition: partition(queue, entry), ms: now, seq: 0 };
            if matches!(reply, Value::Int(1)) { Enqueued::New(id) } else { Enqueued::Duplicate(id) }
        })
        .collect())
}

async fn append(queue: &Queue, entries: &[NewEntry], results: &[Enqueued]) -> Result<(), QueueError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("PING");
    for (entry, result) in entries.iter().zip(results) {
        if matches!(result, Enqueued::New(_)) {
            let keys = queue.keys(partition(queue, entry));
            pipeline.cmd("XADD").arg(&keys.ingest).arg("*").arg("v").arg(entry.version).arg("e").arg(&entry.envelope);
            pipeline.cmd("HINCRBY").arg(&keys.count).arg("accepted").arg(1);
            pipeline.cmd("HINCRBY").arg(&keys.count).arg("open_ingest").arg(1);
        }
    }
    values(queue.link().pipeline(&mut pipeline).await?).map(drop)
}

fn partition(queue: &Queue, entry: &NewEntry) -> u16 {
    entry.key.partition(queue.partitions())
}

fn values(replies: Vec<RedisResult<Value>>) -> Result<Vec<Value>, QueueError> {
    replies.into_iter().collect::<RedisResult<_>>().map_err(|error| QueueError::from_redis(&error))
}
