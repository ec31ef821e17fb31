//! What the parts of one worker process share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use metrics::{Counter, Histogram};
use tokio::sync::{RwLock, Semaphore, watch};
use weir_core::ops::Health;
use weir_core::queue::Queue;
use weir_store::{DialogCache, Store};

use crate::config::WorkerConfig;
use crate::profiles::ChangedProfiles;

/// Shared by all lanes.
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) config: WorkerConfig,
    pub(crate) queue: Queue,
    pub(crate) store: Store,
    pub(crate) cache: DialogCache,
    pub(crate) changed_profiles: ChangedProfiles,
    /// Batches that PostgreSQL may work on at once.
    pub(crate) batches: Semaphore,
    /// Held for reading by every batch and for writing by a suspect: while one is processed nothing else is, so that a
    /// death of this process is that entry's and nobody else's.
    pub(crate) alone: RwLock<()>,
    /// Entries that were read and are not settled yet.
    pub(crate) in_flight: AtomicUsize,
    /// Entries settled as stored since the start.
    pub(crate) stored: AtomicU64,
    pub(crate) draining: AtomicBool,
    trouble: watch::Sender<Trouble>,
    pub(crate) metrics: Metrics,
}

/// What keeps the worker from its work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) redis: Option<String>,
    pub(crate) store: Option<String>,
}

/// The series that every batch touches, found once.
pub(crate) struct Metrics {
    pub(crate) stored: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) batch_size: Histogram,
    pub(crate) persist_seconds: Histogram,
    pub(crate) commit_seconds: Histogram,
}

impl Metrics {
    fn new() -> Self {
        Self {
            stored: metrics::counter!("weir_worker_stored_total"),
            duplicates: metrics::counter!("weir_worker_duplicates_total"),
            batch_size: metrics::histogram!("weir_persist_batch_size"),
            persist_seconds: metrics::histogram!("weir_persist_seconds"),
            commit_seconds: metrics::histogram!("weir_commit_seconds"),
        }
    }
}

impl State {
    pub(crate) fn new(name: String, config: WorkerConfig, queue: Queue, store: Store) -> Self {
        let waiting = Trouble { redis: Some("Redis was not reached yet".into()), store: None };
        Self {
            name,
            cache: DialogCache::new(config.cached_dialogs),
            changed_profiles: ChangedProfiles::default(),
            batches: Semaphore::new(config.batches),
            alone: RwLock::new(()),
            config,
            queue,
            store,
            in_flight: AtomicUsize::new(0),
            stored: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            trouble: watch::Sender::new(waiting),
            metrics: Metrics::new(),
        }
    }

    /// Notes whether Redis can be used.
    pub(crate) fn redis_is(&self, trouble: Option<String>) {
        self.trouble.send_if_modified(|all| std::mem::replace(&mut all.redis, trouble.clone()) != trouble);
    }

    /// Notes whether PostgreSQL can be used.
    pub(crate) fn store_is(&self, trouble: Option<String>) {
        self.trouble.send_if_modified(|all| std::mem::replace(&mut all.store, trouble.clone()) != trouble);
    }

    pub(crate) fn trouble(&self) -> watch::Receiver<Trouble> {
        self.trouble.subscribe()
    }

    /// One word or more for people: what the worker is doing.
    pub(crate) fn activity(&self) -> String {
        let trouble = self.trouble.borrow();
        match (&trouble.store, self.draining.load(Ordering::Relaxed)) {
            (_, true) => "draining".into(),
            (Some(reason), false) => format!("paused: {reason}"),
            (None, false) => "running".into(),
        }
    }
}

impl Trouble {
    /// As the probes show it.
    pub(crate) fn health(&self) -> Health {
        let reasons: Vec<String> = self.redis.iter().chain(&self.store).cloned().collect();
        Health { ready: reasons.is_empty(), reasons, details: serde_json::Map::new() }
    }
}
