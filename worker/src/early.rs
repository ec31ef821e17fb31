//! Applies changes of messages that came before their message.

use std::sync::Arc;
use std::time::Duration;

use weir_core::shutdown::Shutdown;

use crate::state::State;

/// As long as a change waits at least after its message has come.
const EVERY: Duration = Duration::from_secs(1);

/// Looks until told to stop.
pub(crate) async fn run(state: Arc<State>, stop: Shutdown) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        match stop.run_until_cancelled(state.store.apply_early_changes()).await {
            None => return,
            Some(Ok(0)) => {}
            Some(Ok(changes)) => tracing::debug!(changes, "changes that came before their messages"),
            Some(Err(error)) => tracing::debug!(%error, "changes that came before their messages have to wait"),
        }
    }
}
