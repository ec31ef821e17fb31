//! What Redis knows about a message: where in the queue it is, and what it has been through.
//!
//! [`follow`] tells all of one message, [`find_all`] in few round trips where many of them are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use futures_util::future::{join_all, try_join_all};
use serde::Deserialize;

use super::consume::StreamEntry;
use super::flight::{self, Standing};
use super::letters::Shelf;
use super::{Queue, QueueError, enqueue, entry_id};
use crate::dead_letter::DeadLetter;
use crate::journey::{Attempt, Journey};
use crate::message::{MessageId, MessageKey};
use crate::trace::TraceParent;

/// Entries looked at in one stream, and entries in a page of it.
const LIMIT: usize = 20_000;
const PAGE: u64 = 500;

/// Entries counted before one that waits.
const BEFORE: u64 = 1000;

/// Which message is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The partition that it is or was in.
    pub partition: u16,
    /// Where it was accepted, when that is known.
    pub origin: Option<MessageId>,
    /// Source and the id that is its key there, when they are known.
    pub name: Option<(String, String)>,
}

/// A place of the queue in which the message is.
#[derive(Debug, Clone)]
pub enum Sighting {
    /// No worker has read it.
    Waiting {
        /// Last part of the stream's name.
        stream: &'static str,
        /// Its id there.
        entry: String,
        /// Entries that are before it.
        before: u64,
        /// There are more than `before`.
        more: bool,
    },
    /// A worker has read it and not settled it.
    Processing {
        /// Last part of the stream's name.
        stream: &'static str,
        /// Its id there.
        entry: String,
        /// Who has it.
        worker: String,
        /// Unix milliseconds.
        since_ms: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// It waits for its next attempt.
    RetryLater {
        /// Failed ones so far.
        attempts: u32,
        /// Unix milliseconds.
        due_ms: u64,
    },
    /// Set aside.
    Parked(Box<DeadLetter>),
    /// A dead letter.
    Dead(Box<DeadLetter>),
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Trail {
    /// Where it is; empty when it has left the queue.
    pub sightings: Vec<Sighting>,
    /// Where it was accepted.
    pub origin: Option<MessageId>,
    /// Source and the id that is its key there.
    pub name: Option<(String, String)>,
    /// Trace id.
    pub trace: Option<String>,
    /// Failed attempts.
    pub attempts: u32,
    /// The last ones of them.
    pub log: Vec<Attempt>,
    /// Deaths of workers that processed it alone.
    pub crashes: u32,
    /// The replay that sent it.
    pub replay: Option<String>,
    /// Unix milliseconds at which it became a dead letter.
    pub died_ms: Option<u64>,
    /// Streams that are too long to look at whole.
    pub cut: Vec<&'static str>,
}

impl Wanted {
    fn is(&self, origin: &str, envelope: &[u8]) -> bool {
        if let Some(wanted) = self.origin {
            return wanted.entry() == origin;
        }
        let Some((source, id)) = &self.name else { return false };
        Name::read(envelope).is_some_and(|name| name.source == *source && name.id == *id)
    }

    /// Nothing of it can be in a stream before it was accepted.
    fn first(&self) -> String {
        self.origin.map_or("-".to_owned(), |origin| origin.ms.to_string())
    }
}

/// The fields that every envelope has, whatever its version.
#[derive(Deserialize)]
struct Name<'a> {
    #[serde(rename = "src", borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(rename = "trace", borrow, default)]
    traceparent: Cow<'a, str>,
}

impl<'a> Name<'a> {
    fn read(envelope: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(envelope).ok()
    }
}

/// Looks for a message everywhere in its partition.
///
/// # Errors
/// See [`QueueError`].
pub async fn follow(queue: &Queue, wanted: &Wanted) -> Result<Trail, QueueError> {
    let mut trail = Trail { origin: wanted.origin, name: wanted.name.clone(), ..Trail::default() };
    let keys = queue.keys(wanted.partition);
    match wanted.origin {
        Some(origin) => {
            let entry = origin.entry();
            for entry in queue.range(&keys.ingest, &entry, &entry, 1).await? {
                trail.see(queue, wanted, "ingest", &keys.ingest, &entry).await?;
            }
        }
        None => trail.search(queue, wanted, "ingest", &keys.ingest).await?,
    }
    trail.search_due(queue, wanted).await?;
    trail.search(queue, wanted, "retry", &keys.retry).await?;
    trail.search(queue, wanted, "suspect", &keys.suspect).await?;
    for shelf in [Shelf::Parked, Shelf::Dead] {
        trail.search_shelf(queue, wanted, shelf).await?;
    }
    Ok(trail)
}

impl Trail {
    async fn search(
        &mut self,
        queue: &Queue,
        wanted: &Wanted,
        name: &'static str,
        stream: &str,
    ) -> Result<(), QueueError> {
        let (mut from, mut seen) = (wanted.first(), 0);
        loop {
            let page = queue.range(stream, &from, "+", PAGE).await?;
            for entry in &page {
                let field = |name: &str| entry.fields.get(name).map_or(&[][..], Vec::as_slice);
                let origin = String::from_utf8_lossy(field("o"));
                let origin = if origin.is_empty() { entry.id.as_str().into() } else { origin };
                if wanted.is(&origin, field("e")) {
                    self.see(queue, wanted, name, stream, entry).await?;
                }
            }
            seen += page.len();
            match page.last() {
                Some(last) if page.len() as u64 == PAGE && seen < LIMIT => from = format!("({}", last.id),
                Some(_) if page.len() as u64 == PAGE => {
                    self.cut.push(name);
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Notes an entry of the message in a stream that workers read.
    async fn see(
        &mut self,
        queue: &Queue,
        wanted: &Wanted,
        name: &'static str,
        stream: &str,
        found: &StreamEntry,
    ) -> Result<(), QueueError> {
        let field = |name: &str| found.fields.get(name).map_or(&[][..], Vec::as_slice);
        let text = |name: &str| String::from_utf8_lossy(field(name)).into_owned();
        let origin = if field("o").is_empty() { found.id.clone() } else { text("o") };
        self.origin = self.origin.or_else(|| MessageId::from_entry(wanted.partition, &origin));
        self.read_envelope(field("e"));
        let entry = found.id.clone();
        let sighting = match flight::standing(queue, stream, &found.id).await? {
            Standing::Waiting => {
                let (before, more) = before(queue, stream, &found.id).await?;
                Sighting::Waiting { stream: name, entry, before, more }
            }
            Standing::Pending { consumer: worker, idle, deliveries } => {
                Sighting::Processing { stream: name, entry, worker, since_ms: ago(idle), deliveries }
            }
            Standing::Left => return Ok(()),
        };
        self.read_journey(Journey::decode(field("a")));
        self.crashes = text("c").parse().unwrap_or_default();
        self.replay = Some(text("r")).filter(|replay| !replay.is_empty());
        self.sightings.push(sighting);
        Ok(())
    }

    async fn search_due(&mut self, queue: &Queue, wanted: &Wanted) -> Result<(), QueueError> {
        let waiting = queue.waiting(wanted.partition, LIMIT as u64).await?;
        if waiting.len() == LIMIT {
            self.cut.push("due");
        }
        for waiting in waiting.into_iter().filter(|waiting| wanted.is(&waiting.origin, &waiting.envelope)) {
            self.origin = self.origin.or_else(|| MessageId::from_entry(wanted.partition, &waiting.origin));
            self.read_envelope(&waiting.envelope);
            let (attempts, due_ms) = (waiting.journey.attempts, waiting.due_ms);
            self.sightings.push(Sighting::RetryLater { attempts, due_ms });
            self.read_journey(waiting.journey);
        }
        Ok(())
    }

    async fn search_shelf(&mut self, queue: &Queue, wanted: &Wanted, shelf: Shelf) -> Result<(), QueueError> {
        let (mut from, mut seen) = (wanted.first(), 0);
        loop {
            let page = queue.letters(wanted.partition, shelf, &from, PAGE).await?;
            seen += page.len();
            let last = page.last().filter(|_| page.len() as u64 == PAGE).map(|letter| letter.entry.clone());
            for letter in page.into_iter().filter(|letter| wanted.is(&letter.origin, &letter.envelope)) {
                self.see_letter(shelf, letter);
            }
            match last {
                Some(last) if seen < LIMIT => from = format!("({last}"),
                Some(_) => {
                    self.cut.push(shelf.name());
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    fn see_letter(&mut self, shelf: Shelf, letter: DeadLetter) {
        self.origin = self.origin.or_else(|| MessageId::from_entry(letter.partition, &letter.origin));
        self.read_envelope(&letter.envelope);
        self.crashes = letter.crashes;
        self.replay = Some(letter.replay.clone()).filter(|replay| !replay.is_empty());
        self.died_ms = Some(letter.died_ms());
        self.read_journey(letter.journey.clone());
        let letter = Box::new(letter);
        self.sightings.push(match shelf {
            Shelf::Dead => Sighting::Dead(letter),
            Shelf::Parked => Sighting::Parked(letter),
        });
    }

    fn read_journey(&mut self, journey: Journey) {
        self.attempts = journey.attempts;
        self.log = journey.log;
    }

    fn read_envelope(&mut self, envelope: &[u8]) {
        let Some(name) = Name::read(envelope) else { return };
        self.trace = name.traceparent.parse::<TraceParent>().ok().map(|trace| trace.trace());
        self.name = Some((name.source.into_owned(), name.id.into_owned()));
    }
}

fn ago(idle: Duration) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(idle).as_millis()).unwrap_or_default()
}

/// How many entries of a stream the workers read before this one, and whether there are more than that.
async fn before(queue: &Queue, stream: &str, id: &str) -> Result<(u64, bool), QueueError> {
    let last = flight::last_delivered(queue, stream).await?;
    let found = queue.range(stream, &format!("({}-{}", last.0, last.1), &format!("({id}"), BEFORE + 1).await?;
    Ok(((found.len() as u64).min(BEFORE), found.len() as u64 > BEFORE))
}

/// Where one of many messages is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standpoint {
    /// It waits for a worker, or one has it.
    Queued,
    /// It failed and is tried again, or waits for that.
    Retrying {
        /// Failed attempts so far.
        attempts: u32,
        /// When the next one is due, in Unix milliseconds; none once it is under way.
        due_ms: Option<u64>,
    },
    /// Set aside for a worker that knows its version.
    Parked {
        /// Unix milliseconds.
        since_ms: u64,
    },
    /// A dead letter.
    Dead {
        /// Unix milliseconds.
        since_ms: u64,
        /// See [`class`](crate::dead_letter::class).
        class: String,
    },
    /// It was accepted and has left the queue: it is stored, or was found to be a repeat, or was purged.
    Left,
}

/// What is known of one of many messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it was accepted; none if the memory of ids has forgotten it.
    pub origin: Option<MessageId>,
    /// Where it is.
    pub standpoint: Standpoint,
}

/// What became of a look for many messages.
#[derive(Debug, Default)]
pub struct FoundAll {
    /// By the names that were asked for; what nothing is known of is not there.
    pub found: HashMap<(String, String), Found>,
    /// Whether a stream was too long to look at whole, so that what is not there may be in it all the same.
    pub is_cut: bool,
}

/// Where these messages are, each by source and the id that is its key there. The number of round trips depends on what is
/// waiting for retries or dead, not on how many are asked for.
///
/// # Errors
/// See [`QueueError`].
pub async fn find_all(queue: &Queue, names: &[(String, String)]) -> Result<FoundAll, QueueError> {
    let mut by_partition: HashMap<u16, Vec<&(String, String)>> = HashMap::new();
    for name in names {
        let partition = MessageKey::new(&name.0, &name.1).partition(queue.partitions());
        by_partition.entry(partition).or_default().push(name);
    }
    let looks = by_partition.into_iter().map(|(partition, names)| find_in(queue, partition, names));
    let mut all = FoundAll::default();
    for one in try_join_all(looks).await? {
        all.found.extend(one.found);
        all.is_cut |= one.is_cut;
    }
    Ok(all)
}

async fn find_in(queue: &Queue, partition: u16, names: Vec<&(String, String)>) -> Result<FoundAll, QueueError> {
    let keys: Vec<_> = names.iter().map(|(source, id)| MessageKey::new(source, id)).collect();
    let origins = enqueue::find_all(queue, partition, &keys).await?;
    let queued = queued(queue, partition, &origins).await?;
    let mut all = FoundAll::default();
    let mut search = Search::default();
    for ((name, origin), is_queued) in names.into_iter().zip(origins).zip(queued) {
        if is_queued {
            all.found.insert(name.clone(), Found { origin, standpoint: Standpoint::Queued });
        } else {
            search.add(name, origin);
        }
    }
    search.run(queue, partition, &mut all).await?;
    Ok(all)
}

/// Which of these entries are in the ingest stream, unread or with a worker.
async fn queued(queue: &Queue, partition: u16, origins: &[Option<MessageId>]) -> Result<Vec<bool>, QueueError> {
    let stream = &queue.keys(partition).ingest;
    let last = flight::last_delivered(queue, stream).await?;
    let looks = origins.iter().map(async |origin| {
        let Some(origin) = origin else { return Ok(false) };
        let entry = origin.entry();
        if (origin.ms, origin.seq) > last {
            return Ok(!queue.range(stream, &entry, &entry, 1).await?.is_empty());
        }
        Ok(queue.pending(stream, &entry).await?.is_some())
    });
    join_all(looks).await.into_iter().collect()
}

/// Messages that are not in the ingest stream: they may have failed, or be gone, or never have been there.
#[derive(Default)]
struct Search<'n> {
    by_origin: HashMap<String, &'n (String, String)>,
    /// Those whose origin nobody remembers.
    by_name: HashMap<(&'n str, &'n str), &'n (String, String)>,
    left: Vec<(&'n (String, String), MessageId)>,
}

impl<'n> Search<'n> {
    fn add(&mut self, name: &'n (String, String), origin: Option<MessageId>) {
        match origin {
            Some(origin) => {
                self.by_origin.insert(origin.entry(), name);
                self.left.push((name, origin));
            }
            None => drop(self.by_name.insert((&name.0, &name.1), name)),
        }
    }

    /// Whose entry this is.
    fn name(&self, origin: &str, envelope: &[u8]) -> Option<&'n (String, String)> {
        if let Some(name) = self.by_origin.get(origin) {
            return Some(name);
        }
        // To read an envelope costs more than all the rest.
        let read = (!self.by_name.is_empty()).then(|| Name::read(envelope)).flatten()?;
        self.by_name.get(&(&*read.source, &*read.id)).copied()
    }

    /// In the order in which an entry moves on, so that the last place wins in which one is seen.
    async fn run(self, queue: &Queue, partition: u16, all: &mut FoundAll) -> Result<(), QueueError> {
        if self.by_origin.is_empty() && self.by_name.is_empty() {
            return Ok(());
        }
        for (name, origin) in &self.left {
            all.found.insert((*name).clone(), Found { origin: Some(*origin), standpoint: Standpoint::Left });
        }
        self.search_due(queue, partition, all).await?;
        let keys = queue.keys(partition);
        for stream in [&keys.retry, &keys.suspect] {
            self.search_stream(queue, partition, stream, all).await?;
        }
        for shelf in [Shelf::Parked, Shelf::Dead] {
            self.search_shelf(queue, partition, shelf, all).await?;
        }
        Ok(())
    }

    fn note(&self, all: &mut FoundAll, partition: u16, origin: &str, envelope: &[u8], standpoint: Standpoint) {
        if let Some(name) = self.name(origin, envelope) {
            let origin = MessageId::from_entry(partition, origin);
            all.found.insert(name.clone(), Found { origin, standpoint });
        }
    }

    async fn search_due(&self, queue: &Queue, partition: u16, all: &mut FoundAll) -> Result<(), QueueError> {
        let waiting = queue.waiting(partition, LIMIT as u64).await?;
        all.is_cut |= waiting.len() == LIMIT;
        for entry in waiting {
            let standpoint = Standpoint::Retrying { attempts: entry.journey.attempts, due_ms: Some(entry.due_ms) };
            self.note(all, partition, &entry.origin, &entry.envelope, standpoint);
        }
        Ok(())
    }

    /// Entries that are read and settled may still be in their stream.
    async fn search_stream(
        &self,
        queue: &Queue,
        partition: u16,
        stream: &str,
        all: &mut FoundAll,
    ) -> Result<(), QueueError> {
        let (mut from, mut seen) = ("-".to_owned(), 0);
        loop {
            let page = queue.range(stream, &from, "+", PAGE).await?;
            seen += page.len();
            for entry in &page {
                let field = |name: &str| entry.fields.get(name).map_or(&[][..], Vec::as_slice);
                let origin = String::from_utf8_lossy(field("o"));
                if self.name(&origin, field("e")).is_none()
                    || flight::standing(queue, stream, &entry.id).await? == Standing::Left
                {
                    continue;
                }
                let attempts = Journey::decode(field("a")).attempts;
                self.note(all, partition, &origin, field("e"), Standpoint::Retrying { attempts, due_ms: None });
            }
            let Some(last) = page.last().filter(|_| page.len() as u64 == PAGE) else { return Ok(()) };
            if seen >= LIMIT {
                all.is_cut = true;
                return Ok(());
            }
            from = format!("({}", last.id);
        }
    }

    /// The newest letters first: who asks wants to know of what happened of late.
    async fn search_shelf(
        &self,
        queue: &Queue,
        partition: u16,
        shelf: Shelf,
        all: &mut FoundAll,
    ) -> Result<(), QueueError> {
        let (mut to, mut seen) = ("+".to_owned(), 0);
        loop {
            let page = queue.letters_back(partition, shelf, &to, "-", PAGE).await?;
            seen += page.len();
            for letter in &page {
                let since_ms = entry_id::of(&letter.entry).0;
                let standpoint = match shelf {
                    Shelf::Parked => Standpoint::Parked { since_ms },
                    Shelf::Dead => Standpoint::Dead { since_ms, class: letter.class.clone() },
                };
                self.note(all, partition, &letter.origin, &letter.envelope, standpoint);
            }
            let Some(last) = page.last().filter(|_| page.len() as u64 == PAGE) else { return Ok(()) };
            if seen >= LIMIT {
                all.is_cut = true;
                return Ok(());
            }
            to = format!("({}", last.entry);
        }
    }
}
