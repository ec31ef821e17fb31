//! Watches Redis and the backlog beside the requests, and says whether anything may be accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use metrics::{counter, gauge};
use serde_json::json;
use tokio::sync::{Notify, watch};
use weir_core::ops::Health;
use weir_core::queue::balance::{Balance, Sweep};
use weir_core::queue::enqueue::Enqueuer;
use weir_core::queue::server::ServerState;
use weir_core::queue::{Queue, QueueError};
use weir_core::shutdown::Shutdown;

use crate::config::GatewayConfig;
use crate::rejection::Unavailable;

/// Pause between checks while nothing can be accepted.
const IMPATIENT: Duration = Duration::from_millis(200);

/// What the guard found last.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// Why nothing may be accepted; `None` when it may.
    pub(crate) refuse: Option<Unavailable>,
    /// Seconds after which to try again.
    pub(crate) retry_after: u64,
}

/// Watches one queue.
pub(crate) struct Guard {
    queue: Queue,
    /// The queue as batches reach it: over a connection of their own.
    batches: Queue,
    sweeper: Enqueuer,
    config: GatewayConfig,
    seen: ServerState,
    clocks_apart: bool,
    backlog: DrainRate,
    verdict: watch::Sender<Verdict>,
    open: Arc<AtomicBool>,
    health: watch::Sender<Health>,
    /// The signal to stop has come: not ready any more, though what still comes is accepted.
    stopping: bool,
}

/// What others can see of the guard.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) verdict: watch::Receiver<Verdict>,
    /// The verdict refuses nothing: what every request asks, without a lock.
    pub(crate) open: Arc<AtomicBool>,
    pub(crate) health: watch::Receiver<Health>,
    /// Wakes the guard before its time.
    pub(crate) trouble: Arc<Notify>,
}

impl Guard {
    pub(crate) fn new(queue: Queue, batches: Queue, config: GatewayConfig) -> (Self, Watch) {
        let first = Verdict { refuse: Some(Unavailable::NotReady), retry_after: 1 };
        let (verdict, verdicts) = watch::channel(first);
        let (health, healths) = watch::channel(Health::waiting("Redis was not looked at yet"));
        let sweeper = Enqueuer::new(queue.clone(), config.bounds);
        let (seen, backlog) = (ServerState::default(), DrainRate::default());
        let open = Arc::new(AtomicBool::new(false));
        let watch = Watch { verdict: verdicts, open: open.clone(), health: healths, trouble: Arc::default() };
        let (clocks_apart, stopping) = (false, false);
        (Self { queue, batches, sweeper, config, seen, clocks_apart, backlog, verdict, open, health, stopping }, watch)
    }

    /// Checks until `ended`: at the configured interval, more often while nothing can be accepted, and at once when a
    /// batch failed. From `shutdown` on it only says to others that nothing new should come here.
    pub(crate) async fn run(mut self, trouble: Arc<Notify>, shutdown: Shutdown, ended: Shutdown) {
        // Always there, even before Redis was reached.
        gauge!("weir_backlog").set(0.0);
        while ended.run_until_cancelled(self.check()).await.is_some() {
            let healthy = self.verdict.borrow().refuse.is_none();
            let pause = if healthy { self.config.check_every } else { IMPATIENT };
            tokio::select! {
                () = tokio::time::sleep(pause) => (),
                () = trouble.notified() => (),
                () = shutdown.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    self.health.send_replace(Health::waiting("stopping"));
                }
                () = ended.cancelled() => break,
            }
        }
    }

    /// One look at everything.
    pub(crate) async fn check(&mut self) {
        let (verdict, health) = match self.look().await {
            Ok(found) => found,
            Err(error) => {
                // The batches' connection has most likely ended too. Who uses it next would find that out with a
                // message of which nobody knows whether it was accepted.
                self.batches.link().reset().await;
                gauge!("weir_queue_up").set(0.0);
                let verdict = Verdict { refuse: Some(Unavailable::NotReady), retry_after: 1 };
                (verdict, Health::waiting(error.to_string()))
            }
        };
        let health = if self.stopping { Health::waiting("stopping") } else { health };
        if health.ready != self.health.borrow().ready || health.reasons != self.health.borrow().reasons {
            tracing::info!(ready = health.ready, reasons = ?health.reasons, "readiness");
        }
        self.decide(verdict);
        self.health.send_replace(health);
    }

    fn decide(&self, verdict: Verdict) {
        let open = verdict.refuse.is_none();
        self.verdict.send_replace(verdict);
        self.open.store(open, Ordering::Release);
    }

    async fn look(&mut self) -> Result<(Verdict, Health), QueueError> {
        let mut state = self.queue.server_state().await?;
        state.learn_from(&self.seen);
        self.seen = state.clone();
        if state.info("loading") == "1" {
            return Err(QueueError::Refused { code: "LOADING".into(), text: "Redis is reading its log".into() });
        }
        let mut reasons = state.weaknesses(self.config.durability, self.config.replicas);
        if reasons.is_empty() {
            // Each time: the data set can be wiped or replaced under a connection that stays up.
            self.queue.prepare().await?;
        }
        let mut balance = Balance::default();
        for partition in 0..self.queue.partitions() {
            let (one, sweep) = self.queue.partition_balance(partition).await?;
            balance += one;
            if let Some(Sweep { partition, epoch, buckets }) = sweep {
                self.sweeper.sweep(partition, epoch, buckets).await?;
            }
        }
        export(&balance);
        let memory = state.used_memory() as f64 / state.memory_limit().max(1) as f64;
        gauge!("weir_redis_memory_share").set(memory);
        gauge!("weir_queue_up").set(1.0);
        self.compare_clocks(&state);
        let refuse = if !reasons.is_empty() {
            Some(Unavailable::NotReady)
        } else if memory > self.config.memory_share {
            reasons.push(format!("Redis uses {:.0} % of its memory", memory * 100.0));
            Some(Unavailable::Memory)
        } else if balance.backlog() >= self.config.bounds.backlog {
            reasons.push(format!("the backlog holds {} entries", balance.backlog()));
            Some(Unavailable::Backlog)
        } else {
            None
        };
        let retry_after = self.backlog.retry_after(balance.backlog(), self.config.bounds.backlog, refuse);
        let mut details = serde_json::Map::new();
        details.insert("durability".into(), json!(self.config.durability));
        details.insert("backlog".into(), json!(balance.backlog()));
        details.insert("redis_memory_share".into(), json!(memory));
        let health = Health { ready: refuse.is_none(), reasons, details };
        Ok((Verdict { refuse, retry_after }, health))
    }

    /// Entry ids and leases go by the clock of Redis, what senders may claim goes by ours. Nothing breaks when they differ,
    /// but times in rows and reports do not fit together.
    fn compare_clocks(&mut self, state: &ServerState) {
        let Some(theirs) = state.clock_ms() else { return };
        let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let ahead = (theirs as f64 - ours as f64) / 1000.0;
        gauge!("weir_redis_clock_ahead_seconds").set(ahead);
        let apart = ahead.abs() > CLOCKS;
        if apart && !self.clocks_apart {
            tracing::warn!(ahead_s = ahead, "the clock of Redis is not ours: synchronise both");
        }
        self.clocks_apart = apart;
    }
}

/// Clocks that are farther apart than this are worth a warning.
const CLOCKS: f64 = 2.0;

/// How fast the backlog shrinks.
#[derive(Debug, Default)]
struct DrainRate {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl DrainRate {
    /// Seconds until a tenth of the limit is free at the rate of the last looks, 1 to 60.
    fn retry_after(&mut self, backlog: u64, limit: u64, refuse: Option<Unavailable>) -> u64 {
        let now = Instant::now();
        if let Some((then, before)) = self.last.replace((now, backlog)) {
            let drained = before.saturating_sub(backlog) as f64 / (now - then).as_secs_f64().max(0.001);
            self.per_second = 0.7 * self.per_second + 0.3 * drained;
        }
        let excess = backlog.saturating_sub(limit - limit / 10) as f64;
        let seconds = match refuse {
            Some(Unavailable::Backlog | Unavailable::Memory) => (excess / self.per_second.max(1.0)).clamp(1.0, 60.0),
            _ => 1.0,
        };
        seconds.round() as u64
    }
}

/// The balance as metrics: counters of the whole data set, the same whichever process exports them.
fn export(balance: &Balance) {
    counter!("weir_accepted_total").absolute(balance.accepted);
    counter!("weir_stored_total").absolute(balance.stored);
    counter!("weir_stored_before_total").absolute(balance.duplicate);
    counter!("weir_dead_total").absolute(balance.dead_total);
    counter!("weir_retried_total").absolute(balance.retried);
    counter!("weir_purged_total").absolute(balance.purged);
    counter!("weir_imported_total").absolute(balance.imported);
    counter!("weir_lost_total").absolute(balance.lost);
    for (name, value) in [
        ("undelivered", balance.undelivered),
        ("pending", balance.pending),
        ("due", balance.due),
        ("suspect", balance.suspect),
        ("parked", balance.parked),
    ] {
        gauge!("weir_in_flight", "state" => name).set(value as f64);
    }
    gauge!("weir_backlog").set(balance.backlog() as f64);
    gauge!("weir_dead").set(balance.dead as f64);
    gauge!("weir_balance_drift").set(balance.drift() as f64);
    gauge!("weir_oldest_age_seconds").set(balance.oldest_age_ms as f64 / 1000.0);
    gauge!("weir_dedupe_ids").set(balance.remembered as f64);
    gauge!("weir_dedupe_window_seconds").set(balance.window_ms as f64 / 1000.0);
    gauge!("weir_workers").set(balance.workers as f64);
}
