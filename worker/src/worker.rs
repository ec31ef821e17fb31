//! A worker's life: take a lease, run the lanes, start over when the lease is lost, hand back and leave at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use weir_core::alarm::guarded;
use weir_core::ops::Health;
use weir_core::profile_cache::ProfileCache;
use weir_core::queue::consume::Lane;
use weir_core::queue::{Queue, QueueError};
use weir_core::shutdown::Shutdown;
use weir_store::{Store, StoreError};

use crate::beat::{Beat, host, now_ms};
use crate::config::WorkerConfig;
use crate::lane::{LaneReader, READ_TIMEOUT};
use crate::reap::Reaper;
use crate::state::State;
use crate::{compact, due, early, profiles, tallies, upkeep};

/// Pause between attempts to reach Redis.
const PAUSE: Duration = Duration::from_millis(500);

/// A worker that does not run yet.
pub struct Worker {
    state: Arc<State>,
    profile_cache: Option<ProfileCache>,
    health: watch::Sender<Health>,
    started_ms: u64,
}

/// Describes a worker. Neither Redis nor PostgreSQL need be there yet: it waits for both. Must be called within a tokio
/// runtime.
pub fn build(config: WorkerConfig, queue: &Queue, store: Store) -> Worker {
    let name = config
        .name
        .clone()
        .unwrap_or_else(|| format!("{}-{}-{:04x}", host(), std::process::id(), rand::random::<u16>()));
    let state = State::new(name, config, queue.clone(), store);
    Worker {
        state: Arc::new(state),
        profile_cache: None,
        health: watch::Sender::new(Health::waiting("starting")),
        started_ms: now_ms(),
    }
}

/// Refuses when PostgreSQL can be asked and says that its schema is another one than this build needs.
///
/// # Errors
/// The error says what to do.
pub async fn check_schema(store: &Store) -> Result<(), StoreError> {
    match store.schema_is_current().await {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError {
            class: weir_store::Class::Deployment,
            sqlstate: None,
            text: "the schema of the database is not the one this version needs; run `weir migrate up`".into(),
        }),
        Err(error) if error.class == weir_store::Class::Dependency => Ok(()),
        Err(error) => Err(error),
    }
}

/// How one term of a lease ended.
enum Term {
    /// The worker was asked to stop.
    Stopped,
    /// The lease was lost.
    Fenced,
    /// A part panicked.
    Broken,
}

impl Worker {
    /// Its name, which no other process has.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Whether it can do its work, as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Has the worker keep profiles that change in this cache. Without one nothing is cached.
    pub fn with_profile_cache(self, cache: Option<ProfileCache>) -> Self {
        Self { profile_cache: cache, ..self }
    }

    /// Works until `shutdown`, which a request to drain cancels too. Then finishes the batches under way, for as long
    /// as the configuration says, and hands the rest back.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { state, profile_cache, health, started_ms } = self;
        let ended = Shutdown::new();
        let caching = profile_cache.map(|cache| tokio::spawn(profiles::run(state.clone(), cache, ended.clone())));
        let reporting = tokio::spawn(report(state.clone(), health, ended.clone()));
        let mut term = 0;
        while !shutdown.is_cancelled() {
            let names = consumers(&state, term);
            match run_term(&state, &names, started_ms, &shutdown).await {
                Ok(Term::Stopped) => break,
                Ok(Term::Fenced) => term += 1,
                Ok(Term::Broken) => {
                    term += 1;
                    shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
                Err(error) => {
                    // The name may be taken when an answer to an earlier join was lost.
                    term += 1;
                    tracing::warn!(%error, "waiting for Redis");
                    state.redis_is(Some(error.to_string()));
                    shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
        ended.cancel();
        for part in [Some(reporting), caching].into_iter().flatten() {
            if let Err(error) = part.await {
                tracing::error!(%error, "a part of the worker ended badly");
            }
        }
        tracing::info!(worker = state.name, "the worker has stopped");
    }
}

/// One consumer for each batch that a partition needs so that all batches can be under way.
fn consumers(state: &State, term: u32) -> Vec<String> {
    let each = state.config.batches.div_ceil(usize::from(state.queue.partitions()));
    (0..each)
        .map(|index| match (term, index) {
            (0, 0) => state.name.clone(),
            _ => format!("{}.{term}.{index}", state.name),
        })
        .collect()
}

/// Joins, works, and leaves.
async fn run_term(
    state: &Arc<State>,
    names: &[String],
    started_ms: u64,
    shutdown: &Shutdown,
) -> Result<Term, QueueError> {
    let made = state.queue.prepare().await?;
    if made > 0 {
        tracing::warn!(groups = made, "consumer groups were not there: Redis is new, or it was wiped");
    }
    for partition in 0..state.queue.partitions() {
        state.queue.join(partition, state.config.lease, names).await?;
    }
    state.redis_is(None);
    tracing::info!(worker = names[0], partitions = state.queue.partitions(), "working");
    let (stop, abort, broken) = (shutdown.child_token(), Shutdown::new(), Shutdown::new());
    let (lanes, helpers) = (TaskTracker::new(), TaskTracker::new());
    start_lanes(state, names, &lanes, &stop, &abort, &broken);
    start_helpers(state, names, started_ms, &helpers, shutdown, &abort, &broken);
    tokio::select! {
        () = shutdown.cancelled() => state.draining.store(true, Ordering::Relaxed),
        () = abort.cancelled() => stop.cancel(),
        () = broken.cancelled() => {
            abort.cancel();
            stop.cancel();
        }
    }
    let fenced = abort.is_cancelled();
    lanes.close();
    if tokio::time::timeout(state.config.drain, lanes.wait()).await.is_err() {
        tracing::warn!(worker = names[0], "batches did not finish in time; they go back");
        abort.cancel();
        lanes.wait().await;
    }
    abort.cancel();
    helpers.close();
    helpers.wait().await;
    // Also when it was asked to stop: what a part held that panicked must not be handed back as if nothing had happened.
    if broken.is_cancelled() {
        die(state, names).await;
        return Ok(if shutdown.is_cancelled() { Term::Stopped } else { Term::Broken });
    }
    if !fenced {
        leave(state, names).await;
    }
    Ok(if fenced { Term::Fenced } else { Term::Stopped })
}

/// Declares the consumers of this term dead, as a supervisor does that saw a process end: what they held is looked at one
/// by one, and what makes a worker panic again and again becomes a dead letter.
async fn die(state: &State, names: &[String]) {
    tracing::error!(worker = names[0], "starting over under another name after a panic");
    join_all(in_all(state, names).map(|(partition, name)| condemn(state, partition, name))).await;
}

async fn condemn(state: &State, partition: u16, name: &str) {
    if let Err(error) = state.queue.declare_dead(partition, name).await {
        tracing::warn!(%error, partition, "the lease of a part that panicked runs out by itself");
    }
}

/// Each consumer in each partition. What is done to them is done at once: a partition that cannot be reached must not cost
/// the others.
fn in_all<'n>(state: &State, names: &'n [String]) -> impl Iterator<Item = (u16, &'n str)> + use<'n> {
    let partitions = 0..state.queue.partitions();
    partitions.flat_map(|partition| names.iter().map(move |name| (partition, name.as_str())))
}

fn start_lanes(
    state: &Arc<State>,
    names: &[String],
    lanes: &TaskTracker,
    stop: &Shutdown,
    abort: &Shutdown,
    broken: &Shutdown,
) {
    for partition in 0..state.queue.partitions() {
        for (index, consumer) in names.iter().enumerate() {
            for lane in [Lane::Ingest, Lane::Retry, Lane::Suspect] {
                // One reader is enough for the lanes that are empty as a rule; suspects come one at a time.
                if index > 0 && lane != Lane::Ingest {
                    continue;
                }
                let reader = LaneReader {
                    state: state.clone(),
                    partition,
                    lane,
                    consumer: consumer.clone(),
                    reads: state.queue.on_own_link(READ_TIMEOUT),
                    stop: stop.clone(),
                    abort: abort.clone(),
                };
                lanes.spawn(guarded(lane.name(), broken.clone(), reader.run()));
            }
        }
    }
}

fn start_helpers(
    state: &Arc<State>,
    names: &[String],
    started_ms: u64,
    helpers: &TaskTracker,
    shutdown: &Shutdown,
    abort: &Shutdown,
    broken: &Shutdown,
) {
    let beat = Beat {
        state: state.clone(),
        consumers: names.to_vec(),
        abort: abort.clone(),
        shutdown: shutdown.clone(),
        started_ms,
    };
    helpers.spawn(guarded("beat", broken.clone(), beat.run()));
    helpers.spawn(guarded("due", broken.clone(), due::run(state.clone(), abort.clone())));
    helpers.spawn(guarded("upkeep", broken.clone(), upkeep::run(state.clone(), abort.clone())));
    helpers.spawn(guarded("early", broken.clone(), early::run(state.clone(), abort.clone())));
    helpers.spawn(guarded("tallies", broken.clone(), tallies::run(state.clone(), abort.clone())));
    helpers.spawn(guarded("compact", broken.clone(), compact::run(state.clone(), abort.clone())));
    let reaper = Reaper { state: state.clone(), consumer: names[0].clone(), stop: abort.clone() };
    helpers.spawn(guarded("reap", broken.clone(), reaper.run()));
}

/// Hands back what is left and gives the leases up. Redis may be gone: then the leases run out by themselves.
async fn leave(state: &State, names: &[String]) {
    join_all(in_all(state, names).map(|(partition, name)| hand_back(state, partition, name))).await;
    let forget = state.queue.command::<i64>(redis::cmd("DEL").arg(weir_core::queue::keys::worker(&state.name))).await;
    if let Err(error) = forget {
        tracing::debug!(%error, "heartbeat for people");
    }
}

async fn hand_back(state: &State, partition: u16, name: &str) {
    match state.queue.leave(partition, name).await {
        Ok(0) => {}
        Ok(entries) => tracing::info!(partition, entries, "handed back"),
        Err(error) => tracing::warn!(%error, partition, "the lease could not be given up; it runs out by itself"),
    }
}

/// Turns trouble into readiness.
async fn report(state: Arc<State>, health: watch::Sender<Health>, ended: Shutdown) {
    let mut trouble = state.trouble();
    loop {
        let now = trouble.borrow_and_update().health();
        health.send_replace(now);
        match ended.run_until_cancelled(trouble.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => break,
        }
    }
    health.send_replace(Health::waiting("stopped"));
}
