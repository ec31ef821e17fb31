//! Waiting without guessing.

use std::time::Duration;

const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds, asking every 20 ms; panics naming `what` if it does not within `deadline`.
///
/// # Panics
/// When the deadline passes.
pub async fn eventually(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(deadline, holds).await.is_err() {
        panic!("not within {deadline:?}: {what}");
    }
}
