//! One Redis and one queue for one test.

use std::collections::HashMap;
use std::time::Duration;

use redis::FromRedisValue;
use weir_core::dead_letter::{DeadLetter, class};
use weir_core::journey::{Attempt, Journey};
use weir_core::message::{ENTRY_VERSION, Fingerprint, MessageId, MessageKey};
use weir_core::queue::Queue;
use weir_core::queue::balance::Balance;
use weir_core::queue::consume::{Entry, Lane, Target};
use weir_core::queue::enqueue::{Bounds, EnqueueError, Enqueued, Enqueuer, NewEntry};
use weir_core::secret::SecretUrl;
use weir_stack::testing::{TestRedis, redis, redis_with};

pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// Long enough for anything that happens at all on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Long enough for a failover on a busy machine.
pub(crate) const LATER: Duration = Duration::from_secs(60);

pub(crate) const BOUNDS: Bounds =
    Bounds { backlog: 1_000_000, window: Duration::from_secs(3600), remembered: 1_000_000, replicas: None };

pub(crate) struct Place {
    pub(crate) redis: TestRedis,
    pub(crate) queue: Queue,
}

impl Place {
    /// A queue of one partition.
    pub(crate) async fn new() -> Self {
        Self::with_partitions(1).await
    }

    pub(crate) async fn with_partitions(partitions: u16) -> Self {
        Self::on(redis().await, partitions).await
    }

    pub(crate) async fn with_settings(settings: &[(&str, &str)]) -> Self {
        Self::on(redis_with(settings).await, 1).await
    }

    pub(crate) async fn on(redis: TestRedis, partitions: u16) -> Self {
        let queue = Queue::new(&SecretUrl::new(redis.url()), partitions).unwrap();
        queue.prepare().await.unwrap();
        Self { redis, queue }
    }

    /// The same queue as another process sees it.
    pub(crate) fn elsewhere(&self) -> Queue {
        Queue::new(&SecretUrl::new(self.redis.url()), self.queue.partitions()).unwrap()
    }

    pub(crate) fn enqueuer(&self) -> Enqueuer {
        self.enqueuer_with(BOUNDS)
    }

    pub(crate) fn enqueuer_with(&self, bounds: Bounds) -> Enqueuer {
        Enqueuer::new(self.queue.on_own_link(Duration::from_secs(5)), bounds)
    }

    /// Appends `n` new messages and gives their entry ids.
    pub(crate) async fn fill(&self, n: usize) -> Vec<String> {
        let start: u64 = rand::random();
        let entries: Vec<_> = (0..n).map(|i| message(&format!("{start}-{i}"), "text")).collect();
        self.enqueuer().enqueue(&entries).await.into_iter().map(|result| new_id(&result).entry()).collect()
    }

    /// A worker with a lease.
    pub(crate) async fn join(&self, name: &str) {
        self.queue.join(0, LEASE, &[name.to_owned()]).await.unwrap();
    }

    pub(crate) async fn read(&self, lane: Lane, name: &str, count: usize) -> Vec<Entry> {
        self.queue.read_new(0, lane, name, count, Duration::from_millis(1)).await.unwrap()
    }

    pub(crate) async fn settle(&self, lane: Lane, name: &str, stored: &[&str]) {
        self.queue.settle(0, lane, name, stored, &[]).await.unwrap();
    }

    pub(crate) async fn move_to(&self, name: &str, entry: &Entry, target: Target) {
        self.queue.move_entries(0, entry.lane, name, &[(entry, target)]).await.unwrap();
    }

    /// Appends a message, reads it and gives it up; gives the letter's id.
    pub(crate) async fn make_dead(&self, name: &str, n: usize) -> Vec<String> {
        self.fill(n).await;
        for entry in self.read(Lane::Ingest, name, n).await {
            self.move_to(name, &entry, dead(&entry)).await;
        }
        let letters = self.queue.letters(0, weir_core::queue::letters::Shelf::Dead, "-", 10_000).await.unwrap();
        letters.into_iter().map(|letter| letter.entry).collect()
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        self.queue.command(&cmd).await.unwrap()
    }

    pub(crate) async fn info(&self, section: &str, name: &str) -> u64 {
        let text: String = self.ask(&["INFO", section]).await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).expect("a line of INFO");
        line.trim().parse().unwrap()
    }

    pub(crate) async fn length(&self, stream: &str) -> u64 {
        self.ask(&["XLEN", stream]).await
    }

    /// All keys of the dedupe memory.
    pub(crate) async fn buckets(&self) -> Vec<String> {
        self.ask(&["KEYS", "weir:{*}:seen:[0-9]*"]).await
    }

    /// The balance, which must not have drifted.
    pub(crate) async fn balance(&self) -> Balance {
        let balance = self.queue.balance().await.unwrap();
        assert_eq!(balance.drift(), 0, "{balance:?}");
        balance
    }

    /// The group's lag as `XINFO` says it.
    pub(crate) async fn lag(&self, stream: &str) -> Option<u64> {
        let groups: Vec<HashMap<String, redis::Value>> = self.ask(&["XINFO", "GROUPS", stream]).await;
        redis::from_redis_value(groups[0]["lag"].clone()).unwrap()
    }

    pub(crate) async fn set(&self, setting: &str, value: &str) {
        let () = self.ask(&["CONFIG", "SET", setting, value]).await;
    }

    /// No new memory from now on: what is in use is more than what may be.
    pub(crate) async fn exhaust_memory(&self) {
        self.set("maxmemory", "1mb").await;
    }
}

/// A message of source `s`; its content is its text.
pub(crate) fn message(id: &str, text: &str) -> NewEntry {
    let mut fingerprint = [0; 7];
    for (at, byte) in text.bytes().enumerate() {
        fingerprint[at % 7] ^= byte.rotate_left(at as u32 / 7);
    }
    let envelope = format!(r#"{{"src":"s","id":"{id}","client":"c","phone":"+7","text":"{text}","sent":1}}"#);
    NewEntry {
        version: ENTRY_VERSION,
        key: MessageKey::new("s", id),
        fingerprint: Fingerprint(fingerprint),
        envelope: envelope.into_bytes(),
    }
}

pub(crate) fn new_id(result: &Result<Enqueued, EnqueueError>) -> MessageId {
    match result {
        Ok(Enqueued::New(id)) => *id,
        other => panic!("not new: {other:?}"),
    }
}

/// Panics unless it is new.
pub(crate) fn accepted(result: &Result<Enqueued, EnqueueError>) {
    new_id(result);
}

pub(crate) fn journey(attempts: u32) -> Journey {
    let mut journey = Journey::default();
    for at_ms in 1..=u64::from(attempts) {
        journey.failed(Attempt { at_ms, worker: "w".into(), class: class::DECODE.into(), error: "a\nb".into() });
    }
    journey
}

/// To the dead letters, with all that the entry carries.
pub(crate) fn dead(entry: &Entry) -> Target {
    Target::Dead(Box::new(letter(entry)))
}

pub(crate) fn letter(entry: &Entry) -> DeadLetter {
    DeadLetter {
        version: entry.version.clone(),
        envelope: entry.envelope.clone().unwrap_or_default(),
        journey: entry.journey.clone(),
        origin: entry.origin.clone(),
        crashes: entry.crashes,
        class: class::DECODE.into(),
        error: "no message".into(),
        replay: entry.replay.clone(),
        ..DeadLetter::default()
    }
}

pub(crate) fn retry(delay: Duration) -> Target {
    Target::Retry { journey: journey(1), delay }
}

pub(crate) fn ids(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.id.as_str()).collect()
}
