//! Takes over what dead workers left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use weir_core::planted::{self, Planted};
use weir_core::queue::QueueError;
use weir_core::shutdown::Shutdown;

use crate::state::State;

/// Looks for dead workers until told to stop.
pub(crate) struct Reaper {
    pub(crate) state: Arc<State>,
    pub(crate) consumer: String,
    pub(crate) stop: Shutdown,
}

impl Reaper {
    pub(crate) async fn run(self) {
        if planted::is(Planted::NoReclaim) {
            return self.stop.cancelled().await;
        }
        let lease = self.state.config.lease;
        let mut tick = tokio::time::interval((lease / 10).min(Duration::from_secs(1)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut connected_since = Instant::now();
        while self.stop.run_until_cancelled(tick.tick()).await.is_some() {
            // While Redis was away nobody could renew: leases that ran out say nothing until everybody had a full
            // term to come back. Who was declared dead is dead.
            let all_late = connected_since.elapsed() >= lease;
            if let Err(error) = self.step(all_late).await {
                tracing::debug!(%error, "reap");
                connected_since = Instant::now();
            }
        }
    }

    /// Takes over everything of whoever is dead now, also while a part of the partitions cannot be reached.
    async fn step(&self, all_late: bool) -> Result<(), QueueError> {
        let partitions = 0..self.state.queue.partitions();
        let steps = join_all(partitions.map(|partition| self.step_in(partition, all_late)));
        steps.await.into_iter().collect()
    }

    async fn step_in(&self, partition: u16, all_late: bool) -> Result<(), QueueError> {
        while let Some(reaped) = self.state.queue.reap(partition, &self.consumer, all_late).await? {
            metrics::counter!("weir_reaped_entries_total").increment(reaped.moved);
            if reaped.finished {
                tracing::warn!(consumer = reaped.consumer, partition, "took over from a dead worker");
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }
}
