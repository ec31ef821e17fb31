//! Brings retries back when their time has come.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use weir_core::queue::QueueError;
use weir_core::shutdown::Shutdown;

use crate::state::State;

/// Moved by one call at most.
const STEP: u64 = 200;

const EVERY: Duration = Duration::from_millis(250);

/// Looks four times a second until told to stop.
pub(crate) async fn run(state: Arc<State>, stop: Shutdown) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if let Err(error) = step(&state).await {
            tracing::debug!(%error, "due");
        }
    }
}

/// Brings back everything that is due now, also while a part of the partitions cannot be reached.
async fn step(state: &State) -> Result<(), QueueError> {
    let partitions = 0..state.queue.partitions();
    join_all(partitions.map(|partition| step_in(state, partition))).await.into_iter().collect()
}

async fn step_in(state: &State, partition: u16) -> Result<(), QueueError> {
    while state.queue.bring_back_due(partition, STEP).await? == STEP {}
    Ok(())
}
