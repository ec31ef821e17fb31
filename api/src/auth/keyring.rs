//! What this process remembers of keys, so that a request costs no look-up.
//!
//! A key is believed for three seconds, then the database is asked again: a revoked one ends within that and the time of
//! one look-up. Keys that are not known are remembered as well; what has not even a key's form never comes here. While
//! PostgreSQL is away nobody is believed for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use weir_store::{Store, StoreError, StoredKey};

use super::Caller;
use super::key::ApiKey;

/// How long a key is believed.
const BELIEVED: Duration = Duration::from_secs(3);

/// How old `last_used_at` may become before it is written again.
const NOTED_EVERY: Duration = Duration::from_secs(45);

/// Keys that are remembered at most. Beyond that those are forgotten first that are nobody's.
const CAPACITY: usize = 4096;

/// Look-ups at once for keys that nobody is known to have: whoever invents keys must not take all connections from those who
/// have one.
const STRANGERS: usize = 2;

/// The keys that were seen of late.
#[derive(Clone)]
pub(crate) struct Keyring {
    store: Store,
    known: Arc<Mutex<HashMap<String, Known>>>,
    strangers: Arc<Semaphore>,
}

/// What is known under a prefix.
#[derive(Clone)]
struct Known {
    /// None if there is no such key.
    key: Option<Arc<StoredKey>>,
    asked: Instant,
    /// When its use was last written down.
    noted: Option<Instant>,
}

impl Keyring {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, known: Arc::default(), strangers: Arc::new(Semaphore::new(STRANGERS)) }
    }

    /// Whose key this is; none if it is nobody's.
    pub(crate) async fn caller(&self, presented: &ApiKey) -> Result<Option<Caller>, StoreError> {
        let known = match self.remembered(presented.prefix()) {
            Some(known) => known,
            None => self.look_up(presented.prefix()).await?,
        };
        let Some(key) = known.key else { return Ok(None) };
        let is_the_same = bool::from(key.hash.as_slice().ct_eq(&presented.hash()));
        if !is_the_same {
            return Ok(None);
        }
        self.note_use(&key);
        Ok(Some(Caller { name: key.name.as_str().into(), role: key.role }))
    }

    fn remembered(&self, prefix: &str) -> Option<Known> {
        self.lock().get(prefix).filter(|known| known.asked.elapsed() < BELIEVED).cloned()
    }

    async fn look_up(&self, prefix: &str) -> Result<Known, StoreError> {
        let is_known = self.lock().get(prefix).is_some_and(|known| known.key.is_some());
        let place = if is_known { None } else { self.strangers.acquire().await.ok() };
        // From before the question: a key that is revoked while it is under way is not believed for longer.
        let asked = Instant::now();
        let key = self.store.find_key(prefix).await?.map(Arc::new);
        drop(place);
        let mut known = self.lock();
        make_room(&mut known, CAPACITY);
        let noted = known.get(prefix).and_then(|before| before.noted);
        let now = Known { key, asked, noted };
        known.insert(prefix.to_owned(), now.clone());
        Ok(now)
    }

    /// Writes down that the key was used, unless that was done a moment ago. Nobody waits for it.
    fn note_use(&self, key: &StoredKey) {
        {
            let mut known = self.lock();
            let Some(known) = known.get_mut(&key.prefix) else { return };
            if known.noted.is_some_and(|noted| noted.elapsed() < NOTED_EVERY) {
                return;
            }
            known.noted = Some(Instant::now());
        }
        let (store, id) = (self.store.clone(), key.id);
        tokio::spawn(async move {
            if let Err(error) = store.note_key_use(id).await {
                tracing::warn!(%error, "when a key was last used could not be written down");
            }
        });
    }

    /// No entry is ever left half changed, so a panic elsewhere harms nothing here.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one more.
fn make_room(known: &mut HashMap<String, Known>, capacity: usize) {
    if known.len() >= capacity {
        known.retain(|_, known| known.key.is_some());
    }
    if known.len() >= capacity {
        known.clear();
    }
}

#[cfg(test)]
mod tests {
    use weir_store::Role;

    use super::*;

    fn known(is_somebodys: bool) -> Known {
        let (name, prefix) = (String::new(), String::new());
        let key = StoredKey { id: 1, name, role: Role::Read, prefix, hash: Vec::new() };
        Known { key: is_somebodys.then(|| Arc::new(key)), asked: Instant::now(), noted: None }
    }

    #[test]
    fn invented_keys_take_a_bounded_room_and_nobody_elses() {
        let mut keys = HashMap::from([("mine".to_owned(), known(true))]);
        for number in 0..1000 {
            make_room(&mut keys, 10);
            keys.insert(format!("invented {number}"), known(false));
            assert!(keys.len() <= 10 && keys.contains_key("mine"));
        }
        for number in 0..1000 {
            make_room(&mut keys, 10);
            keys.insert(format!("real {number}"), known(true));
            assert!(keys.len() <= 10);
        }
    }
}
