//! Whether the queue sends what PostgreSQL does not know yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Batches that go row by row after one that met a key which was taken: what comes again comes in crowds, after an outage
/// or by a replay, and a transaction that fails costs more than its key is worth, and a line of the server's log.
const BATCHES: u32 = 200;

/// Shared by all batches of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    /// Batches that have to pass until it is back.
    away_for: Arc<AtomicU32>,
}

impl Trust {
    /// To be asked once for each batch.
    pub(super) fn holds(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.away_for.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err()
    }

    pub(super) fn lost(&self) {
        self.away_for.store(BATCHES, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_comes_back_after_so_many_batches() {
        let trust = Trust::default();
        assert!(trust.holds() && trust.holds());
        trust.lost();
        assert_eq!((0..1000).filter(|_| !trust.holds()).count(), BATCHES as usize);
        assert!(trust.holds());
    }
}
