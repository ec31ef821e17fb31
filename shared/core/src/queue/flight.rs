//! Where in the queue an entry is, as far as Redis alone can tell.

use std::collections::HashSet;
use std::time::Duration;

use super::entry_id::{self, EntryId};
use super::{GROUP, Queue, QueueError};
use redis::streams::StreamInfoGroupsReply;

/// What the workers have done with an entry of a stream that they read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has read it.
    Waiting,
    /// A consumer has read it and not settled it.
    Pending {
        /// Who.
        consumer: String,
        /// Since when.
        idle: Duration,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// It was settled or moved on.
    Left,
}

/// How far the workers have read a stream; the very beginning when nobody reads it.
///
/// # Errors
/// See [`QueueError`].
pub async fn last_delivered(queue: &Queue, stream: &str) -> Result<EntryId, QueueError> {
    let mut ask = redis::cmd("XINFO");
    ask.arg("GROUPS").arg(stream);
    let reply: StreamInfoGroupsReply = match queue.command(&ask).await {
        Err(QueueError::Refused { code, .. }) if code == "ERR" => return Ok((0, 0)),
        reply => reply?,
    };
    let group = reply.groups.into_iter().find(|group| group.name == GROUP);
    Ok(group.map(|group| entry_id::of(&group.last_delivered_id)).unwrap_or_default())
}

/// What the workers have done with an entry that is in `stream`, or was.
///
/// # Errors
/// See [`QueueError`].
pub async fn standing(queue: &Queue, stream: &str, id: &str) -> Result<Standing, QueueError> {
    if entry_id::of(id) > last_delivered(queue, stream).await? {
        return Ok(Standing::Waiting);
    }
    Ok(match queue.pending(stream, id).await? {
        Some((consumer, idle, deliveries)) => Standing::Pending { consumer, idle, deliveries },
        None => Standing::Left,
    })
}

/// Ids of a stream that are pending, up to `limit`; none when there are more.
async fn pending_ids(queue: &Queue, stream: &str, limit: usize) -> Result<Option<HashSet<EntryId>>, QueueError> {
    let mut ask = redis::cmd("XPENDING");
    ask.arg(stream).arg(GROUP).arg("-").arg("+").arg(limit + 1);
    let found: Vec<(String, String, u64, u64)> = match queue.command(&ask).await {
        Err(error) if error.is_missing_group() => Vec::new(),
        found => found?,
    };
    Ok((found.len() <= limit).then(|| found.iter().map(|(id, ..)| entry_id::of(id)).collect()))
}

/// Entries looked at in each place of a partition.
const LIMIT: usize = 5000;

/// The retries of a partition at one moment: which new ids are still before the workers or with them.
pub struct Retries {
    last_delivered: EntryId,
    /// None when there are too many to say.
    pending: Option<HashSet<EntryId>>,
}

impl Retries {
    /// Reads them.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn read(queue: &Queue, partition: u16) -> Result<Self, QueueError> {
        let stream = &queue.keys(partition).retry;
        // Pending first: what is read in between then counts as delivered and not pending, and is found elsewhere or
        // looked at again.
        let pending = pending_ids(queue, stream, LIMIT).await?;
        Ok(Self { last_delivered: last_delivered(queue, stream).await?, pending })
    }

    /// Whether an entry of retry is certainly no longer there.
    pub fn has_left(&self, id: EntryId) -> bool {
        id <= self.last_delivered && self.pending.as_ref().is_some_and(|pending| !pending.contains(&id))
    }
}

/// Origins of everything of a partition that is on its way again: waiting for its time, due, or with a worker. None
/// when there is too much to say.
///
/// The places are read one after another, so an entry that moves meanwhile may be overlooked: who finds one absent
/// looks again before believing it.
///
/// # Errors
/// See [`QueueError`].
pub async fn origins(queue: &Queue, partition: u16) -> Result<Option<HashSet<String>>, QueueError> {
    let keys = queue.keys(partition);
    let waiting = queue.waiting(partition, LIMIT as u64).await?;
    let mut is_whole = waiting.len() < LIMIT;
    let mut origins: HashSet<String> = waiting.into_iter().map(|waiting| waiting.origin).collect();
    for stream in [&keys.retry, &keys.suspect] {
        let delivered = last_delivered(queue, stream).await?;
        let pending = pending_ids(queue, stream, LIMIT).await?;
        let oldest = pending.iter().flatten().min().copied().unwrap_or((delivered.0, delivered.1 + 1));
        let from = format!("{}-{}", oldest.0, oldest.1);
        let entries = queue.range(stream, &from, "+", LIMIT as u64).await?;
        is_whole &= entries.len() < LIMIT && pending.is_some();
        let is_live = |id: EntryId| id > delivered || pending.as_ref().is_some_and(|pending| pending.contains(&id));
        for mut entry in entries.into_iter().filter(|entry| is_live(entry_id::of(&entry.id))) {
            let origin = entry.fields.remove("o").unwrap_or_default();
            origins.insert(String::from_utf8_lossy(&origin).into_owned());
        }
    }
    Ok(is_whole.then_some(origins))
}
