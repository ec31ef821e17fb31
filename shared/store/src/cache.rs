//! What this process remembers of clients and dialogs, so that a message of a known client costs no look-up.
//!
//! Ids never change, so they cannot be stale. Phones can: another worker may have changed one. What holds then:
//!
//! - A phone is never overwritten by an older one: the statement that writes it compares `phone_at`.
//! - A message's phone is *not* written if it equals the remembered phone or is older than the remembered `phone_at`.
//!   So a stale memory can only lose a change *back* to the phone that it remembers.
//! - Such a loss ends with the client's first message that tells its phone and is accepted more than a minute after the
//!   remembered `last_seen_at`: it writes the row, phone included, and the memory takes over what the row then says.
//!   At the latest it ends with the time to live.
//!
//! A client or dialog that somebody deletes is remembered for the time to live; a foreign key that fails because of it
//! makes `persist` forget the batch's dialogs and try again.
//!
//! It is read for every message, so it is two maps and no more: what is put goes into the young one; when that holds half
//! of the capacity it becomes the old one, and the old one is forgotten. What is found in the old one moves to the young.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::NewEvent;

const TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// A bounded memory of dialogs. Cheap to clone; clones share it. One per process and database.
#[derive(Clone)]
pub struct DialogCache {
    generations: Arc<Mutex<Generations>>,
    time_to_live: Duration,
}

impl fmt::Debug for DialogCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialogCache").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl DialogCache {
    /// Remembers at most `capacity` dialogs (some 300 bytes each), each for ten minutes.
    pub fn new(capacity: u64) -> Self {
        Self::with_time_to_live(capacity, TIME_TO_LIVE)
    }

    /// Like [`new`](Self::new), with another time to live.
    pub fn with_time_to_live(capacity: u64, time_to_live: Duration) -> Self {
        let half = usize::try_from(capacity / 2).unwrap_or(usize::MAX);
        let generations = Generations { half, young: HashMap::new(), old: HashMap::new() };
        Self { generations: Arc::new(Mutex::new(generations)), time_to_live }
    }

    /// What is remembered of a dialog.
    pub fn get(&self, key: &DialogKey) -> Option<KnownDialog> {
        self.lock().get(&key.0, self.time_to_live)
    }

    /// How many dialogs are remembered, those included whose time is over.
    pub fn len(&self) -> usize {
        let generations = self.lock();
        generations.young.len() + generations.old.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For look-ups one after the other.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { cache: self, key: Vec::new() }
    }

    pub(crate) fn put(&self, key: DialogKey, dialog: KnownDialog) {
        self.lock().put(key, (dialog, Instant::now()));
    }

    pub(crate) fn forget(&self, batch: &[NewEvent]) {
        let mut generations = self.lock();
        for message in batch {
            let DialogKey(key) = DialogKey::of(message);
            generations.young.remove(&*key);
            generations.old.remove(&*key);
        }
    }

    /// No map is ever left half changed, so a panic elsewhere harms nothing here.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks dialogs up without memory for a key of each.
pub(crate) struct Reader<'c> {
    cache: &'c DialogCache,
    key: Vec<u8>,
}

impl Reader<'_> {
    pub(crate) fn find(&mut self, message: &NewEvent) -> Option<KnownDialog> {
        self.key.clear();
        write_key(&mut self.key, message);
        self.cache.lock().get(&self.key, self.cache.time_to_live)
    }
}

/// A dialog, and since when it is remembered.
type Remembered = (KnownDialog, Instant);

struct Generations {
    /// Of the capacity: what the young one may hold.
    half: usize,
    young: HashMap<DialogKey, Remembered>,
    old: HashMap<DialogKey, Remembered>,
}

impl Generations {
    fn get(&mut self, key: &[u8], time_to_live: Duration) -> Option<KnownDialog> {
        if let Some((dialog, since)) = self.young.get(key) {
            return (since.elapsed() < time_to_live).then(|| dialog.clone());
        }
        let (key, remembered) = self.old.remove_entry(key)?;
        let dialog = (remembered.1.elapsed() < time_to_live).then(|| remembered.0.clone())?;
        self.put(key, remembered);
        Some(dialog)
    }

    fn put(&mut self, key: DialogKey, remembered: Remembered) {
        self.old.remove(&key);
        self.young.insert(key, remembered);
        if self.young.len() > self.half {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

/// How a source names a dialog: source, client and dialog, the first two after their lengths. No `Debug`: the ids are
/// personal data.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DialogKey(Box<[u8]>);

impl DialogKey {
    /// The dialog that the message belongs to.
    pub fn of(message: &NewEvent) -> Self {
        let mut key = Vec::new();
        write_key(&mut key, message);
        Self(key.into())
    }
}

impl Borrow<[u8]> for DialogKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

fn write_key(key: &mut Vec<u8>, message: &NewEvent) {
    for part in [&*message.source, message.external_client_id.as_str()] {
        key.extend_from_slice(&part.len().to_be_bytes());
        key.extend_from_slice(part.as_bytes());
    }
    key.extend_from_slice(message.external_dialog_id.as_bytes());
}

/// A dialog and its client, as a committed transaction of this process left or found them. No `Debug`: it holds a
/// phone.
#[derive(Clone)]
pub struct KnownDialog {
    /// The row of `dialogs`.
    pub dialog_id: i64,
    pub(crate) client: KnownClient,
}

impl KnownDialog {
    /// The row of `clients`.
    pub fn client_id(&self) -> i64 {
        self.client.id
    }
}

/// A row of `clients`, as far as it matters for whether to write it again.
#[derive(Clone)]
pub(crate) struct KnownClient {
    pub(crate) id: i64,
    pub(crate) phone: Option<Arc<str>>,
    pub(crate) phone_at: Option<OffsetDateTime>,
    pub(crate) last_seen_at: OffsetDateTime,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    fn message(source: &str, client: &str, dialog: &str) -> NewEvent {
        NewEvent {
            key: uuid::Uuid::nil(),
            source: source.into(),
            external_message_id: String::new(),
            external_client_id: client.to_owned(),
            client_phone: None,
            external_dialog_id: dialog.to_owned(),
            text: None,
            extra: None,
            send_at: OffsetDateTime::UNIX_EPOCH,
            trace_id: None,
            fingerprint: 0,
            effect: crate::Effect::Message,
            news: None,
            place: Place { partition: 0, ms: 0, seq: 0 },
        }
    }

    fn of_client(number: i64) -> NewEvent {
        message("messenger", &number.to_string(), "")
    }

    fn remember(cache: &DialogCache, number: i64) {
        let client = KnownClient { id: number, phone: None, phone_at: None, last_seen_at: OffsetDateTime::UNIX_EPOCH };
        cache.put(DialogKey::of(&of_client(number)), KnownDialog { dialog_id: number, client });
    }

    fn knows(cache: &DialogCache, number: i64) -> bool {
        cache.reader().find(&of_client(number)).is_some_and(|known| known.dialog_id == number)
    }

    #[test]
    fn no_more_than_the_capacity_is_remembered_and_the_newest_of_it() {
        let cache = DialogCache::new(100);
        for number in 0..1000 {
            remember(&cache, number);
            assert!(cache.len() <= 100 && knows(&cache, number));
        }
        assert!(cache.len() >= 50 && knows(&cache, 950) && !knows(&cache, 0));
    }

    #[test]
    fn who_is_asked_for_is_not_forgotten() {
        let cache = DialogCache::new(100);
        remember(&cache, 0);
        for number in 1..1000 {
            remember(&cache, number);
            assert!(knows(&cache, 0));
        }
    }

    #[test]
    fn nothing_is_remembered_for_longer_than_the_time_to_live() {
        let cache = DialogCache::with_time_to_live(100, Duration::ZERO);
        remember(&cache, 1);
        assert!(!knows(&cache, 1));
        // Nor once it is old.
        (2..60).for_each(|number| remember(&cache, number));
        assert!(!knows(&cache, 1));
    }

    #[test]
    fn what_is_forgotten_is_gone_wherever_it_was() {
        let cache = DialogCache::new(100);
        (0..75).for_each(|number| remember(&cache, number));
        cache.forget(&[of_client(10), of_client(74)]);
        assert!(!knows(&cache, 10) && !knows(&cache, 74) && knows(&cache, 11));
    }

    #[test]
    fn ids_that_read_the_same_one_after_the_other_are_two_dialogs() {
        let key = |source, client, dialog| DialogKey::of(&message(source, client, dialog));
        assert!(key("ab", "c", "d") == key("ab", "c", "d"));
        assert!(key("ab", "c", "d") != key("a", "bc", "d") && key("ab", "c", "d") != key("ab", "cd", ""));
    }
}
