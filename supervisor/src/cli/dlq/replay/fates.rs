//! Finds out what became of replayed letters.
//!
//! PostgreSQL says which are stored; the dead and parked streams say which failed again. What left the queue without
//! either was found to be there already, when its key was there before, or else is processed as far as anyone can tell.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use serde::Serialize;
use uuid::Uuid;
use weir_core::dead_letter::DeadLetter;
use weir_core::queue::entry_id::{self, EntryId};
use weir_core::queue::flight::{self, Retries};
use weir_core::queue::letters::Shelf;
use weir_core::queue::{Queue, QueueError};
use weir_store::Store;

use crate::output;

/// Letters looked at in one look, the ones that were replayed first.
const LOOK: usize = 5000;

/// Keys asked for in one query.
const KEYS: usize = 1000;

/// Letters in a page.
const PAGE: u64 = 200;

/// How many letters had which fate.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Counts {
    /// A row now.
    pub(super) stored: u64,
    /// Stored before the replay.
    pub(super) there_already: u64,
    /// Dead or parked again.
    pub(super) failed_again: u64,
    /// Left the queue without dying; whether they are stored could not be seen.
    pub(super) processed: u64,
}

impl Counts {
    pub(super) fn known(&self) -> u64 {
        self.stored + self.there_already + self.failed_again + self.processed
    }

    /// What was added since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            stored: self.stored - earlier.stored,
            there_already: self.there_already - earlier.there_already,
            failed_again: self.failed_again - earlier.failed_again,
            processed: self.processed - earlier.processed,
        }
    }
}

enum Fate {
    Stored,
    ThereAlready,
    FailedAgain,
    Processed,
}

/// A replayed letter whose fate is not known.
struct Tracked {
    partition: u16,
    origin: String,
    retry: EntryId,
    key: Option<Uuid>,
    /// Its key was stored before it was replayed.
    was_stored: bool,
    /// It was nowhere in the queue when last looked for.
    was_absent: bool,
}

/// Watches replayed letters.
pub(super) struct Fates {
    queue: Queue,
    store: Option<Store>,
    /// In the order of their replay.
    tracked: BTreeMap<u64, Tracked>,
    by_origin: HashMap<(u16, String), u64>,
    next: u64,
    /// Up to where the dead and the parked letters of each partition were read.
    read: Vec<[String; 2]>,
    pub(super) counts: Counts,
}

const SHELVES: [Shelf; 2] = [Shelf::Dead, Shelf::Parked];

impl Fates {
    /// Watches what dies from now on.
    pub(super) async fn new(queue: Queue, store: Option<Store>) -> Result<Self> {
        let mut read = Vec::new();
        for partition in 0..queue.partitions() {
            let mut ends = [const { String::new() }; 2];
            for (end, shelf) in ends.iter_mut().zip(SHELVES) {
                let newest = queue.letters_back(partition, shelf, "+", "-", 1).await?;
                *end = newest.into_iter().next().map_or("0-0".to_owned(), |letter| letter.entry);
            }
            read.push(ends);
        }
        let (tracked, by_origin) = (BTreeMap::new(), HashMap::new());
        Ok(Self { queue, store, tracked, by_origin, next: 0, read, counts: Counts::default() })
    }

    /// Letters whose fate is not known.
    pub(super) fn under_way(&self) -> u64 {
        self.tracked.len() as u64
    }

    /// Whether PostgreSQL says what was stored.
    pub(super) fn knows_rows(&self) -> bool {
        self.store.is_some()
    }

    /// Which of the letters are stored, before they are replayed.
    pub(super) async fn stored_before(&mut self, letters: &[DeadLetter]) -> HashSet<Uuid> {
        let keys: Vec<_> = letters.iter().filter_map(key).collect();
        self.find_keys(&keys).await
    }

    /// Watches a letter that was moved to entry `retry` of the retry stream.
    pub(super) fn track(&mut self, letter: &DeadLetter, retry: &str, before: &HashSet<Uuid>) {
        let key = key(letter);
        // An entry without an origin gets its own id for one when it is replayed.
        let origin = if letter.origin.is_empty() { letter.entry.clone() } else { letter.origin.clone() };
        self.by_origin.insert((letter.partition, origin.clone()), self.next);
        let was_stored = key.is_some_and(|key| before.contains(&key));
        let retry = entry_id::of(retry);
        let tracked = Tracked { partition: letter.partition, origin, retry, key, was_stored, was_absent: false };
        self.tracked.insert(self.next, tracked);
        self.next += 1;
    }

    /// Looks once.
    pub(super) async fn look(&mut self) -> Result<(), QueueError> {
        self.look_for_failed().await?;
        self.look_for_rows().await;
        self.look_for_absent().await
    }

    fn resolve(&mut self, number: u64, fate: Fate) {
        let Some(tracked) = self.tracked.remove(&number) else { return };
        self.by_origin.remove(&(tracked.partition, tracked.origin));
        *(match fate {
            Fate::Stored => &mut self.counts.stored,
            Fate::ThereAlready => &mut self.counts.there_already,
            Fate::FailedAgain => &mut self.counts.failed_again,
            Fate::Processed => &mut self.counts.processed,
        }) += 1;
    }

    /// Reads the letters that died since the last look.
    async fn look_for_failed(&mut self) -> Result<(), QueueError> {
        for partition in 0..self.queue.partitions() {
            for (at, shelf) in SHELVES.into_iter().enumerate() {
                loop {
                    let end = &mut self.read[usize::from(partition)][at];
                    let page = self.queue.letters(partition, shelf, &format!("({end}"), PAGE).await?;
                    let Some(last) = page.last() else { break };
                    end.clone_from(&last.entry);
                    for letter in page {
                        if let Some(number) = self.by_origin.get(&(partition, letter.origin)) {
                            self.resolve(*number, Fate::FailedAgain);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn look_for_rows(&mut self) {
        let new = self.tracked.iter().take(LOOK).filter(|(_, tracked)| !tracked.was_stored);
        let asked: Vec<_> = new.filter_map(|(number, tracked)| Some((*number, tracked.key?))).collect();
        let found = self.find_keys(&asked.iter().map(|(_, key)| *key).collect::<Vec<_>>()).await;
        for (number, key) in asked {
            if found.contains(&key) {
                self.resolve(number, Fate::Stored);
            }
        }
    }

    /// What left the queue without having died. It must be absent twice: an entry that moves can be overlooked once.
    async fn look_for_absent(&mut self) -> Result<(), QueueError> {
        let mut by_partition: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        for (number, tracked) in self.tracked.iter().take(LOOK) {
            by_partition.entry(tracked.partition).or_default().push(*number);
        }
        for (partition, numbers) in by_partition {
            let retries = Retries::read(&self.queue, partition).await?;
            let left: Vec<_> = numbers.into_iter().filter(|at| retries.has_left(self.tracked[at].retry)).collect();
            if left.is_empty() {
                continue;
            }
            let Some(origins) = flight::origins(&self.queue, partition).await? else { continue };
            for number in left {
                self.note_absence(number, &origins);
            }
        }
        Ok(())
    }

    fn note_absence(&mut self, number: u64, in_flight: &HashSet<String>) {
        let Some(tracked) = self.tracked.get_mut(&number) else { return };
        let is_absent = !in_flight.contains(&tracked.origin);
        if is_absent && tracked.was_absent {
            let fate = if tracked.was_stored { Fate::ThereAlready } else { Fate::Processed };
            self.resolve(number, fate);
        } else {
            tracked.was_absent = is_absent;
        }
    }

    /// Which keys are stored. When PostgreSQL fails, the replay goes on without it.
    async fn find_keys(&mut self, keys: &[Uuid]) -> HashSet<Uuid> {
        let mut found = HashSet::new();
        for some in keys.chunks(KEYS) {
            let Some(store) = &self.store else { break };
            match store.find_keys(some).await {
                Ok(some) => found.extend(some),
                Err(error) => {
                    let error = output::escape(&error.to_string());
                    output::remark(format_args!("PostgreSQL fails, from here on fates come from Redis alone: {error}"));
                    self.store = None;
                }
            }
        }
        found
    }
}

fn key(letter: &DeadLetter) -> Option<Uuid> {
    Some(Uuid::from_bytes(letter.message()?.key().0))
}
