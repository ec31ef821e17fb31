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

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use time::OffsetDateTime;

use crate::NewMessage;

const TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// A bounded memory of dialogs. Cheap to clone; clones share it. One per process and database.
#[derive(Clone)]
pub struct DialogCache {
    dialogs: Cache<DialogKey, Arc<KnownDialog>>,
}

impl fmt::Debug for DialogCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialogCache").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl DialogCache {
    /// Remembers at most about `capacity` dialogs (some 300 bytes each), each for ten minutes.
    pub fn new(capacity: u64) -> Self {
        Self::with_time_to_live(capacity, TIME_TO_LIVE)
    }

    /// Like [`new`](Self::new), with another time to live.
    pub fn with_time_to_live(capacity: u64, time_to_live: Duration) -> Self {
        let dialogs = Cache::builder().max_capacity(capacity).time_to_live(time_to_live).build();
        Self { dialogs }
    }

    /// What is remembered of a dialog.
    pub fn get(&self, key: &DialogKey) -> Option<Arc<KnownDialog>> {
        self.dialogs.get(key)
    }

    /// How many dialogs are remembered, roughly: for metrics.
    pub fn len(&self) -> u64 {
        self.dialogs.entry_count()
    }

    /// Whether nothing is remembered, as roughly as [`len`](Self::len).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn put(&self, key: DialogKey, dialog: KnownDialog) {
        self.dialogs.insert(key, Arc::new(dialog));
    }

    pub(crate) fn forget(&self, batch: &[NewMessage]) {
        for message in batch {
            self.dialogs.invalidate(&DialogKey::of(message));
        }
    }
}

/// How a source names a dialog. No `Debug`: the ids are personal data.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DialogKey {
    source: Arc<str>,
    external_client_id: Box<str>,
    external_dialog_id: Box<str>,
}

impl DialogKey {
    /// The dialog that the message belongs to.
    pub fn of(message: &NewMessage) -> Self {
        Self {
            source: Arc::clone(&message.source),
            external_client_id: message.external_client_id.as_str().into(),
            external_dialog_id: message.external_dialog_id.as_str().into(),
        }
    }
}

/// A dialog and its client, as a committed transaction of this process left or found them. No `Debug`: it holds a
/// phone.
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
