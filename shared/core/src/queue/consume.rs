//! What a worker does with entries: read, settle, move, bring back due retries.

use std::collections::HashMap;
use std::time::Duration;

use redis::{RedisResult, Value};

use super::{Arg, GROUP, Queue, QueueError, head};
use crate::dead_letter::DeadLetter;
use crate::journey::Journey;

/// The streams that workers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Fresh messages.
    Ingest,
    /// Retries that are due.
    Retry,
    /// Entries of workers that died, one at a time.
    Suspect,
}

impl Lane {
    /// Names the lane in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Ingest => "ingest",
            Lane::Retry => "retry",
            Lane::Suspect => "suspect",
        }
    }

    /// Names the lane in the members of `due`.
    fn letter(self) -> &'static str {
        match self {
            Lane::Ingest => "i",
            Lane::Retry => "r",
            Lane::Suspect => "s",
        }
    }
}

/// One entry as it was read. It is in the reader's pending list until it is settled or moved.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Stream it was read from.
    pub lane: Lane,
    /// Its id in that stream.
    pub id: String,
    /// Version of the envelope; empty when there is none.
    pub version: String,
    /// The message as JSON, hopefully; `None` when the entry has no such field.
    pub envelope: Option<Vec<u8>>,
    /// Failed attempts so far.
    pub journey: Journey,
    /// Entry id at which it was first accepted: its own in ingest.
    pub origin: String,
    /// Deaths of workers that processed it alone.
    pub crashes: u32,
    /// The replay that sent it, or empty.
    pub replay: String,
    /// Fields that no build of ours writes, for dead letters.
    pub strange: Vec<(String, String)>,
}

impl Entry {
    pub(crate) fn read(lane: Lane, id: String, fields: Vec<Value>) -> Self {
        let mut entry = Self {
            lane,
            origin: id.clone(),
            id,
            version: String::new(),
            envelope: None,
            journey: Journey::default(),
            crashes: 0,
            replay: String::new(),
            strange: Vec::new(),
        };
        let mut fields = fields.into_iter();
        while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) = (fields.next(), fields.next()) {
            let text = || String::from_utf8_lossy(&value).into_owned();
            match name.as_slice() {
                b"v" => entry.version = text(),
                b"a" => entry.journey = Journey::decode(&value),
                b"o" => entry.origin = text(),
                b"c" => entry.crashes = text().parse().unwrap_or_default(),
                b"r" => entry.replay = text(),
                b"e" => entry.envelope = Some(value),
                _ => entry.strange.push((String::from_utf8_lossy(&name).into_owned(), text())),
            }
        }
        entry
    }
}

/// Where a failed entry goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// Back to a worker after a delay.
    Retry {
        /// Failed attempts, the last one included.
        journey: Journey,
        /// How long to wait.
        delay: Duration,
    },
    /// To the dead letters.
    Dead(Box<DeadLetter>),
    /// Aside, for a worker that knows its version.
    Parked(Box<DeadLetter>),
}

impl Queue {
    fn stream(&self, partition: u16, lane: Lane) -> &str {
        let keys = self.keys(partition);
        match lane {
            Lane::Ingest => &keys.ingest,
            Lane::Retry => &keys.retry,
            Lane::Suspect => &keys.suspect,
        }
    }

    /// Reads up to `count` entries that nobody has read, waiting up to `block` for the first. The queue's link should
    /// be this reader's own and its timeout longer than `block`.
    ///
    /// # Errors
    /// See [`QueueError`]. After [`QueueError::Unknown`] entries may be pending that never arrived: read
    /// [`Self::read_pending`].
    pub async fn read_new(
        &self,
        partition: u16,
        lane: Lane,
        consumer: &str,
        count: usize,
        block: Duration,
    ) -> Result<Vec<Entry>, QueueError> {
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP").arg(GROUP).arg(consumer).arg("COUNT").arg(count);
        if !block.is_zero() {
            cmd.arg("BLOCK").arg(block.as_millis() as u64);
        }
        cmd.arg("STREAMS").arg(self.stream(partition, lane)).arg(">");
        Ok(read_entries(lane, self.command(&cmd).await?))
    }

    /// How many entries a stream holds, finished ones that are not trimmed yet included: none in `suspect`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn length(&self, partition: u16, lane: Lane) -> Result<u64, QueueError> {
        self.command(redis::cmd("XLEN").arg(self.stream(partition, lane))).await
    }

    /// Reads suspects that no consumer has: up to `count` that have not been in suspect at a death, or a single one that
    /// has. Never waits.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn read_suspects(&self, partition: u16, consumer: &str, count: usize) -> Result<Vec<Entry>, QueueError> {
        let args = [Arg::Text(consumer), Arg::Number(count as u64)];
        let reply = self.call("suspects", &[&self.keys(partition).suspect], &args).await?;
        Ok(read_entries(Lane::Suspect, reply))
    }

    /// Reads up to `count` of the consumer's own pending entries, oldest first. An entry that was deleted by hand
    /// comes without an envelope.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn read_pending(
        &self,
        partition: u16,
        lane: Lane,
        consumer: &str,
        count: usize,
    ) -> Result<Vec<Entry>, QueueError> {
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP").arg(GROUP).arg(consumer).arg("COUNT").arg(count);
        cmd.arg("STREAMS").arg(self.stream(partition, lane)).arg("0");
        Ok(read_entries(lane, self.command(&cmd).await?))
    }

    /// Acks and counts committed entries. A second settle of the same entries changes nothing.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] when the consumer's lease is lost, else see [`QueueError`].
    pub async fn settle(
        &self,
        partition: u16,
        lane: Lane,
        consumer: &str,
        stored: &[&str],
        duplicates: &[&str],
    ) -> Result<(), QueueError> {
        let keys = self.keys(partition);
        let mut args = vec![Arg::Text(consumer), Arg::Number(stored.len() as u64)];
        args.extend(stored.iter().chain(duplicates).map(|id| Arg::Text(id)));
        let reply: Vec<Value> =
            self.call("settle", &[self.stream(partition, lane), &keys.count, &keys.alive], &args).await?;
        unless_fenced(&reply)
    }

    /// Moves failed entries where they belong, atomically. Entries that are no longer ours stay where they are.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] when the consumer's lease is lost, else see [`QueueError`].
    pub async fn move_entries(
        &self,
        partition: u16,
        lane: Lane,
        consumer: &str,
        moves: &[(&Entry, Target)],
    ) -> Result<(), QueueError> {
        let keys = self.keys(partition);
        let names = [
            self.stream(partition, lane),
            &keys.count,
            &keys.alive,
            &keys.due,
            &keys.due_body,
            &keys.suspect,
            &keys.parked,
            &keys.dead,
            &keys.tally,
        ];
        for some in moves.chunks(100) {
            let mut values: Vec<Vec<u8>> = Vec::new();
            for (entry, target) in some {
                push_move(&mut values, entry, target);
            }
            let mut args = vec![Arg::Text(consumer), Arg::Text(lane.letter())];
            args.extend(values.iter().map(|value| Arg::Bytes(value)));
            let reply: Vec<Value> = self.call("move", &names, &args).await?;
            unless_fenced(&reply)?;
        }
        Ok(())
    }

    /// Brings up to `limit` retries back whose time has come; gives how many.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn bring_back_due(&self, partition: u16, limit: u64) -> Result<u64, QueueError> {
        let keys = self.keys(partition);
        self.call("due", &[&keys.due, &keys.due_body, &keys.retry, &keys.count], &[Arg::Number(limit)]).await
    }
}

fn push_move(values: &mut Vec<Vec<u8>>, entry: &Entry, target: &Target) {
    let mut head = |name: &str, delay: Duration, n: usize| {
        values.extend([
            entry.id.clone().into_bytes(),
            name.as_bytes().to_vec(),
            delay.as_millis().to_string().into_bytes(),
            n.to_string().into_bytes(),
        ]);
    };
    match target {
        Target::Retry { journey, delay } => {
            head("due", *delay, 6);
            values.extend([
                entry.version.clone().into_bytes(),
                journey.encode().into_bytes(),
                entry.origin.clone().into_bytes(),
                b"0".to_vec(),
                entry.replay.clone().into_bytes(),
                entry.envelope.clone().unwrap_or_default(),
            ]);
        }
        Target::Dead(letter) | Target::Parked(letter) => {
            let fields = letter.fields();
            let name = if matches!(target, Target::Dead(_)) { "dead" } else { "parked" };
            head(name, Duration::ZERO, 2 * fields.len());
            values.extend(fields.into_iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value]));
        }
    }
}

fn unless_fenced(reply: &[Value]) -> Result<(), QueueError> {
    if head(reply) == b"FENCED" { Err(QueueError::Fenced) } else { Ok(()) }
}

/// Reads `[[stream, [[id, [field, value, …]], …]]]`.
fn read_entries(lane: Lane, reply: Value) -> Vec<Entry> {
    let mut entries = Vec::new();
    for stream in items(reply) {
        let Some(list) = items(stream).pop() else { continue };
        for item in items(list) {
            let mut parts = items(item).into_iter();
            let (Some(Value::BulkString(id)), fields) = (parts.next(), parts.next()) else { continue };
            let fields = fields.map(items).unwrap_or_default();
            entries.push(Entry::read(lane, String::from_utf8_lossy(&id).into_owned(), fields));
        }
    }
    entries
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// An entry of any stream, for operators.
#[derive(Debug, Clone)]
pub struct StreamEntry {
    /// Entry id.
    pub id: String,
    /// Fields.
    pub fields: HashMap<String, Vec<u8>>,
}

impl Queue {
    /// Reads up to `count` entries of any stream from `from` to `to`, both inclusive unless they begin with `(`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn range(&self, stream: &str, from: &str, to: &str, count: u64) -> Result<Vec<StreamEntry>, QueueError> {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(stream).arg(from).arg(to).arg("COUNT").arg(count);
        let reply: Vec<(String, HashMap<String, Vec<u8>>)> = self.command(&cmd).await?;
        Ok(reply.into_iter().map(|(id, fields)| StreamEntry { id, fields }).collect())
    }

    /// Reads up to `count` entries of any stream backwards, newest first, from `to` down to `from`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn range_back(
        &self,
        stream: &str,
        to: &str,
        from: &str,
        count: u64,
    ) -> Result<Vec<StreamEntry>, QueueError> {
        let mut cmd = redis::cmd("XREVRANGE");
        cmd.arg(stream).arg(to).arg(from).arg("COUNT").arg(count);
        let reply: Vec<(String, HashMap<String, Vec<u8>>)> = self.command(&cmd).await?;
        Ok(reply.into_iter().map(|(id, fields)| StreamEntry { id, fields }).collect())
    }

    /// How often an entry of a stream is pending, at which consumer and for how long: `(consumer, idle, deliveries)`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn pending(&self, stream: &str, id: &str) -> Result<Option<(String, Duration, u64)>, QueueError> {
        let mut cmd = redis::cmd("XPENDING");
        cmd.arg(stream).arg(GROUP).arg(id).arg(id).arg(1);
        let found: RedisResult<Vec<(String, String, u64, u64)>> = match self.command(&cmd).await {
            Ok(found) => Ok(found),
            Err(error) if error.is_missing_group() => Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let first = found.unwrap_or_default().into_iter().next();
        Ok(first.map(|(_, consumer, idle, count)| (consumer, Duration::from_millis(idle), count)))
    }

    /// The due time (Unix ms) of entries that wait in `due`, up to `limit`, with their bodies' fields.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn waiting(&self, partition: u16, limit: u64) -> Result<Vec<Waiting>, QueueError> {
        let keys = self.keys(partition);
        let mut cmd = redis::cmd("ZRANGE");
        cmd.arg(&keys.due).arg(0).arg(limit.saturating_sub(1)).arg("WITHSCORES");
        let members: Vec<(String, u64)> = self.command(&cmd).await?;
        let mut waiting = Vec::with_capacity(members.len());
        for some in members.chunks(BODIES) {
            let mut ask = redis::cmd("HMGET");
            ask.arg(&keys.due_body);
            for (member, _) in some {
                ask.arg(member);
            }
            let bodies: Vec<Option<Vec<u8>>> = self.command(&ask).await?;
            let bodies = some.iter().zip(bodies).filter_map(|((_, due_ms), body)| Waiting::read(*due_ms, &body?));
            waiting.extend(bodies);
        }
        Ok(waiting)
    }
}

/// Bodies of waiting entries in one reply. Each may have a megabyte.
const BODIES: usize = 100;

/// A retry that waits for its time.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Unix milliseconds.
    pub due_ms: u64,
    /// Failed attempts so far.
    pub journey: Journey,
    /// Entry id at which it was first accepted.
    pub origin: String,
    /// The message as JSON.
    pub envelope: Vec<u8>,
}

impl Waiting {
    /// Reads `v`, `a`, `o`, `c`, `r` and `e`, one line each but the last.
    fn read(due_ms: u64, body: &[u8]) -> Option<Self> {
        let mut parts = body.splitn(6, |byte| *byte == b'\n').skip(1);
        let journey = Journey::decode(parts.next()?);
        let origin = String::from_utf8_lossy(parts.next()?).into_owned();
        let envelope = parts.nth(2)?.to_vec();
        Some(Self { due_ms, journey, origin, envelope })
    }
}
