//! Append a batch: one round trip and one fsync for all requests that arrive together.

mod spread;

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Pipeline, RedisResult, Value};

use super::{Arg, Queue, QueueError, head, number, text};
use crate::event::{EVENT_VERSION, Event};
use crate::message::{ENTRY_VERSION, Fingerprint, Message, MessageId, MessageKey};
use crate::planted::{self, Planted};

/// A message ready to be appended.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Which envelope it is: a worker that does not know the version leaves the entry for one that does.
    pub version: &'static str,
    /// Decides partition and duplicate.
    pub key: MessageKey,
    /// Decides between repeat and conflict.
    pub fingerprint: Fingerprint,
    /// The message or event as JSON.
    pub envelope: Vec<u8>,
}

impl From<&Message<'_>> for NewEntry {
    fn from(message: &Message<'_>) -> Self {
        Self {
            version: ENTRY_VERSION,
            key: message.key(),
            fingerprint: message.fingerprint(),
            envelope: message.encode(),
        }
    }
}

impl From<&Event<'_>> for NewEntry {
    fn from(event: &Event<'_>) -> Self {
        Self { version: EVENT_VERSION, key: event.key(), fingerprint: event.fingerprint(), envelope: event.encode() }
    }
}

/// What became of one entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It was appended.
    New(MessageId),
    /// The same id and content came before.
    Duplicate(MessageId),
    /// The same id came before with other content.
    Conflict(MessageId),
}

/// Why an entry of a batch was not appended, or may not have been.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnqueueError {
    /// The partition holds as many entries as it may: nothing was written.
    #[error("the backlog is full")]
    Full,
    /// See [`QueueError`].
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// How the dedupe memory and the streams are bounded.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Entries an ingest stream may hold, all partitions together.
    pub backlog: u64,
    /// How long an id is remembered at least, unless `remembered` cuts it short.
    pub window: Duration,
    /// Ids one epoch may hold, all partitions together. Two epochs are kept: an id is remembered for as long as it
    /// takes to fill one.
    pub remembered: u64,
    /// Replicas that must have received a batch before it counts, and how long to wait for them.
    pub replicas: Option<(u32, Duration)>,
}

/// Appends batches. Several batches may be in flight at once.
pub struct Enqueuer {
    queue: Queue,
    bounds: Bounds,
    epochs: Vec<Mutex<Epochs>>,
}

/// The epochs of one partition's dedupe memory as last heard of.
#[derive(Debug, Clone, Copy, Default)]
struct Epochs {
    now: u64,
    buckets: u32,
    before: u64,
    before_buckets: u32,
}

impl Epochs {
    /// Number and buckets of the epochs that an id may be in.
    fn looked_up(self) -> impl Iterator<Item = (u64, u32)> {
        let before = (self.before != 0).then_some((self.before, self.before_buckets));
        std::iter::once((self.now, self.buckets)).chain(before)
    }
}

/// A partition, and which entries of a batch belong to it. They have one version.
type Group = (u16, Vec<usize>);

/// How often a batch asks again after it was told of a new epoch or that the library was missing.
const ROUNDS: usize = 4;

impl Enqueuer {
    /// An enqueuer over `queue`, whose link should be its own: a batch that does not answer costs the connection.
    pub fn new(queue: Queue, bounds: Bounds) -> Self {
        let epochs = (0..queue.partitions()).map(|_| Mutex::default()).collect();
        Self { queue, bounds, epochs }
    }

    /// Appends `entries`, which may belong to any partition, and gives a result for each, in their order.
    ///
    /// Entries of one partition share one atomic function call; all calls share one round trip, in a Redis Cluster one to
    /// each primary. Nothing is tried again after bytes were sent and no answer came.
    pub async fn enqueue(&self, entries: &[NewEntry]) -> Vec<Result<Enqueued, EnqueueError>> {
        if planted::is(Planted::SetBeforeXadd) {
            return super::two_steps::enqueue(&self.queue, entries).await;
        }
        let mut results: Vec<_> = entries.iter().map(|_| Err(EnqueueError::Queue(never()))).collect();
        let mut groups = self.by_partition(entries);
        if let Some(branches) = self.queue.link().branches() {
            self.spread(branches, entries, groups, &mut results).await;
            return results;
        }
        for _ in 0..ROUNDS {
            match self.round(entries, &groups, &mut results).await {
                Ok(again) if again.is_empty() => return results,
                Ok(again) => groups = again,
                Err(error) => {
                    refuse(&groups, &mut results, &error.into());
                    return results;
                }
            }
        }
        results
    }

    fn by_partition(&self, entries: &[NewEntry]) -> Vec<Group> {
        let partitions = self.queue.partitions();
        // Those of the messages, then those of the events.
        let mut groups: Vec<Group> = (0..2 * partitions).map(|at| (at % partitions, Vec::new())).collect();
        for (index, entry) in entries.iter().enumerate() {
            let events = if entry.version == EVENT_VERSION { partitions } else { 0 };
            groups[usize::from(events + entry.key.partition(partitions))].1.push(index);
        }
        groups.retain(|(_, indexes)| !indexes.is_empty());
        groups
    }

    /// One round trip. Gives the groups that wrote nothing and have to ask again.
    ///
    /// The calls run between MULTI and EXEC: Redis reads a batch in pieces of 16 KiB, and without them every piece that
    /// completes a call would pay for an fsync of its own.
    async fn round(
        &self,
        entries: &[NewEntry],
        groups: &[Group],
        results: &mut [Result<Enqueued, EnqueueError>],
    ) -> Result<Vec<Group>, QueueError> {
        let mut pipeline = Pipeline::with_capacity(groups.len() + 3);
        pipeline.cmd("MULTI");
        for (partition, indexes) in groups {
            self.push_call(&mut pipeline, *partition, entries, indexes);
        }
        pipeline.cmd("EXEC");
        if let Some((replicas, patience)) = self.bounds.replicas {
            pipeline.cmd("WAIT").arg(replicas).arg(patience.as_millis() as u64);
        }
        let mut replies = self.queue.link().pipeline(&mut pipeline).await?;
        let replicated = self.replicated(&mut replies);
        let replies = executed(replies)?;
        let (mut again, mut missing) = (Vec::new(), Vec::new());
        for ((partition, indexes), reply) in groups.iter().zip(replies) {
            match self.read_reply(*partition, entries, indexes, reply, results) {
                Reply::Done if !replicated => doubt(indexes, results),
                Reply::Done => {}
                Reply::Again => again.push((*partition, indexes.clone())),
                Reply::Load => missing.push((*partition, indexes.clone())),
            }
        }
        if !missing.is_empty() {
            match self.queue.load().await {
                Ok(()) => again.append(&mut missing),
                Err(error) => refuse(&missing, results, &error.into()),
            }
        }
        Ok(again)
    }

    fn push_call(&self, pipeline: &mut Pipeline, partition: u16, entries: &[NewEntry], indexes: &[usize]) {
        let keys = self.queue.keys(partition);
        let epochs = *self.epochs[usize::from(partition)].lock().expect("no panic while held");
        let mut call = self.queue.fcall("enqueue", 3 + indexes.len() * if epochs.before == 0 { 1 } else { 2 });
        call.arg(&keys.ingest).arg(&keys.count).arg(&keys.seen_meta);
        let mut name = String::new();
        for (epoch, buckets) in epochs.looked_up() {
            for index in indexes {
                name.clear();
                keys.write_seen(&mut name, epoch, entries[*index].key.bucket(buckets));
                call.arg(&name);
            }
        }
        let share = u64::from(self.queue.partitions());
        let args = [
            Arg::Number(epochs.now),
            Arg::Number((self.bounds.backlog / share).max(1)),
            Arg::Number(self.bounds.window.as_millis() as u64),
            Arg::Number((self.bounds.remembered / share).max(1)),
            Arg::Text(if self.bounds.replicas.is_some() { "1" } else { "0" }),
            Arg::Text(entries[indexes[0]].version),
        ];
        for arg in args {
            arg.push(&mut call);
        }
        for index in indexes {
            let entry = &entries[*index];
            call.arg(entry.key.in_bucket()).arg(&entry.fingerprint.0[..]).arg(&entry.envelope);
        }
        pipeline.add_command(call);
    }

    /// Takes the reply of `WAIT` off and says whether enough replicas have the batch.
    fn replicated(&self, replies: &mut Vec<RedisResult<Value>>) -> bool {
        let Some((wanted, _)) = self.bounds.replicas else { return true };
        matches!(replies.pop(), Some(Ok(Value::Int(have))) if have >= i64::from(wanted))
    }

    fn read_reply(
        &self,
        partition: u16,
        entries: &[NewEntry],
        indexes: &[usize],
        reply: RedisResult<Value>,
        results: &mut [Result<Enqueued, EnqueueError>],
    ) -> Reply {
        let outcome = match reply {
            Ok(Value::Array(reply)) => match (head(&reply), reply.get(1)) {
                (b"OK", Some(Value::BulkString(blob))) if blob.len() == 17 * indexes.len() => {
                    let reason = text(&reply, 2);
                    for (index, item) in indexes.iter().zip(blob.chunks_exact(17)) {
                        results[*index] = read_item(partition, entries[*index].fingerprint, item, &reason);
                    }
                    return Reply::Done;
                }
                (b"EPOCH", _) => {
                    let epochs = Epochs {
                        now: number(&reply, 1),
                        buckets: number(&reply, 2) as u32,
                        before: number(&reply, 3),
                        before_buckets: number(&reply, 4) as u32,
                    };
                    *self.epochs[usize::from(partition)].lock().expect("no panic while held") = epochs;
                    return Reply::Again;
                }
                (b"FULL", _) => EnqueueError::Full,
                _ => QueueError::reply(&"enqueue").into(),
            },
            Ok(_) => QueueError::reply(&"enqueue").into(),
            Err(error) => match self.queue.link().error(&error) {
                error if error.is_missing_function() => return Reply::Load,
                error => error.into(),
            },
        };
        for index in indexes {
            results[*index] = Err(outcome.clone());
        }
        Reply::Done
    }

    /// Forgets a part of the epochs that nobody looks up any more. Cheap when there is nothing to forget.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn sweep(&self, partition: u16, epoch: u64, buckets: u64) -> Result<(), QueueError> {
        const STEP: u64 = 500;
        let keys = self.queue.keys(partition);
        let mut from = 0;
        while from < buckets {
            let to = (from + STEP).min(buckets);
            let names: Vec<String> = (from..to).map(|bucket| keys.seen(epoch, bucket as u32)).collect();
            let mut all = vec![keys.seen_meta.as_str()];
            all.extend(names.iter().map(String::as_str));
            let last = if to == buckets { "1" } else { "0" };
            let known: u64 = self.queue.call("sweep", &all, &[Arg::Number(epoch), Arg::Text(last)]).await?;
            if known == 0 {
                return Ok(());
            }
            from = to;
        }
        Ok(())
    }
}

/// The replies of the calls, out of the reply of `EXEC`, which is the last one. When nothing was executed, the reply to
/// one of the calls says why.
fn executed(mut replies: Vec<RedisResult<Value>>) -> Result<Vec<RedisResult<Value>>, QueueError> {
    match replies.pop() {
        Some(Ok(Value::Array(calls))) => Ok(calls
            .into_iter()
            .map(|reply| match reply {
                Value::ServerError(error) => Err(error.into()),
                reply => Ok(reply),
            })
            .collect()),
        Some(Err(abort)) => {
            let reason = replies.into_iter().find_map(Result::err).unwrap_or(abort);
            Err(QueueError::from_redis(&reason))
        }
        Some(Ok(_)) | None => Err(QueueError::reply(&"exec")),
    }
}

/// What to do after a reply.
enum Reply {
    Done,
    Again,
    Load,
}

fn never() -> QueueError {
    QueueError::Refused { code: "BUSY".into(), text: "the dedupe memory changes too fast, try again".into() }
}

/// Gives every entry of `groups` the same result.
fn refuse(groups: &[Group], results: &mut [Result<Enqueued, EnqueueError>], error: &EnqueueError) {
    for index in groups.iter().flat_map(|(_, indexes)| indexes) {
        results[*index] = Err(error.clone());
    }
}

/// Too few replicas have the batch: what was found to be accepted may be lost with this primary.
fn doubt(indexes: &[usize], results: &mut [Result<Enqueued, EnqueueError>]) {
    for index in indexes {
        if results[*index].is_ok() {
            results[*index] = Err(QueueError::Unknown("too few replicas answered".into()).into());
        }
    }
}

fn read_item(partition: u16, ours: Fingerprint, item: &[u8], reason: &str) -> Result<Enqueued, EnqueueError> {
    let be = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let id = MessageId { partition, ms: be(&item[1..7]), seq: be(&item[7..10]) };
    match item[0] {
        b'N' => Ok(Enqueued::New(id)),
        b'D' if item[10..] == ours.0 => Ok(Enqueued::Duplicate(id)),
        b'D' => Ok(Enqueued::Conflict(id)),
        _ => Err(QueueError::Deployment(format!("Redis refuses a part of a batch: {reason}")).into()),
    }
}

/// Where the dedupe memory says that a message was first accepted.
///
/// # Errors
/// See [`QueueError`].
pub async fn find(queue: &Queue, key: MessageKey) -> Result<Option<MessageId>, QueueError> {
    let found = find_all(queue, key.partition(queue.partitions()), &[key]).await?;
    Ok(found.into_iter().next().flatten())
}

/// The same for many messages of one partition, in their order; as many round trips as for one.
///
/// # Errors
/// See [`QueueError`].
pub async fn find_all(
    queue: &Queue,
    partition: u16,
    wanted: &[MessageKey],
) -> Result<Vec<Option<MessageId>>, QueueError> {
    let keys = queue.keys(partition);
    let mut ask = redis::cmd("HMGET");
    ask.arg(&keys.seen_meta).arg(&["epoch", "buckets", "before", "before_buckets"]);
    let meta: Vec<Option<u64>> = queue.command(&ask).await?;
    let mut found = vec![None; wanted.len()];
    for pair in meta.chunks_exact(2) {
        let [Some(epoch), Some(buckets)] = pair else { continue };
        if *epoch == 0 {
            continue;
        }
        let missing: Vec<usize> = (0..wanted.len()).filter(|place| found[*place].is_none()).collect();
        let asked = missing.iter().map(async |place| {
            let key = wanted[*place];
            let bucket = keys.seen(*epoch, key.bucket(*buckets as u32));
            queue.command::<Option<Vec<u8>>>(redis::cmd("HGET").arg(bucket).arg(key.in_bucket())).await
        });
        for (place, value) in missing.iter().zip(join_all(asked).await) {
            found[*place] = value?.and_then(|value| first_entry(partition, &value));
        }
    }
    Ok(found)
}

/// The first nine bytes of what is remembered of a message.
fn first_entry(partition: u16, value: &[u8]) -> Option<MessageId> {
    let be = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    (value.len() == 16).then(|| MessageId { partition, ms: be(&value[..6]), seq: be(&value[6..9]) })
}
