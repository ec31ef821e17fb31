//! The heartbeat: renews the leases, and tells people what the worker does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::Pipeline;
use weir_core::queue::consume::Lane;
use weir_core::queue::{QueueError, keys};
use weir_core::shutdown::Shutdown;

use crate::state::State;

/// Renews leases until told to stop.
pub(crate) struct Beat {
    pub(crate) state: Arc<State>,
    /// All consumers of this process.
    pub(crate) consumers: Vec<String>,
    /// Cancelled here when a lease is lost.
    pub(crate) abort: Shutdown,
    /// Cancelled here when somebody asks for a drain.
    pub(crate) shutdown: Shutdown,
    /// Unix milliseconds of the process' start.
    pub(crate) started_ms: u64,
}

impl Beat {
    /// Beats five times a lease, so that a missed beat costs nothing.
    pub(crate) async fn run(self) {
        let every = self.state.config.lease / 5;
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rate = Rate::default();
        while self.abort.run_until_cancelled(tick.tick()).await.is_some() {
            self.state.queue.link().follow().await;
            match self.renew().await {
                Ok(()) => self.state.redis_is(None),
                Err(QueueError::Fenced) => {
                    tracing::warn!(
                        worker = self.state.name,
                        "the lease is lost: others have taken over; starting over"
                    );
                    self.abort.cancel();
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the lease could not be renewed");
                    self.state.redis_is(Some(error.to_string()));
                    continue;
                }
            }
            rate.count(self.state.stored.load(Ordering::Relaxed));
            match self.tell(every, rate.per_second).await {
                Ok(true) if !self.shutdown.is_cancelled() => {
                    tracing::info!(worker = self.state.name, "asked to drain");
                    self.shutdown.cancel();
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "heartbeat for people"),
            }
        }
    }

    /// In all partitions at once: one that cannot be reached must not cost the leases of the others.
    async fn renew(&self) -> Result<(), QueueError> {
        let (queue, lease) = (&self.state.queue, self.state.config.lease);
        let renewals = (0..queue.partitions()).map(|partition| queue.renew(partition, lease, &self.consumers));
        let mut trouble = Ok(());
        for renewed in join_all(renewals).await {
            match renewed {
                Ok(()) => {}
                Err(QueueError::Fenced) => return Err(QueueError::Fenced),
                Err(error) => trouble = Err(error),
            }
        }
        trouble
    }

    /// Writes the worker's hash; gives whether somebody asks it to drain.
    async fn tell(&self, every: Duration, rate: f64) -> Result<bool, QueueError> {
        let state = &self.state;
        let key = keys::worker(&state.name);
        let lanes = [Lane::Ingest, Lane::Retry, Lane::Suspect].map(Lane::name).join(" ");
        let fields = [
            ("host", host()),
            ("pid", std::process::id().to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("lanes", lanes),
            ("batch", state.config.batch.to_string()),
            ("in_flight", state.in_flight.load(Ordering::Relaxed).to_string()),
            ("rate", format!("{rate:.0}")),
            ("state", state.activity()),
            ("started_ms", self.started_ms.to_string()),
            ("beat_ms", now_ms().to_string()),
            ("consumers", self.consumers.join(" ")),
        ];
        let mut pipeline = Pipeline::new();
        pipeline.hset_multiple(&key, &fields).ignore();
        pipeline.pexpire(&key, (every * 4).as_millis() as i64).ignore();
        pipeline.cmd("HEXISTS").arg(&key).arg("drain");
        let replies = state.queue.link().pipeline(&mut pipeline).await?;
        metrics::gauge!("weir_worker_in_flight").set(state.in_flight.load(Ordering::Relaxed) as f64);
        metrics::gauge!("weir_worker_rate").set(rate);
        Ok(matches!(replies.last(), Some(Ok(redis::Value::Int(1)))))
    }
}

/// Name of this host.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Unix milliseconds now.
pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Entries a second, smoothed.
#[derive(Default)]
struct Rate {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl Rate {
    fn count(&mut self, total: u64) {
        let now = Instant::now();
        if let Some((then, before)) = self.last.replace((now, total)) {
            let current = (total - before) as f64 / (now - then).as_secs_f64().max(0.001);
            self.per_second = 0.5 * self.per_second + 0.5 * current;
        }
    }
}
