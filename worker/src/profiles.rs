//! Keeps the profiles that batches change in the cache, once they are committed and beside the batches.
//!
//! What is lost on the way (Redis was away, this process died) is not lost for long: the cache holds a mark, the time up to which
//! all changes were put into it, and every worker looks now and then for what PostgreSQL has changed since.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;
use weir_core::profile_cache::{CacheError, Entry, ProfileCache};
use weir_core::shutdown::Shutdown;
use weir_store::{Profile, StoreError};

use crate::state::State;

/// Profiles that wait at most; more are left to the sweep.
const WAITING: usize = 100_000;

/// How often PostgreSQL is asked for what the cache has missed.
const SWEEP: Duration = Duration::from_secs(30);

/// A change is visible only once its transaction is committed, which may be so much later than the time that it bears.
const OVERLAP: time::Duration = time::Duration::MINUTE;

/// How far back the first sweep of a cache without a mark looks: an empty cache has missed nothing.
const FIRST: time::Duration = time::Duration::HOUR;

/// Profiles in one step of a sweep.
const STEP: i64 = 1000;

/// Profiles on their way into the cache, each in its newest version.
#[derive(Default)]
pub(crate) struct ChangedProfiles {
    waiting: Mutex<HashMap<String, Profile>>,
    more: Notify,
}

impl ChangedProfiles {
    /// Adds what a committed batch has changed.
    pub(crate) fn put(&self, profiles: Vec<Profile>) {
        if profiles.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for profile in profiles {
            if waiting.len() >= WAITING && !waiting.contains_key(&profile.user_id) {
                continue;
            }
            if waiting.get(&profile.user_id).is_none_or(|known| known.last_updated < profile.last_updated) {
                waiting.insert(profile.user_id.clone(), profile);
            }
        }
        drop(waiting);
        self.more.notify_one();
    }

    fn take(&self) -> Vec<Entry> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_values().map(entry).collect()
    }
}

fn entry(profile: Profile) -> Entry {
    Entry { json: profile.to_json(), version: profile.version(), user_id: profile.user_id }
}

/// Why a sweep did not get on.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts what changes into the cache, until `ended` and then once more.
pub(crate) async fn run(state: std::sync::Arc<State>, cache: ProfileCache, ended: Shutdown) {
    let mut sweeps = tokio::time::interval(SWEEP);
    sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ended.cancelled() => break,
            () = state.changed_profiles.more.notified() => put(&state, &cache).await,
            _ = sweeps.tick() => match ended.run_until_cancelled(sweep(&state, &cache)).await {
                None => break,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "the cache of profiles could not be brought up to date yet"),
            },
        }
    }
    put(&state, &cache).await;
}

async fn put(state: &State, cache: &ProfileCache) {
    let entries = state.changed_profiles.take();
    if entries.is_empty() {
        return;
    }
    if let Err(error) = cache.put(&entries).await {
        metrics::counter!("weir_profile_cache_errors_total").increment(1);
        tracing::debug!(%error, profiles = entries.len(), "profiles were not cached; the next sweep does it");
    }
}

/// Puts into the cache what PostgreSQL has changed since its mark.
async fn sweep(state: &State, cache: &ProfileCache) -> Result<(), SweepError> {
    cache.settle_debts().await;
    let now = OffsetDateTime::now_utc();
    let mark =
        cache.mark().await?.and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok());
    let mut from = (mark.unwrap_or(now - FIRST) - OVERLAP, String::new());
    loop {
        let profiles = state.store.profiles_changed_since(from.0, &from.1, STEP).await?;
        let Some(last) = profiles.last() else { break };
        from = (last.last_updated, last.user_id.clone());
        let whole = profiles.len() as i64 == STEP;
        let entries: Vec<Entry> = profiles.into_iter().map(entry).collect();
        cache.put(&entries).await?;
        if !whole {
            break;
        }
    }
    cache.set_mark((now.unix_timestamp_nanos() / 1_000_000) as i64).await?;
    Ok(())
}
