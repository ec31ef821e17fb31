//! Looks after PostgreSQL: the schema is the one this build needs, and the next months have their partitions.

use std::sync::Arc;
use std::time::Duration;

use weir_core::shutdown::Shutdown;

use crate::state::State;

const EVERY: Duration = Duration::from_secs(3600);

/// Pause after PostgreSQL failed.
const PAUSE: Duration = Duration::from_secs(10);

/// Looks once an hour until told to stop.
pub(crate) async fn run(state: Arc<State>, stop: Shutdown) {
    while !stop.is_cancelled() {
        let pause = match state.store.ensure_partitions(state.config.months_ahead).await {
            Ok(made) if made.is_empty() => EVERY,
            Ok(made) => {
                tracing::info!(partitions = ?made, "made partitions of the next months");
                EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "the partitions of the next months could not be looked after yet");
                PAUSE
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}
