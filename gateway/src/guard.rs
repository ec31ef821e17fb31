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
use weir_core::queue::server::Servers;
use weir_core::queue::{Node, Queue, QueueError};
use weir_core::shutdown::Shutdown;

use crate::config::GatewayConfig;
use crate::rejection::Unavailable;

/// Pause between checks while nothing can be accepted, or not everything.
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
    seen: Servers,
    /// The layout was ours at some look.
    known: bool,
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
        let (seen, backlog) = (Servers::default(), DrainRate::default());
        let open = Arc::new(AtomicBool::new(false));
        let watch = Watch { verdict: verdicts, open: open.clone(), health: healths, trouble: Arc::default() };
        let (known, clocks_apart, stopping) = (false, false, false);
        let guard = Self {
            queue,
            batches,
            sweeper,
            config,
            seen,
            known,
            clocks_apart,
            backlog,
            verdict,
            open,
            health,
            stopping,
        };
        (guard, watch)
    }

    /// Checks until `ended`: at the configured interval, more often while something cannot be accepted, and at once when a
    /// batch failed. From `shutdown` on it only says to others that nothing new should come here.
    pub(crate) async fn run(mut self, trouble: Arc<Notify>, shutdown: Shutdown, ended: Shutdown) {
        // Always there, even before Redis was reached.
        gauge!("weir_backlog").set(0.0);
        while ended.run_until_cancelled(self.check()).await.is_some() {
            let healthy = self.verdict.borrow().refuse.is_none() && self.seen.away.is_empty();
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
        gauge!("weir_gateway_ready").set(f64::from(u8::from(open)));
        self.verdict.send_replace(verdict);
        self.open.store(open, Ordering::Release);
    }

    async fn look(&mut self) -> Result<(Verdict, Health), QueueError> {
        let mut servers = self.queue.servers().await?;
        servers.learn_from(&self.seen);
        self.seen.states.clone_from(&servers.states);
        if servers.states.iter().any(|state| state.info("loading") == "1") {
            return Err(QueueError::Refused { code: "LOADING".into(), text: "Redis is reading its log".into() });
        }
        let mut reasons = servers.weaknesses(self.config.durability, self.config.replicas);
        let balance = self.look_at_partitions(&mut servers, reasons.is_empty()).await?;
        export(&balance);
        let fullest = servers.fullest();
        let memory = fullest.map(|state| state.memory_share()).unwrap_or_default();
        gauge!("weir_redis_memory_share").set(memory);
        gauge!("weir_queue_up").set(1.0);
        self.compare_clocks(&servers);
        let refuse = if !reasons.is_empty() {
            Some(Unavailable::NotReady)
        } else if let Some(fullest) = fullest.filter(|_| memory > self.config.memory_share) {
            reasons.push(fullest.named(format!("Redis uses {:.0} % of its memory", memory * 100.0)));
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
        if !servers.away.is_empty() {
            let away = servers.away.iter().map(|(_, error)| error.to_string());
            details.insert("away".into(), away.collect());
        }
        self.note_away(&servers);
        self.seen.away = servers.away;
        let health = Health { ready: refuse.is_none(), reasons, details };
        Ok((Verdict { refuse, retry_after }, health))
    }

    /// Prepares the partitions, if it is wished, forgets what nobody looks up any more and sums up what they hold. The
    /// primary of a Redis Cluster that does not answer costs its own partitions: the others go on.
    async fn look_at_partitions(&mut self, servers: &mut Servers, prepare: bool) -> Result<Balance, QueueError> {
        if prepare {
            // Each time: the data set can be wiped or replaced under a connection that stays up.
            match self.queue.check_layout().await {
                Ok(()) => self.known = true,
                Err(error) if self.can_be_missed(servers, &error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut balance = Balance::default();
        for partition in 0..self.queue.partitions() {
            let holder = self.queue.holder(partition).await?;
            if servers.away.iter().any(|(node, _)| *node == holder) {
                continue;
            }
            match self.look_at_partition(partition, prepare).await {
                Ok(one) => balance += one,
                Err(error) if holder.address().is_some() && !matches!(error, QueueError::Deployment(_)) => {
                    self.lose(servers, holder, error)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(balance)
    }

    /// The layout may be with a primary that is away. It cannot have changed meanwhile: what is known counts.
    fn can_be_missed(&self, servers: &Servers, error: &QueueError) -> bool {
        self.known && !servers.away.is_empty() && !matches!(error, QueueError::Deployment(_))
    }

    async fn look_at_partition(&self, partition: u16, prepare: bool) -> Result<Balance, QueueError> {
        if prepare {
            self.queue.ensure(partition).await?;
        }
        let (balance, sweep) = self.queue.partition_balance(partition).await?;
        if let Some(Sweep { partition, epoch, buckets }) = sweep {
            self.sweeper.sweep(partition, epoch, buckets).await?;
        }
        Ok(balance)
    }

    /// A primary that answered a moment ago does not any more.
    fn lose(&self, servers: &mut Servers, node: Node, error: QueueError) -> Result<(), QueueError> {
        self.queue.link().note(&node, Some(&error));
        servers.states.retain(|state| state.address.as_deref() != node.address());
        if servers.states.is_empty() {
            return Err(error);
        }
        servers.away.push((node, error));
        Ok(())
    }

    fn note_away(&self, servers: &Servers) {
        // As above: the batches' connections to them have most likely ended.
        servers.away.iter().for_each(|(node, _)| self.batches.link().reset_at(node));
        gauge!("weir_queue_primaries_away").set(servers.away.len() as f64);
        let before = |node| self.seen.away.iter().any(|(known, _)| known == node);
        for (node, error) in servers.away.iter().filter(|(node, _)| !before(node)) {
            tracing::warn!(primary = node.address(), %error, "a primary is away: its partitions accept nothing");
        }
        for (node, _) in self.seen.away.iter().filter(|(node, _)| !servers.away.iter().any(|(now, _)| now == node)) {
            tracing::info!(primary = node.address(), "a primary is back, or has been replaced");
        }
    }

    /// Entry ids and leases go by the clock of Redis, what senders may claim goes by ours. Nothing breaks when they differ,
    /// but times in rows and reports do not fit together.
    fn compare_clocks(&mut self, servers: &Servers) {
        let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let clocks = servers.states.iter().filter_map(|state| state.clock_ms());
        let ahead = clocks.map(|theirs| (theirs as f64 - ours as f64) / 1000.0);
        let Some(ahead) = ahead.max_by(|one, other| one.abs().total_cmp(&other.abs())) else { return };
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
