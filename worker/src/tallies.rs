//! Copies the counts that Redis keeps beside the queue to PostgreSQL, where statistics are made. As they are and not as
//! differences, so that it does not matter how often, or by how many workers at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use weir_core::queue::tally::Tallies;
use weir_core::shutdown::Shutdown;
use weir_store::FailureCount;

use crate::state::State;

/// How much later at most a statistic knows.
const EVERY: Duration = Duration::from_secs(1);

/// Minutes after which a count is dropped in Redis. Nothing of that age is counted any more.
const KEPT: u64 = 2 * 24 * 60;

/// Minutes after which a count is not copied any more: what is older may have been put together with others, and would be
/// counted twice.
const COPIED: u64 = 7 * 24 * 60;

/// Copies until told to stop.
pub(crate) async fn run(state: Arc<State>, stop: Shutdown) {
    let mut copied: HashMap<u16, Copied> = HashMap::new();
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        for partition in 0..state.queue.partitions() {
            match stop.run_until_cancelled(copy(&state, partition, copied.entry(partition).or_default())).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(error, partition, "counts are copied later"),
            }
        }
    }
}

/// What was copied of a partition.
#[derive(Default)]
struct Copied {
    tallies: Tallies,
    /// As it was just before they were read.
    changes: u64,
}

/// Copies those of a partition that are others than before.
async fn copy(state: &State, partition: u16, copied: &mut Copied) -> Result<(), String> {
    let changes = state.queue.tally_changes(partition).await.map_err(|error| error.to_string())?;
    if changes == copied.changes {
        return Ok(());
    }
    let tallies = state.queue.tallies(partition).await.map_err(|error| error.to_string())?;
    let minute = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60);
    let counts: Vec<FailureCount> = tallies
        .iter()
        .filter(|(what, n)| what.1 + COPIED > minute && copied.tallies.get(*what) != Some(*n))
        .filter_map(|((reason, minute), n)| {
            let at = OffsetDateTime::from_unix_timestamp(i64::try_from(minute * 60).ok()?).ok()?;
            Some(FailureCount { reason: reason.clone(), at, shard: partition as i16, n: *n as i64 })
        })
        .collect();
    state.store.copy_failures(&counts).await.map_err(|error| error.to_string())?;
    let old = minute.saturating_sub(KEPT);
    state.queue.forget_tallies(partition, &tallies, old).await.map_err(|error| error.to_string())?;
    *copied = Copied { tallies, changes };
    Ok(())
}
