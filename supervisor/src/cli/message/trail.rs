//! What Redis knows about a message.

use serde::Serialize;
use weir_core::dead_letter::DeadLetter;
use weir_core::journey::{Attempt, Journey};
use weir_core::message::{Message, MessageId};
use weir_core::queue::consume::StreamEntry;
use weir_core::queue::letters::Shelf;
use weir_core::queue::{Queue, QueueError};
use weir_core::trace::TraceParent;

use crate::cli::dlq::flight::{self, Standing};
use crate::output;

/// Entries looked at in one stream, and entries in a page of it.
const LIMIT: usize = 20_000;
const PAGE: u64 = 500;

/// Entries counted before one that waits.
const BEFORE: u64 = 1000;

/// Which message is looked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) partition: u16,
    /// Where it was accepted, when that is known.
    pub(super) origin: Option<MessageId>,
    /// Source and external id, when they are known.
    pub(super) name: Option<(String, String)>,
}

/// A place of the queue in which the message is.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Sighting {
    /// No worker has read it.
    Waiting {
        stream: &'static str,
        entry: String,
        /// Entries that are before it.
        before: u64,
        /// There are more than `before`.
        more: bool,
    },
    /// A worker has read it and not settled it.
    Processing { stream: &'static str, entry: String, worker: String, since: String, deliveries: u64 },
    /// It waits for its next attempt.
    RetryLater { attempts: u32, due: String },
    /// Set aside.
    Parked { place: String, since: String, class: String, error: String },
    /// A dead letter.
    Dead { place: String, since: String, class: String, code: String, error: String },
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) sightings: Vec<Sighting>,
    pub(super) origin: Option<MessageId>,
    pub(super) name: Option<(String, String)>,
    pub(super) trace: Option<String>,
    pub(super) attempts: u32,
    pub(super) log: Vec<Attempt>,
    pub(super) crashes: u32,
    pub(super) replay: Option<String>,
    /// Unix milliseconds at which it became a dead letter.
    pub(super) died_ms: Option<u64>,
    /// Streams that are too long to look at whole.
    pub(super) cut: Vec<&'static str>,
}

impl Wanted {
    fn is(&self, origin: &str, envelope: &[u8]) -> bool {
        if let Some(wanted) = self.origin {
            return wanted.entry() == origin;
        }
        let Some((source, id)) = &self.name else { return false };
        let message: Option<Message<'_>> = serde_json::from_slice(envelope).ok();
        message.is_some_and(|message| message.source == *source && message.external_message_id == *id)
    }

    /// Nothing of it can be in a stream before it was accepted.
    fn first(&self) -> String {
        self.origin.map_or("-".to_owned(), |origin| origin.ms.to_string())
    }
}

/// Looks for a message everywhere in its partition.
pub(super) async fn follow(queue: &Queue, wanted: &Wanted) -> Result<Trail, QueueError> {
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
                let since = output::time(output::now_ms().saturating_sub(idle.as_millis() as u64));
                Sighting::Processing { stream: name, entry, worker, since, deliveries }
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
            let (attempts, due) = (waiting.journey.attempts, output::time(waiting.due_ms));
            self.sightings.push(Sighting::RetryLater { attempts, due });
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
        let place = format!("{}/{}", letter.partition, letter.entry);
        let since = output::time(letter.died_ms());
        let DeadLetter { class, code, error, journey, .. } = letter;
        self.read_journey(journey);
        self.sightings.push(match shelf {
            Shelf::Dead => Sighting::Dead { place, since, class, code, error },
            Shelf::Parked => Sighting::Parked { place, since, class, error },
        });
    }

    fn read_journey(&mut self, journey: Journey) {
        self.attempts = journey.attempts;
        self.log = journey.log;
    }

    fn read_envelope(&mut self, envelope: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(envelope) else { return };
        self.name = Some((message.source.into_owned(), message.external_message_id.into_owned()));
        let trace = message.traceparent.parse::<TraceParent>().ok();
        self.trace = trace.map(|trace| trace.trace());
    }
}

/// How many entries of a stream the workers read before this one, and whether there are more than that.
async fn before(queue: &Queue, stream: &str, id: &str) -> Result<(u64, bool), QueueError> {
    let last = flight::last_delivered(queue, stream).await?;
    let found = queue.range(stream, &format!("({}-{}", last.0, last.1), &format!("({id}"), BEFORE + 1).await?;
    Ok(((found.len() as u64).min(BEFORE), found.len() as u64 > BEFORE))
}

impl std::fmt::Display for Sighting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sighting::Waiting { stream, entry, before, more } => {
                let more = if *more { "more than " } else { "" };
                write!(f, "waiting in {stream} as entry {entry}, {more}{before} before it")
            }
            Sighting::Processing { stream, entry, worker, since, deliveries } => {
                write!(
                    f,
                    "being processed by {worker} since {since} (entry {entry} of {stream}, delivery {deliveries})"
                )
            }
            Sighting::RetryLater { attempts, due } => write!(f, "waiting for retry {attempts} until {due}"),
            Sighting::Parked { place, since, class, error } => {
                write!(f, "parked at {place} since {since}: {class} {error}")
            }
            Sighting::Dead { place, since, class, code, error } => {
                write!(f, "dead letter {place} since {since}: {class} {code} {error}")
            }
        }
    }
}
