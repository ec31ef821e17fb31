//! Who works: every worker and every supervisor that Redis knows of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::Serialize;
use weir_core::queue::{Queue, QueueError, keys};

use crate::supervise::roll::Progress;

/// A supervisor that said nothing for this long is gone.
const SILENT_SUPERVISOR: Duration = Duration::from_secs(15);

/// What a worker is called that holds a lease and sends no heartbeat.
pub(crate) const SILENT: &str = "silent";

/// A worker, known by its heartbeat, by its leases or by both.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) pid: Option<u32>,
    pub(crate) version: String,
    /// `running`, `draining`, `paused: <reason>` or `silent`.
    pub(crate) state: String,
    pub(crate) lanes: String,
    pub(crate) in_flight: u64,
    /// Rows stored a second.
    pub(crate) rate: f64,
    pub(crate) started_ms: Option<u64>,
    /// Time since the last heartbeat.
    pub(crate) beat_age_ms: Option<u64>,
    /// What is left of its shortest lease; 0 when it ran out.
    pub(crate) lease_left_ms: Option<u64>,
}

/// A host's supervisor.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Supervisor {
    pub(crate) host: String,
    /// A number of workers or `auto`; empty when nobody ever said.
    pub(crate) wanted: String,
    pub(crate) min: Option<u32>,
    pub(crate) max: Option<u32>,
    pub(crate) running: Option<u32>,
    pub(crate) gateways: Option<u32>,
    /// Processes that are not started any more because they crashed again and again.
    pub(crate) given_up: u32,
    pub(crate) pid: Option<u32>,
    /// How the last restart went, or goes.
    pub(crate) progress: Option<Progress>,
    /// It said something of late.
    pub(crate) alive: bool,
}

/// Everybody.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Roster {
    pub(crate) workers: Vec<Worker>,
    pub(crate) supervisors: Vec<Supervisor>,
}

/// Names of workers and hosts. To find them takes a walk over all keys, which is cheap once but not every second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    workers: Vec<String>,
    hosts: Vec<String>,
}

impl Names {
    /// Walks over all keys.
    pub(crate) async fn find(queue: &Queue) -> Result<Self, QueueError> {
        let all = keys::fleet("*");
        let hosts = find(queue, &all, &keys::fleet("")).await?;
        Ok(Self { workers: find(queue, keys::WORKERS, &keys::worker("")).await?, hosts })
    }
}

async fn find(queue: &Queue, pattern: &str, prefix: &str) -> Result<Vec<String>, QueueError> {
    let mut names = BTreeSet::new();
    for node in queue.link().nodes().await? {
        let mut cursor = 0_u64;
        loop {
            let mut cmd = redis::cmd("SCAN");
            cmd.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(10_000).arg("TYPE").arg("hash");
            let (next, found): (u64, Vec<String>) = queue.link().command_at(&node, &cmd).await?;
            names.extend(found.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned));
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(names.into_iter().collect())
}

impl Roster {
    /// Finds everybody.
    pub(crate) async fn read(queue: &Queue) -> Result<Self, QueueError> {
        Self::of(queue, &Names::find(queue).await?).await
    }

    /// Those of `names` that are still there, and every holder of a lease.
    pub(crate) async fn of(queue: &Queue, names: &Names) -> Result<Self, QueueError> {
        let now_ms = clock(queue).await?;
        let mut found = Found { now_ms, ..Found::default() };
        for name in &names.workers {
            found.meet(queue, name).await?;
        }
        for (consumer, deadline) in leases(queue).await? {
            let name = found.owner(&consumer);
            found.meet(queue, &name).await?;
            let left = u64::try_from(deadline).unwrap_or_default().saturating_sub(now_ms);
            found.hold(&name, left);
        }
        let mut supervisors = Vec::new();
        for host in &names.hosts {
            supervisors.extend(supervisor(queue, host).await?);
        }
        Ok(Self { workers: found.into_workers(), supervisors })
    }

    /// Workers that send heartbeats.
    pub(crate) fn beating(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.state != SILENT)
    }

    /// Workers that hold a lease and send no heartbeat.
    pub(crate) fn silent(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.state == SILENT)
    }

    /// Rows stored a second by all workers.
    pub(crate) fn rate(&self) -> f64 {
        self.beating().map(|worker| worker.rate).sum()
    }
}

/// Milliseconds on the clock of Redis.
pub(crate) async fn clock(queue: &Queue) -> Result<u64, QueueError> {
    let (seconds, micros): (u64, u64) = queue.command(&redis::cmd("TIME")).await?;
    Ok(seconds * 1000 + micros / 1000)
}

/// The ends of all leases by consumer, the earliest of all partitions; negative for a worker that was declared dead.
pub(crate) async fn leases(queue: &Queue) -> Result<HashMap<String, i64>, QueueError> {
    let mut leases = HashMap::new();
    for partition in 0..queue.partitions() {
        let mut cmd = redis::cmd("ZRANGE");
        cmd.arg(&queue.keys(partition).alive).arg(0).arg(-1).arg("WITHSCORES");
        for (consumer, deadline) in queue.command::<Vec<(String, f64)>>(&cmd).await? {
            let deadline = deadline as i64;
            leases.entry(consumer).and_modify(|known: &mut i64| *known = deadline.min(*known)).or_insert(deadline);
        }
    }
    Ok(leases)
}

/// The worker of a consumer that no heartbeat names: a worker's later consumers are called `<name>.<term>.<index>`.
fn worker_of(consumer: &str) -> &str {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = consumer.rsplitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(index), Some(term), Some(name)) if plain(index) && plain(term) && !name.is_empty() => name,
        _ => consumer,
    }
}

/// The supervisor of a host; none when nobody ever wrote about that host.
pub(crate) async fn supervisor(queue: &Queue, host: &str) -> Result<Option<Supervisor>, QueueError> {
    let fields = fields(queue, &keys::fleet(host)).await?;
    let now_ms = clock(queue).await?;
    Ok((!fields.is_empty()).then(|| Supervisor::read(host, &fields, now_ms)))
}

/// The workers met so far.
#[derive(Default)]
struct Found {
    now_ms: u64,
    workers: BTreeMap<String, Worker>,
    owners: HashMap<String, String>,
}

impl Found {
    /// Reads a worker's heartbeat, once.
    async fn meet(&mut self, queue: &Queue, name: &str) -> Result<(), QueueError> {
        if self.workers.contains_key(name) {
            return Ok(());
        }
        let fields = fields(queue, &keys::worker(name)).await?;
        for consumer in fields.get("consumers").map(String::as_str).unwrap_or_default().split_whitespace() {
            self.owners.insert(consumer.to_owned(), name.to_owned());
        }
        self.workers.insert(name.to_owned(), Worker::read(name, &fields, self.now_ms));
        Ok(())
    }

    fn owner(&self, consumer: &str) -> String {
        self.owners.get(consumer).map_or_else(|| worker_of(consumer).to_owned(), Clone::clone)
    }

    fn hold(&mut self, name: &str, left: u64) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.lease_left_ms = Some(worker.lease_left_ms.map_or(left, |other| other.min(left)));
        }
    }

    /// All but those whose heartbeat ended while we looked.
    fn into_workers(self) -> Vec<Worker> {
        let there = |worker: &Worker| worker.state != SILENT || worker.lease_left_ms.is_some();
        self.workers.into_values().filter(there).collect()
    }
}

async fn fields(queue: &Queue, key: &str) -> Result<HashMap<String, String>, QueueError> {
    queue.command(redis::cmd("HGETALL").arg(key)).await
}

/// A field as a number; none when it is missing or no number.
fn number<T: std::str::FromStr>(fields: &HashMap<String, String>, name: &str) -> Option<T> {
    fields.get(name)?.parse().ok()
}

impl Worker {
    fn read(name: &str, fields: &HashMap<String, String>, now_ms: u64) -> Self {
        let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let beat_ms: Option<u64> = number(fields, "beat_ms");
        Self {
            name: name.to_owned(),
            host: text("host"),
            pid: number(fields, "pid"),
            version: text("version"),
            state: if beat_ms.is_some() { text("state") } else { SILENT.into() },
            lanes: text("lanes"),
            in_flight: number(fields, "in_flight").unwrap_or_default(),
            rate: number(fields, "rate").filter(|rate: &f64| rate.is_finite()).unwrap_or_default(),
            started_ms: number(fields, "started_ms"),
            beat_age_ms: beat_ms.map(|beat| now_ms.saturating_sub(beat)),
            lease_left_ms: None,
        }
    }
}

impl Supervisor {
    fn read(host: &str, fields: &HashMap<String, String>, now_ms: u64) -> Self {
        let beat_ms: Option<u64> = number(fields, "beat_ms");
        let age = beat_ms.map(|beat| Duration::from_millis(now_ms.saturating_sub(beat)));
        Self {
            host: host.to_owned(),
            wanted: fields.get("wanted").cloned().unwrap_or_default(),
            min: number(fields, "min"),
            max: number(fields, "max"),
            running: number(fields, "running"),
            given_up: number(fields, "given_up").unwrap_or_default(),
            pid: number(fields, "supervisor_pid"),
            gateways: number(fields, "gateways"),
            progress: fields.get("progress").and_then(|text| serde_json::from_str(text).ok()),
            alive: age.is_some_and(|age| age < SILENT_SUPERVISOR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::worker_of;

    #[test]
    fn a_workers_consumers_share_its_name() {
        for consumer in ["a-b.c-12-0f0f", "a-b.c-12-0f0f.1.0", "a-b.c-12-0f0f.0.12"] {
            assert_eq!(worker_of(consumer), "a-b.c-12-0f0f");
        }
        assert_eq!(worker_of("db.example.org"), "db.example.org");
    }
}
