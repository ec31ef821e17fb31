//! Whatever happens, in whatever order: every accepted message is in exactly one place, and the balance says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::queue::consume::{Entry, Lane, Target};
use weir_core::queue::letters::{Author, Shelf};
use weir_stack::testing::eventually;

use crate::support::{Place, SOON, dead, letter, retry};

#[tokio::test]
async fn an_empty_queue_is_balanced() {
    let place = Place::with_partitions(3).await;
    let balance = place.balance().await;
    assert_eq!((balance.accepted, balance.in_flight(), balance.backlog(), balance.oldest_age_ms), (0, 0, 0, 0));
}

#[tokio::test]
async fn the_sum_is_over_all_partitions() {
    let place = Place::with_partitions(4).await;
    place.fill(100).await;
    let all = place.queue.balances().await.unwrap();
    assert!(all.len() == 4 && all.iter().all(|one| one.accepted > 0), "{all:?}");
    assert_eq!(place.balance().await.accepted, 100);
}

#[tokio::test]
async fn the_age_is_that_of_the_oldest_entry_that_is_not_settled() {
    let place = Place::new().await;
    place.join("w").await;
    let age = async || place.balance().await.oldest_age_ms;
    place.fill(1).await;
    eventually("it ages", SOON, async || age().await >= 60).await;
    place.fill(1).await;
    let old = place.read(Lane::Ingest, "w", 1).await;
    assert!(age().await >= 60, "being read makes nobody younger");
    let before = age().await;
    place.settle(Lane::Ingest, "w", &[&old[0].id]).await;
    assert!(age().await < before);
    let young = place.read(Lane::Ingest, "w", 1).await;
    place.settle(Lane::Ingest, "w", &[&young[0].id]).await;
    assert_eq!(age().await, 0);
}

/// One step of somebody; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Fill(usize),
    Read(usize, Lane, usize),
    Settle(usize, Lane, u8),
    /// Settles entries of a moment ago a second time.
    Repeat(usize, Lane),
    Retry(usize, Lane, u8),
    Dead(usize, Lane, u8),
    Parked(usize, Lane, u8),
    Due,
    Die(usize),
    Leave(usize),
    Replay(Shelf, u8),
    Purge(Shelf, u8),
    Amend,
}

fn step() -> impl Strategy<Value = Step> {
    let lane = || prop_oneof![4 => Just(Lane::Ingest), 2 => Just(Lane::Retry), 1 => Just(Lane::Suspect)];
    let shelf = || prop_oneof![Just(Shelf::Dead), Just(Shelf::Parked)];
    let worker = || 0..2_usize;
    prop_oneof![
        4 => (1..40_usize).prop_map(Step::Fill),
        6 => (worker(), lane(), 1..60_usize).prop_map(|(w, lane, n)| Step::Read(w, lane, n)),
        6 => (worker(), lane(), any::<u8>()).prop_map(|(w, lane, which)| Step::Settle(w, lane, which)),
        1 => (worker(), lane()).prop_map(|(w, lane)| Step::Repeat(w, lane)),
        2 => (worker(), lane(), any::<u8>()).prop_map(|(w, lane, which)| Step::Retry(w, lane, which)),
        2 => (worker(), lane(), any::<u8>()).prop_map(|(w, lane, which)| Step::Dead(w, lane, which)),
        1 => (worker(), lane(), any::<u8>()).prop_map(|(w, lane, which)| Step::Parked(w, lane, which)),
        2 => Just(Step::Due),
        1 => worker().prop_map(Step::Die),
        1 => worker().prop_map(Step::Leave),
        1 => (shelf(), any::<u8>()).prop_map(|(shelf, which)| Step::Replay(shelf, which)),
        1 => (shelf(), any::<u8>()).prop_map(|(shelf, which)| Step::Purge(shelf, which)),
        1 => Just(Step::Amend),
    ]
}

/// What ought to be the case.
#[derive(Default)]
struct Model {
    accepted: BTreeSet<String>,
    /// Origins that are done, by what became of them.
    stored: BTreeSet<String>,
    duplicate: BTreeSet<String>,
    purged: BTreeSet<String>,
    /// What each worker holds, by lane.
    held: BTreeMap<(String, &'static str), Vec<Entry>>,
    settled: Vec<Entry>,
    /// The workers' present names, and how many there were.
    names: Vec<String>,
    births: usize,
}

struct World {
    place: Place,
    model: Model,
}

impl World {
    async fn new() -> Self {
        let place = Place::new().await;
        place.join("reaper").await;
        let mut world = Self { place, model: Model::default() };
        for _ in 0..2 {
            let name = world.birth().await;
            world.model.names.push(name);
        }
        world
    }

    async fn birth(&mut self) -> String {
        self.model.births += 1;
        let name = format!("w{}", self.model.births);
        self.place.join(&name).await;
        name
    }

    /// Some of what a worker holds, taken out of its hands.
    fn take(&mut self, worker: usize, lane: Lane, which: u8) -> (String, Vec<Entry>) {
        let name = self.model.names[worker].clone();
        let held = self.model.held.entry((name.clone(), lane.name())).or_default();
        let mut at = 0;
        let chosen = held.extract_if(.., |_| {
            at += 1;
            (which >> (at % 8)) & 1 == 1
        });
        (name, chosen.collect())
    }

    async fn shift(&mut self, worker: usize, lane: Lane, which: u8, target: impl Fn(&Entry) -> Target) {
        let (name, entries) = self.take(worker, lane, which);
        let moves: Vec<_> = entries.iter().map(|entry| (entry, target(entry))).collect();
        self.place.queue.move_entries(0, lane, &name, &moves).await.unwrap();
    }

    async fn some_letters(&self, shelf: Shelf, which: u8) -> Vec<(String, String)> {
        let letters = self.place.queue.letters(0, shelf, "-", 1000).await.unwrap();
        let mut at = 0;
        let chosen = letters.into_iter().filter(|_| {
            at += 1;
            (which >> (at % 8)) & 1 == 1
        });
        chosen.map(|letter| (letter.entry, letter.origin)).collect()
    }

    async fn take_step(&mut self, step: Step) {
        let author = Author { who: "w".into(), why: "y".into() };
        let queue = self.place.queue.clone();
        match step {
            Step::Fill(n) => self.model.accepted.extend(self.place.fill(n).await),
            Step::Read(worker, lane, n) => {
                let name = self.model.names[worker].clone();
                let entries = self.place.read(lane, &name, n).await;
                self.model.held.entry((name, lane.name())).or_default().extend(entries);
            }
            Step::Settle(worker, lane, which) => {
                let (name, entries) = self.take(worker, lane, which);
                let (stored, duplicate) = entries.split_at(entries.len() / 2);
                let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>();
                let (stored_ids, duplicate_ids) = (ids(stored), ids(duplicate));
                let stored_ids: Vec<_> = stored_ids.iter().map(String::as_str).collect();
                let duplicate_ids: Vec<_> = duplicate_ids.iter().map(String::as_str).collect();
                queue.settle(0, lane, &name, &stored_ids, &duplicate_ids).await.unwrap();
                self.model.stored.extend(stored.iter().map(|entry| entry.origin.clone()));
                self.model.duplicate.extend(duplicate.iter().map(|entry| entry.origin.clone()));
                self.model.settled = entries;
            }
            Step::Repeat(worker, lane) => {
                let again: Vec<_> = self.model.settled.iter().filter(|entry| entry.lane == lane).collect();
                let ids: Vec<_> = again.iter().map(|entry| entry.id.as_str()).collect();
                queue.settle(0, lane, &self.model.names[worker], &ids, &[]).await.unwrap();
                let moves: Vec<_> = again.iter().map(|entry| (*entry, dead(entry))).collect();
                queue.move_entries(0, lane, &self.model.names[worker], &moves).await.unwrap();
            }
            Step::Retry(worker, lane, which) => self.shift(worker, lane, which, |_| retry(Duration::ZERO)).await,
            Step::Dead(worker, lane, which) => self.shift(worker, lane, which, dead).await,
            Step::Parked(worker, lane, which) => {
                self.shift(worker, lane, which, |entry| Target::Parked(Box::new(letter(entry)))).await;
            }
            Step::Due => drop(queue.bring_back_due(0, 30).await.unwrap()),
            Step::Die(worker) => {
                queue.declare_dead(0, &self.model.names[worker]).await.unwrap();
                while queue.reap(0, "reaper", false).await.unwrap().is_some() {}
                self.replace(worker).await;
            }
            Step::Leave(worker) => {
                queue.leave(0, &self.model.names[worker]).await.unwrap();
                self.replace(worker).await;
            }
            Step::Replay(shelf, which) => {
                let letters = self.some_letters(shelf, which).await;
                let ids: Vec<_> = letters.iter().map(|(id, _)| id.as_str()).collect();
                queue.replay(0, shelf, "r", &author, &ids).await.unwrap();
            }
            Step::Purge(shelf, which) => {
                let letters = self.some_letters(shelf, which).await;
                let ids: Vec<_> = letters.iter().map(|(id, _)| id.as_str()).collect();
                queue.purge(0, shelf, &author, &ids).await.unwrap();
                self.model.purged.extend(letters.into_iter().map(|(_, origin)| origin));
            }
            Step::Amend => {
                if let Some(letter) = queue.letters(0, Shelf::Dead, "-", 1).await.unwrap().first() {
                    queue.amend(0, &author, &letter.entry, b"edited").await.unwrap().unwrap();
                }
            }
        }
    }

    async fn replace(&mut self, worker: usize) {
        let old = std::mem::take(&mut self.model.names[worker]);
        self.model.held.retain(|(name, _), _| *name != old);
        self.model.names[worker] = self.birth().await;
    }

    /// Compares Redis with the model: every accepted message is in exactly one place.
    async fn check(&self) {
        let balance = self.place.balance().await;
        let model = &self.model;
        assert_eq!(balance.accepted, model.accepted.len() as u64);
        assert_eq!(balance.stored, model.stored.len() as u64);
        assert_eq!(balance.duplicate, model.duplicate.len() as u64);
        assert_eq!(balance.purged, model.purged.len() as u64);
        assert_eq!(balance.lost, 0);
        let mut places: Vec<String> = Vec::new();
        for done in [&model.stored, &model.duplicate, &model.purged] {
            places.extend(done.iter().cloned());
        }
        let held: u64 = model.held.values().map(|entries| entries.len() as u64).sum();
        let mut pending = 0;
        for stream in ["ingest", "retry", "suspect"] {
            let (origins, in_hands) = self.open(&format!("weir:{{0}}:{stream}")).await;
            places.extend(origins);
            pending += in_hands;
        }
        assert_eq!(pending, held, "pending entries all have their content");
        for shelf in [Shelf::Dead, Shelf::Parked] {
            let letters = self.place.queue.letters(0, shelf, "-", 10_000).await.unwrap();
            places.extend(letters.into_iter().map(|letter| letter.origin));
        }
        places.extend(self.place.queue.waiting(0, 10_000).await.unwrap().into_iter().map(|waiting| waiting.origin));
        let unique: BTreeSet<_> = places.iter().cloned().collect();
        assert_eq!(unique.len(), places.len(), "a message is in two places");
        assert_eq!(unique, model.accepted);
    }

    /// The origins of all entries of a stream that are pending or not delivered yet, and how many are pending.
    async fn open(&self, stream: &str) -> (Vec<String>, u64) {
        let groups: Vec<std::collections::HashMap<String, redis::Value>> =
            self.place.ask(&["XINFO", "GROUPS", stream]).await;
        let last: String = redis::from_redis_value(groups[0]["last-delivered-id"].clone()).unwrap();
        let pending: Vec<(String, String, u64, u64)> =
            self.place.ask(&["XPENDING", stream, "workers", "-", "+", "100000"]).await;
        let pending: BTreeSet<_> = pending.into_iter().map(|(id, ..)| id).collect();
        let entries = self.place.queue.range(stream, "-", "+", 100_000).await.unwrap();
        let new = self.place.queue.range(stream, &format!("({last}"), "+", 100_000).await.unwrap();
        let origin = |entry: &weir_core::queue::consume::StreamEntry| {
            entry.fields.get("o").map_or(entry.id.clone(), |origin| String::from_utf8(origin.clone()).unwrap())
        };
        let open = entries.iter().filter(|entry| pending.contains(&entry.id)).chain(&new);
        let in_hands = entries.iter().filter(|entry| pending.contains(&entry.id)).count() as u64;
        assert_eq!(in_hands, pending.len() as u64, "{stream}: something pending was trimmed");
        assert_eq!(self.place.lag(stream).await, Some(new.len() as u64), "{stream}: lag");
        (open.map(origin).collect(), in_hands)
    }
}

#[test]
fn every_accepted_message_is_in_exactly_one_place_after_every_step() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let steps = proptest::collection::vec(step(), 1..60);
    runner
        .run(&steps, |steps| {
            runtime.block_on(async {
                let mut world = World::new().await;
                for step in steps {
                    world.take_step(step).await;
                    world.check().await;
                }
            });
            Ok(())
        })
        .unwrap();
}
