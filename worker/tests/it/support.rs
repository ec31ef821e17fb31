//! One builder: a queue, a database, and workers in this process.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use weir_core::config::{DatabaseConfig, Reader};
use weir_core::dead_letter::DeadLetter;
use weir_core::message::Message;
use weir_core::profile_cache::{ProfileCache, ProfileCacheConfig};
use weir_core::queue::balance::Balance;
use weir_core::queue::enqueue::{Bounds, EnqueueError, Enqueued, Enqueuer, NewEntry};
use weir_core::queue::letters::Shelf;
use weir_core::queue::{Queue, Roots};
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_stack::testing::{TestRedis, eventually, postgres, redis_with, unique_name};
use weir_store::{Store, StoreOptions, testing};
use weir_worker::WorkerConfig;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A queue and a database of one test.
pub(crate) struct World {
    pub(crate) redis: TestRedis,
    pub(crate) queue: Queue,
    pub(crate) database: String,
}

/// A worker that runs in this process.
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) stop: Shutdown,
    task: JoinHandle<()>,
}

impl Running {
    /// Asks it to stop and waits for it.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the worker does not panic");
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let server = postgres().await;
        let database = testing::migrated_database(|name| server.url(name), &unique_name()).await.expect("a database");
        Self::with_database(database, &[]).await
    }

    /// A world with a database of the caller's, and settings for Redis.
    pub(crate) async fn with_database(database: String, settings: &[(&str, &str)]) -> Self {
        let redis = redis_with(settings).await;
        let queue = Queue::new(&SecretUrl::new(redis.url()), 2).expect("a URL");
        queue.prepare().await.expect("a queue");
        Self { redis, queue, database }
    }

    /// The settings of a quick worker.
    pub(crate) fn config() -> WorkerConfig {
        let mut reader = Reader::new(BTreeMap::new(), BTreeMap::new(), Path::new("/nonexistent"), false);
        let database = DatabaseConfig::read(&mut reader);
        let config = WorkerConfig::read(&mut reader, database);
        WorkerConfig { lease: Duration::from_millis(1500), drain: Duration::from_secs(5), ..config }
    }

    pub(crate) fn start(&self) -> Running {
        self.start_with(Self::config())
    }

    pub(crate) fn start_with(&self, config: WorkerConfig) -> Running {
        self.start_on(config, &self.database)
    }

    /// A worker whose PostgreSQL is at `url`.
    pub(crate) fn start_on(&self, config: WorkerConfig, url: &str) -> Running {
        let options = StoreOptions {
            statement_timeout: config.database.statement_timeout,
            acquire_timeout: Duration::from_secs(2),
            lock_timeout: Duration::from_secs(60),
            ..StoreOptions::new(url.to_owned().into())
        };
        self.start_store(config, &options)
    }

    /// A worker that reaches PostgreSQL in a way of the caller's.
    pub(crate) fn start_store(&self, config: WorkerConfig, options: &StoreOptions) -> Running {
        let store = Store::connect_lazy(options).expect("a URL");
        let worker = weir_worker::build(config, &self.queue, store).with_profile_cache(Some(self.profile_cache()));
        let (name, stop) = (worker.name().to_owned(), Shutdown::new());
        let task = tokio::spawn(worker.run(stop.clone()));
        Running { name, stop, task }
    }

    /// The cache of profiles, beside the queue.
    pub(crate) fn profile_cache(&self) -> ProfileCache {
        let url = SecretUrl::new(self.redis.url());
        ProfileCache::new(&url, Roots::default(), ProfileCacheConfig::default()).expect("a cache")
    }

    /// Appends messages, as a gateway does.
    pub(crate) async fn accept(&self, messages: &[Message<'_>]) -> Vec<Result<Enqueued, EnqueueError>> {
        let entries: Vec<_> = messages.iter().map(entry).collect();
        Enqueuer::new(self.queue.clone(), bounds()).enqueue(&entries).await
    }

    /// Appends messages that must be new.
    pub(crate) async fn accept_new(&self, messages: &[Message<'_>]) {
        for result in self.accept(messages).await {
            assert!(matches!(result, Ok(Enqueued::New(_))), "{result:?}");
        }
    }

    pub(crate) async fn balance(&self) -> Balance {
        self.queue.balance().await.expect("a balance")
    }

    /// Waits until nothing is in flight; the balance must hold.
    pub(crate) async fn drained(&self) -> Balance {
        eventually("everything is settled", PATIENCE, async || {
            self.queue.balance().await.is_ok_and(|balance| balance.in_flight() == 0)
        })
        .await;
        let balance = self.balance().await;
        assert_eq!((balance.drift(), balance.lost), (0, 0), "{balance:?}");
        balance
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        testing::number(&self.database, sql).await.expect("a number")
    }

    /// Waits until the worker says that it is paused for a reason that contains `reason`.
    pub(crate) async fn paused(&self, worker: &Running, reason: &str) {
        let mut ask = redis::cmd("HGET");
        ask.arg(weir_core::queue::keys::worker(&worker.name)).arg("state");
        eventually(&format!("the worker waits: {reason}"), PATIENCE, async || {
            let state: Result<Option<String>, _> = self.queue.command(&ask).await;
            state.is_ok_and(|state| state.is_some_and(|state| state.starts_with("paused") && state.contains(reason)))
        })
        .await;
    }

    /// Nobody's entries were taken over, nothing was tried again, nothing is dead.
    pub(crate) async fn nobody_was_blamed(&self) {
        let balance = self.balance().await;
        assert_eq!((balance.retried, balance.dead_total, balance.suspect), (0, 0, 0), "{balance:?}");
        for partition in 0..self.queue.partitions() {
            let mut ask = redis::cmd("XINFO");
            ask.arg("STREAM").arg(&self.queue.keys(partition).suspect);
            let info: HashMap<String, redis::Value> = self.queue.command(&ask).await.expect("the stream is there");
            assert_eq!(info["entries-added"], redis::Value::Int(0), "entries were taken over");
        }
    }

    pub(crate) async fn rows(&self) -> i64 {
        self.number("SELECT count(*) FROM messages").await
    }

    /// All letters of a shelf.
    pub(crate) async fn letters(&self, shelf: Shelf) -> Vec<DeadLetter> {
        let mut all = Vec::new();
        for partition in 0..self.queue.partitions() {
            all.extend(self.queue.letters(partition, shelf, "-", 10_000).await.expect("letters"));
        }
        all
    }

    /// Forgets every id, as the end of the dedupe window does.
    pub(crate) async fn forget_ids(&self) {
        let found: Vec<String> = self.queue.command(redis::cmd("KEYS").arg("weir:*:seen:*")).await.expect("keys");
        for key in found {
            self.queue.command::<i64>(redis::cmd("DEL").arg(key)).await.expect("deleted");
        }
    }
}

pub(crate) fn bounds() -> Bounds {
    Bounds { backlog: 1_000_000, window: Duration::from_secs(3600), remembered: 1_000_000, replicas: None }
}

pub(crate) fn entry(message: &Message<'_>) -> NewEntry {
    message.into()
}

/// A message whose id and client say its number.
pub(crate) fn message(number: usize) -> Message<'static> {
    Message {
        source: "messenger".into(),
        external_message_id: format!("m{number}").into(),
        external_client_id: format!("c{}", number % 50).into(),
        client_phone: format!("+7919{:07}", number % 50).into(),
        message_text: format!("text {number}").into(),
        send_at: 1_640_995_200 + number as i64,
        extra: None,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
    }
}

pub(crate) fn messages(numbers: std::ops::Range<usize>) -> Vec<Message<'static>> {
    numbers.map(message).collect()
}
