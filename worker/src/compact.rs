//! Keeps the counts in PostgreSQL few: puts together what is over, and what is old.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use weir_core::shutdown::Shutdown;

use crate::state::State;

/// Within this time a busy minute leaves some hundreds of rows.
const EVERY: Duration = Duration::from_secs(300);

/// Pause between two steps while there is something to do.
const PAUSE: Duration = Duration::from_millis(100);

/// Steps until told to stop. Of several workers one has something to do.
pub(crate) async fn run(state: Arc<State>, stop: Shutdown) {
    while !stop.is_cancelled() {
        let pause = match state.store.compact_tallies(OffsetDateTime::now_utc()).await {
            Ok(0) => EVERY,
            Ok(_) => PAUSE,
            Err(error) => {
                // Nobody misses anything until the table has grown for days.
                tracing::debug!(%error, "the counts could not be put together yet");
                EVERY
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}
