use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Found;

/// What the readers of the cache got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Profiles that were there.
    pub hits: u64,
    /// Profiles that were not, or could not be read.
    pub misses: u64,
    /// Calls that failed, and values that could not be read.
    pub errors: u64,
    /// Microseconds that reading took, over all calls that were answered.
    pub micros: u64,
    /// Calls that were answered.
    pub reads: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    micros: AtomicU64,
    reads: AtomicU64,
}

impl Counts {
    pub(super) fn read<T, E>(&self, result: &Result<T, E>, took: Duration) {
        match result {
            Ok(_) => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
                metrics::histogram!("weir_profile_cache_seconds").record(took.as_secs_f64());
            }
            Err(_) => self.failed(),
        }
    }

    pub(super) fn found<P>(&self, found: &Found<P>) {
        let (counter, label) = match found {
            Found::Hit(_) => (&self.hits, "hit"),
            Found::Miss | Found::Broken(_) => (&self.misses, "miss"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("weir_profile_cache_total", "result" => label).increment(1);
        if let Found::Broken(_) = found {
            self.failed();
        }
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("weir_profile_cache_total", "result" => "error").increment(1);
    }

    pub(super) fn take(&self) -> CacheCounts {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        CacheCounts {
            hits: take(&self.hits),
            misses: take(&self.misses),
            errors: take(&self.errors),
            micros: take(&self.micros),
            reads: take(&self.reads),
        }
    }
}
