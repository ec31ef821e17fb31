//! One lane of one partition: read entries, have them stored, settle or move each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, sleep_until};
use weir_core::dead_letter::class;
use weir_core::journey::Attempt;
use weir_core::message::MessageId;
use weir_core::planted::{self, Planted};
use weir_core::queue::consume::{Entry, Lane, Target};
use weir_core::queue::{Queue, QueueError};
use weir_core::shutdown::Shutdown;
use weir_store::NewEvent;

use crate::decode::{Decoded, decode, letter};
use crate::fate::{Failure, Fate, decide};
use crate::persist::{Interrupted, Outcome, store};
use crate::state::State;

/// How long a read waits for the first entry.
const BLOCK: Duration = Duration::from_secs(1);

/// Fewer entries than that in a batch are no steady stream: they are not made to wait for company.
const STREAM: usize = 16;

/// Suspects at once, of those that have not been in suspect at a death. One by one, what a worker held when it died
/// would take half a minute.
const SUSPECTS: usize = 100;

/// Pause after Redis failed.
const PAUSE: Duration = Duration::from_millis(200);

/// A lane that reads as one consumer.
pub(crate) struct LaneReader {
    pub(crate) state: Arc<State>,
    pub(crate) partition: u16,
    pub(crate) lane: Lane,
    pub(crate) consumer: String,
    /// For blocked reads: a connection of its own.
    pub(crate) reads: Queue,
    /// Ends reading.
    pub(crate) stop: Shutdown,
    /// Ends everything: the drain is over or the lease is lost.
    pub(crate) abort: Shutdown,
}

/// The right to process, while it is held.
enum Turn<'s> {
    Alone(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'s, ()>),
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'s, ()>),
}

/// Entries by what they turned out to be.
struct Sorted<'e> {
    /// The entries of `events`, in the same order.
    sources: Vec<&'e Entry>,
    events: Vec<NewEvent>,
    /// The others, and where they go.
    targets: Vec<(&'e Entry, Target)>,
}

/// Response timeout of connections for blocked reads.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(4);

impl LaneReader {
    /// Reads and processes until `stop`; a batch under way is finished unless `abort` comes.
    pub(crate) async fn run(self) {
        // What was delivered to us but never arrived is read again first, and after every trouble.
        let mut pending_first = false;
        while !self.stop.is_cancelled() {
            match self.stop.run_until_cancelled(self.step(pending_first)).await {
                None => break,
                Some(Ok(Some((entries, turn)))) => {
                    let next = self.pause_after(entries.len()).map(|pause| Instant::now() + pause);
                    if self.process(&entries, turn).await.is_err() {
                        return;
                    }
                    if let Some(next) = next {
                        self.stop.run_until_cancelled(sleep_until(next)).await;
                    }
                }
                Some(Ok(None)) => pending_first = false,
                Some(Err(error)) => {
                    self.after_error(&error).await;
                    pending_first = true;
                }
            }
        }
    }

    /// How long after so many entries the next ones are read at the earliest; at once if they are no steady stream.
    fn pause_after(&self, entries: usize) -> Option<Duration> {
        let gathers = self.lane != Lane::Suspect && (STREAM..self.state.config.batch / 2).contains(&entries);
        gathers.then_some(self.state.config.gather)
    }

    /// Reads entries; `None` when there are none. Suspects are read only once nothing else is under way: what is merely
    /// held at a death of this process would be blamed too.
    async fn step(&self, pending_first: bool) -> Result<Option<(Vec<Entry>, Option<Turn<'_>>)>, QueueError> {
        if self.lane != Lane::Suspect {
            let entries = self.read(pending_first, self.state.config.batch, BLOCK).await?;
            return Ok((!entries.is_empty()).then_some((entries, None)));
        }
        if !pending_first && self.reads.length(self.partition, self.lane).await? == 0 {
            tokio::time::sleep(PAUSE).await;
            return Ok(None);
        }
        let turn = self.take_turn().await;
        let entries = if pending_first {
            self.read(true, 1, Duration::ZERO).await?
        } else {
            self.reads.read_suspects(self.partition, &self.consumer, self.suspects_at_once()).await?
        };
        if entries.is_empty() {
            // Other workers have them: let the batches of this one go on meanwhile.
            drop(turn);
            tokio::time::sleep(PAUSE).await;
            return Ok(None);
        }
        Ok(Some((entries, Some(turn))))
    }

    /// A death among several suspects is held against all of them, which must not be enough to make one a dead letter.
    fn suspects_at_once(&self) -> usize {
        if self.state.config.crashes > 1 { SUSPECTS } else { 1 }
    }

    async fn read(&self, pending: bool, count: usize, block: Duration) -> Result<Vec<Entry>, QueueError> {
        if pending {
            self.reads.read_pending(self.partition, self.lane, &self.consumer, count).await
        } else {
            self.reads.read_new(self.partition, self.lane, &self.consumer, count, block).await
        }
    }

    async fn after_error(&self, error: &QueueError) {
        if error.is_missing_group() {
            tracing::warn!(partition = self.partition, "a consumer group was gone: made again from the first entry on");
            if let Err(error) = self.state.queue.prepare().await {
                tracing::warn!(%error, "the queue cannot be prepared");
            }
        }
        tracing::debug!(%error, partition = self.partition, lane = self.lane.name(), "read");
        self.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }

    /// From entries to outcomes to where each belongs.
    async fn process(&self, entries: &[Entry], turn: Option<Turn<'_>>) -> Result<(), Interrupted> {
        let held = Held::new(&self.state, entries.len());
        let turn = match turn {
            Some(turn) => turn,
            None => self.abort.run_until_cancelled(self.take_turn()).await.ok_or(Interrupted)?,
        };
        let Sorted { sources, events, mut targets } = self.sort(entries);
        if planted::is(Planted::AckBeforeCommit) {
            let ids: Vec<&str> = sources.iter().map(|entry| entry.id.as_str()).collect();
            self.settle(&ids, &[]).await?;
        }
        let outcomes = self.store(&events).await?;
        let (mut stored, mut duplicates) = (Vec::new(), Vec::new());
        let committed_ms = now_ms();
        for ((entry, event), outcome) in sources.into_iter().zip(&events).zip(outcomes) {
            match outcome {
                Outcome::Stored => {
                    tracing::debug!(trace = trace(event), message_id = %self.message_id(entry), "stored");
                    self.record_latency(event, committed_ms);
                    stored.push(entry.id.as_str());
                }
                Outcome::Duplicate => duplicates.push(entry.id.as_str()),
                Outcome::Failed(failure) => targets.push((entry, self.judge(entry, &failure))),
            }
        }
        self.state.metrics.stored.increment(stored.len() as u64);
        self.state.metrics.duplicates.increment(duplicates.len() as u64);
        self.settle(&stored, &duplicates).await?;
        self.move_all(&targets).await?;
        drop(turn);
        drop(held);
        Ok(())
    }

    /// Waits until this lane may process: a suspect alone, everything else beside each other.
    async fn take_turn(&self) -> Turn<'_> {
        match self.lane {
            Lane::Suspect => Turn::Alone(self.state.alone.write().await),
            Lane::Ingest | Lane::Retry => Turn::Shared(self.state.alone.read().await),
        }
    }

    /// Decodes entries, and decides about those that are no events.
    fn sort<'e>(&self, entries: &'e [Entry]) -> Sorted<'e> {
        let mut sorted = Sorted {
            sources: Vec::with_capacity(entries.len()),
            events: Vec::with_capacity(entries.len()),
            targets: Vec::new(),
        };
        for entry in entries {
            match decode(self.partition, entry, self.state.config.crashes) {
                Decoded::Event(event) => {
                    sorted.sources.push(entry);
                    sorted.events.push(*event);
                }
                Decoded::Foreign => {
                    let version: String = entry.version.chars().take(32).flat_map(char::escape_default).collect();
                    let error = format!("entry version {version} is not known to this worker");
                    tracing::warn!(message_id = %self.message_id(entry), version, "parked");
                    sorted.targets.push((entry, Target::Parked(Box::new(letter(entry, class::VERSION, "", error)))));
                }
                Decoded::Failed(failure) => sorted.targets.push((entry, self.judge(entry, &failure))),
            }
        }
        sorted
    }

    async fn store(&self, batch: &[NewEvent]) -> Result<Vec<Outcome>, Interrupted> {
        let permit = self.abort.run_until_cancelled(self.state.batches.acquire()).await.ok_or(Interrupted)?;
        let outcomes =
            self.abort.run_until_cancelled(store(&self.state, batch, &self.abort)).await.ok_or(Interrupted)?;
        drop(permit);
        outcomes
    }

    /// Where a failed entry goes.
    fn judge(&self, entry: &Entry, failure: &Failure) -> Target {
        let mut entry = entry.clone();
        entry.journey.failed(Attempt {
            at_ms: now_ms(),
            worker: self.consumer.clone(),
            class: failure.class().to_owned(),
            error: failure.text(),
        });
        let fate = decide(failure, entry.journey.attempts, &self.state.config.retry, rand::random());
        metrics::counter!("weir_worker_failures_total", "class" => failure.class()).increment(1);
        let letter = letter(&entry, failure.class(), failure.code(), failure.text());
        let (message_id, trace) = (self.message_id(&entry), letter.trace.clone());
        match fate {
            Fate::Retry(delay) => {
                tracing::warn!(%message_id, trace, class = failure.class(), error = failure.text(), ?delay, "will be tried again");
                Target::Retry { journey: entry.journey, delay }
            }
            Fate::Dead => {
                tracing::warn!(%message_id, trace, class = failure.class(), error = failure.text(), "dead letter");
                Target::Dead(Box::new(letter))
            }
        }
    }

    /// For the log. What is no id is not repeated there: it could be anything.
    fn message_id(&self, entry: &Entry) -> String {
        let id = MessageId::from_entry(self.partition, &entry.origin);
        id.map_or_else(|| format!("{}-?", self.partition), |id| id.to_string())
    }

    /// From the acceptance to the commit of an event that is stored now.
    fn record_latency(&self, event: &NewEvent, committed_ms: u64) {
        let accepted_ms = event.place.ms.max(0) as u64;
        self.state.metrics.commit_seconds.record(committed_ms.saturating_sub(accepted_ms) as f64 / 1000.0);
    }

    async fn settle(&self, stored: &[&str], duplicates: &[&str]) -> Result<(), Interrupted> {
        if stored.is_empty() && duplicates.is_empty() {
            return Ok(());
        }
        let queue = &self.state.queue;
        self.persistently(|| queue.settle(self.partition, self.lane, &self.consumer, stored, duplicates)).await?;
        self.state.stored.fetch_add(stored.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn move_all(&self, targets: &[(&Entry, Target)]) -> Result<(), Interrupted> {
        if targets.is_empty() {
            return Ok(());
        }
        let queue = &self.state.queue;
        self.persistently(|| queue.move_entries(self.partition, self.lane, &self.consumer, targets)).await
    }

    /// Repeats a call that may be repeated until Redis has answered; gives up when the lease is lost.
    async fn persistently<F: Future<Output = Result<(), QueueError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<(), Interrupted> {
        loop {
            match self.abort.run_until_cancelled(call()).await {
                None | Some(Err(QueueError::Fenced)) => return Err(Interrupted),
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => {
                    tracing::warn!(%error, "entries could not be settled yet");
                    self.abort.run_until_cancelled(tokio::time::sleep(PAUSE)).await.ok_or(Interrupted)?;
                }
            }
        }
    }
}

fn trace(event: &NewEvent) -> String {
    event.trace_id.map(|id| id.simple().to_string()).unwrap_or_default()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Counts entries in flight while they are held.
struct Held<'s> {
    state: &'s State,
    entries: usize,
}

impl<'s> Held<'s> {
    fn new(state: &'s State, entries: usize) -> Self {
        state.in_flight.fetch_add(entries, Ordering::Relaxed);
        Self { state, entries }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.state.in_flight.fetch_sub(self.entries, Ordering::Relaxed);
    }
}
