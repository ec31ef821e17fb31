//! Whether all that was accepted has arrived: as a row, or as a dead letter.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use serde::Serialize;
use uuid::Uuid;
use weir_core::message::MessageKey;
use weir_core::queue::Queue;
use weir_core::queue::letters::Shelf;
use weir_store::Store;

use super::tally::Tally;
use super::traffic::Traffic;
use crate::context::Context as Surroundings;

/// Keys in one question to PostgreSQL.
const CHUNK: usize = 5000;
/// Dead letters read at once.
const PAGE: u64 = 500;
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Arrival {
    /// `rows`: every message was looked for. `balance`: PostgreSQL could not be asked, the queue's balance was. `none`:
    /// nothing could be asked, or nobody wanted to.
    pub(super) checked_by: &'static str,
    /// Why not by rows.
    pub(super) reason: Option<String>,
    /// Messages that are rows.
    pub(super) stored: u64,
    /// Messages that are dead letters.
    pub(super) dead: u64,
    /// Messages that were accepted and are neither.
    pub(super) missing: u64,
    /// The external ids of the first of them.
    pub(super) missing_ids: Vec<String>,
}

impl Arrival {
    /// Nothing is missing, as far as that was asked.
    pub(super) fn is_good(&self) -> bool {
        self.missing == 0
    }

    pub(super) fn unchecked(reason: impl Into<String>) -> Self {
        Self { checked_by: "none", reason: Some(reason.into()), ..Self::default() }
    }
}

/// Waits until everything has arrived, or until nothing more arrives for as long as `patience`.
pub(super) async fn check(
    context: &Surroundings,
    traffic: &Traffic,
    tally: &Tally,
    patience: Duration,
) -> Result<Arrival> {
    let queue = context.queue();
    match (context.store().await, queue) {
        (Ok(store), queue) => Search::new(traffic, tally, store, queue.ok()).run(patience).await,
        (Err(error), Ok(queue)) => by_balance(&queue, &format!("{error:#}"), patience).await,
        (Err(error), Err(_)) => {
            Ok(Arrival { missing: distinct(tally).len() as u64, ..Arrival::unchecked(format!("{error:#}")) })
        }
    }
}

/// The keys of the messages that are safe, each once, with a number that makes the message again.
fn distinct(tally: &Tally) -> HashMap<MessageKey, u64> {
    tally.safe.iter().map(|(number, key)| (*key, *number)).collect()
}

/// Looks for every message.
struct Search<'a> {
    traffic: &'a Traffic,
    store: Store,
    queue: Option<Queue>,
    missing: HashMap<MessageKey, u64>,
    /// Where to go on reading dead letters, by partition.
    read_to: Vec<String>,
    arrival: Arrival,
}

impl<'a> Search<'a> {
    fn new(traffic: &'a Traffic, tally: &Tally, store: Store, queue: Option<Queue>) -> Self {
        // A message dies after it was accepted. Repeats of an earlier run were accepted before: then all letters count.
        let from = if tally.duplicates == 0 { tally.first_ms.unwrap_or_default() } else { 0 };
        let partitions = queue.as_ref().map_or(0, Queue::partitions);
        Self {
            traffic,
            store,
            missing: distinct(tally),
            read_to: (0..partitions).map(|_| format!("{from}-0")).collect(),
            queue,
            arrival: Arrival { checked_by: "rows", ..Arrival::default() },
        }
    }

    async fn run(mut self, patience: Duration) -> Result<Arrival> {
        let progress = super::bar(self.missing.len() as u64, "arrived");
        let mut quiet_since = Instant::now();
        loop {
            let before = self.missing.len();
            self.look_for_rows().await?;
            self.look_for_letters().await?;
            progress.inc((before - self.missing.len()) as u64);
            if self.missing.len() < before {
                quiet_since = Instant::now();
            }
            if self.missing.is_empty() || quiet_since.elapsed() >= patience {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        progress.finish_and_clear();
        Ok(self.finish())
    }

    async fn look_for_rows(&mut self) -> Result<()> {
        let keys: Vec<Uuid> = self.missing.keys().map(|key| Uuid::from_bytes(key.0)).collect();
        for chunk in keys.chunks(CHUNK) {
            for key in self.store.find_keys(chunk).await.context("the rows cannot be looked for")? {
                self.missing.remove(&MessageKey(*key.as_bytes()));
                self.arrival.stored += 1;
            }
        }
        Ok(())
    }

    async fn look_for_letters(&mut self) -> Result<()> {
        let Some(queue) = &self.queue else { return Ok(()) };
        for partition in 0..queue.partitions() {
            let from = &mut self.read_to[usize::from(partition)];
            loop {
                let letters = queue.letters(partition, Shelf::Dead, from, PAGE).await?;
                for letter in &letters {
                    let key = MessageKey::new(&letter.source, &letter.external_message_id);
                    self.arrival.dead += u64::from(self.missing.remove(&key).is_some());
                }
                let Some(last) = letters.last() else { break };
                *from = format!("({}", last.entry);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Arrival {
        let mut numbers: Vec<u64> = self.missing.into_values().collect();
        numbers.sort_unstable();
        self.arrival.missing = numbers.len() as u64;
        let id = |number: &u64| self.traffic.sample(*number).external_message_id;
        self.arrival.missing_ids = numbers.iter().take(10).map(id).collect();
        self.arrival
    }
}

/// Waits until the queue is empty. Says less: only that everything which was accepted is a row, a repeat or dead.
async fn by_balance(queue: &Queue, reason: &str, patience: Duration) -> Result<Arrival> {
    let progress = ProgressBar::new_spinner().with_message("waiting for the queue to empty");
    progress.enable_steady_tick(LOOK);
    let (mut least, mut quiet_since) = (u64::MAX, Instant::now());
    let balance = loop {
        let balance = queue.balance().await?;
        if balance.backlog() < least {
            (least, quiet_since) = (balance.backlog(), Instant::now());
        }
        if least == 0 || quiet_since.elapsed() >= patience {
            break balance;
        }
        tokio::time::sleep(LOOK).await;
    };
    progress.finish_and_clear();
    Ok(Arrival {
        checked_by: "balance",
        reason: Some(reason.to_owned()),
        stored: balance.stored,
        dead: balance.dead,
        missing: balance.backlog(),
        missing_ids: Vec::new(),
    })
}
