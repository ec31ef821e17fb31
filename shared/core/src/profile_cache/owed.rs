//! What this process failed to write: those values may be stale until they are taken out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ids remembered at most, some ten megabytes. What is beyond stays as it is until its profile changes again or its time
/// is over.
const MOST: usize = 100_000;

/// One id, and which of the failures it is there for.
pub(super) type Debt = (Box<str>, u64);

#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<Debts>);

#[derive(Debug, Default)]
struct Debts {
    ids: HashMap<Box<str>, u64>,
    failures: u64,
}

impl Owed {
    fn debts(&self) -> MutexGuard<'_, Debts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add<'a>(&self, user_ids: impl Iterator<Item = &'a str>) {
        let mut debts = self.debts();
        debts.failures += 1;
        let failure = debts.failures;
        for id in user_ids {
            if debts.ids.len() >= MOST && !debts.ids.contains_key(id) {
                tracing::warn!(
                    "more profiles changed while the cache was away than are remembered: some in it are stale"
                );
                return;
            }
            debts.ids.insert(id.into(), failure);
        }
    }

    pub(super) fn contains(&self, user_id: &str) -> bool {
        self.debts().ids.contains_key(user_id)
    }

    /// Some of them; none if there is none.
    pub(super) fn some(&self, most: usize) -> Option<Vec<Debt>> {
        let some: Vec<Debt> = self.debts().ids.iter().take(most).map(|(id, failure)| (id.clone(), *failure)).collect();
        (!some.is_empty()).then_some(some)
    }

    /// These are taken out, so far as no write has failed since.
    pub(super) fn settle(&self, settled: &[Debt]) {
        let mut debts = self.debts();
        for (id, failure) in settled {
            if debts.ids.get(id) == Some(failure) {
                debts.ids.remove(id);
            }
        }
        if debts.ids.is_empty() {
            debts.ids.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_that_was_made_again_meanwhile_stays() {
        let owed = Owed::default();
        owed.add(["a", "b"].into_iter());
        let debts = owed.some(10).unwrap();
        owed.add(["a"].into_iter());
        owed.settle(&debts);
        assert!(owed.contains("a") && !owed.contains("b"));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let owed = Owed::default();
        let ids: Vec<String> = (0..=MOST).map(|n| n.to_string()).collect();
        owed.add(ids.iter().map(String::as_str));
        assert_eq!(owed.some(usize::MAX).unwrap().len(), MOST);
    }
}
