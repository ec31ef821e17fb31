//! Every Redis key of the queue, with its type, who writes it and who reads it.
//!
//! The hash tag keeps the keys of one partition in one slot of a Redis Cluster. On a server of its own it is the number of
//! the partition.

use std::fmt::Write as _;

use super::slots;

/// hash · written once by the first role that starts · read by every role: schema version, number of partitions.
pub const META: &str = "weir:meta";

/// The keys of one partition.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Number of the partition.
    pub partition: u16,
    tag: String,
    /// stream · `enqueue` · workers, group `workers`: accepted, not stored yet.
    pub ingest: String,
    /// stream · `due`, `leave`, `replay` · workers, same group: retries whose time has come.
    pub retry: String,
    /// stream · `reap`, `leave` · workers, same group: entries of a worker that died, read one at a time.
    pub suspect: String,
    /// stream · `move` · operators: entries of an unknown version.
    pub parked: String,
    /// stream · `move`, `import`, `amend` · operators: dead letters.
    pub dead: String,
    /// zset, score = due time in ms · `move` · `due`: retries that wait.
    pub due: String,
    /// hash, member of `due` -> entry · `move` · `due`.
    pub due_body: String,
    /// hash · `enqueue`, `sweep` · `enqueue`, `balance`: epoch, buckets, count of the dedupe memory.
    pub seen_meta: String,
    /// zset, consumer -> end of its lease in ms, negative when condemned · `beat`, `reap`, `leave` · all worker functions.
    pub alive: String,
    /// hash · all functions that move entries · `balance`: accepted, imported, stored, duplicate, dead, purged, lost
    /// (which balance), dead_total and retried (which only grow), open_ingest, open_retry, open_suspect (not finished).
    pub count: String,
    /// stream · `replay`, `purge`, `amend`, `import` · operators: who did what, when and why.
    pub audit: String,
    /// hash, reason and minute -> number · `tally`, `move` · workers, operators: what was not taken or became a dead letter.
    pub tally: String,
}

impl Keys {
    /// The keys of a partition on a server of its own.
    pub fn new(partition: u16) -> Self {
        Self::tagged(partition, partition.to_string())
    }

    /// The keys of a partition of so many in a Redis Cluster.
    pub fn in_cluster(partition: u16, partitions: u16) -> Self {
        Self::tagged(partition, slots::tag(partition, partitions))
    }

    fn tagged(partition: u16, tag: String) -> Self {
        let key = |name: &str| format!("weir:{{{tag}}}:{name}");
        Self {
            partition,
            ingest: key("ingest"),
            retry: key("retry"),
            suspect: key("suspect"),
            parked: key("parked"),
            dead: key("dead"),
            due: key("due"),
            due_body: key("due:body"),
            seen_meta: key("seen:meta"),
            alive: key("alive"),
            count: key("count"),
            audit: key("audit"),
            tally: key("tally"),
            tag,
        }
    }

    /// hash, digest of (source, id) -> first entry and fingerprint · `enqueue`, `sweep` · `enqueue`, operators: one
    /// bucket of one epoch of the dedupe memory.
    pub fn seen(&self, epoch: u64, bucket: u32) -> String {
        let mut name = String::new();
        self.write_seen(&mut name, epoch, bucket);
        name
    }

    /// Appends the name that [`Self::seen`] gives.
    pub(super) fn write_seen(&self, name: &mut String, epoch: u64, bucket: u32) {
        write!(name, "weir:{{{}}}:seen:{epoch}:{bucket}", self.tag).expect("a String takes any text");
    }
}

/// hash with a time to live · the worker itself · operators: host, pid, version, lanes, in flight, rate.
pub fn worker(name: &str) -> String {
    format!("weir:worker:{name}")
}

/// All keys of [`worker`].
pub const WORKERS: &str = "weir:worker:*";

/// hash with a time to live · that host's supervisor · operators: what runs there, how a restart goes. `weir fleet scale`
/// sets `wanted` in it, the number of workers or `auto`, and `weir fleet restart` sets `restart`.
pub fn fleet(host: &str) -> String {
    format!("weir:fleet:{host}")
}

/// string with a time to live · `put_profiles` · workers and the API: a profile as JSON. It may lie on another Redis than
/// the queue.
pub fn profile(user_id: &str) -> String {
    format!("profile:user:{user_id}")
}

/// string, Unix milliseconds · workers · workers: up to when all changes of profiles are in the cache. It lies beside the profiles,
/// so that it is lost with them.
pub const PROFILES_MARK: &str = "profile:mark";
