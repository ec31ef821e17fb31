//! The settings of a worker.

use std::time::Duration;

use weir_core::config::{DatabaseConfig, Reader};

use crate::fate::{Policies, Policy};

/// Everything a worker can be told.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its name; `None` makes one of host, process and chance. Never the same for two processes.
    pub name: Option<String>,
    /// Entries in a batch at most. Default 1000: more makes the transaction longer, not cheaper.
    pub batch: usize,
    /// How rarely each partition is read while messages come steadily and the worker keeps up: what gathers meanwhile is
    /// stored together, which costs every part less. Not for single messages, nor behind a backlog. Default 20 ms.
    pub gather: Duration,
    /// Batches in one process that PostgreSQL works on at once. Default 2.
    pub batches: usize,
    /// How long a silent worker counts as alive; after it others take over its entries. Default 15 s.
    pub lease: Duration,
    /// Deaths of workers that an entry may cause before it becomes a dead letter. Default 3.
    pub crashes: u32,
    /// How long batches in progress may take after the signal to stop; what is left then goes back. Default 10 s.
    pub drain: Duration,
    /// Clients whose ids are remembered. Default 200,000: about 60 MB.
    pub cached_dialogs: u64,
    /// Months for which PostgreSQL's partitions are made ahead: one at least, for messages of tomorrow. Default 3.
    pub months_ahead: u16,
    /// When and how often a failed message is tried again, by class.
    pub retry: Policies,
    /// PostgreSQL.
    pub database: DatabaseConfig,
}

impl WorkerConfig {
    /// Reads the settings `worker.*` and `retry.*`.
    pub fn read(reader: &mut Reader, database: DatabaseConfig) -> Self {
        let lease = reader.get("worker.lease", &[], Duration::from_secs(15));
        if lease < Duration::from_millis(500) {
            reader.mistake("worker.lease: 500ms at least");
        }
        let batch = reader.get("worker.batch", &[], 1000);
        if !(1..=5000).contains(&batch) {
            reader.mistake("worker.batch: is not between 1 and 5000");
        }
        let months_ahead = reader.get("worker.months_ahead", &[], 3);
        if !(1..=120).contains(&months_ahead) {
            reader.mistake("worker.months_ahead: is not between 1 and 120");
        }
        Self {
            name: reader.optional("worker.name", &[]),
            batch,
            gather: reader.get("worker.gather", &[], Duration::from_millis(20)),
            batches: reader.get("worker.batches", &[], 2).max(1),
            lease,
            crashes: reader.get("worker.crashes", &[], 3).max(1),
            drain: reader.get("worker.drain", &[], Duration::from_secs(10)),
            cached_dialogs: reader.get("worker.cached_dialogs", &[], 200_000),
            months_ahead,
            retry: Policies {
                data: read_policy(reader, "data", 1),
                constraint: read_policy(reader, "constraint", 8),
                timeout: read_policy(reader, "timeout", 8),
                internal: read_policy(reader, "internal", 8),
            },
            database,
        }
    }
}

fn read_policy(reader: &mut Reader, class: &str, attempts: u32) -> Policy {
    let key = |name: &str| format!("retry.{class}.{name}");
    let (n, base, factor, cap) = (key("attempts"), key("base"), key("factor"), key("cap"));
    let growth = reader.get(&factor, &[], 3.0);
    if !(1.0..=1000.0).contains(&growth) {
        reader.mistake(format!("{factor}: is not between 1 and 1000"));
    }
    Policy {
        attempts: reader.get(&n, &[], attempts).max(1),
        base: reader.get(&base, &[], Duration::from_secs(1)),
        factor: growth,
        cap: reader.get(&cap, &[], Duration::from_secs(15 * 60)),
    }
}
