//! A message on its way into the store, and what became of it.

use std::sync::Arc;

use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

/// The latest time that PostgreSQL and `time` agree on, in milliseconds: the end of the year 9999.
const LAST_MS: i64 = 253_402_300_799_999;

/// An entry of the queue, from where a message comes. It also says when the message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The queue's partition.
    pub partition: i16,
    /// The entry's milliseconds since 1970: the time of acceptance.
    pub ms: i64,
    /// The entry's number within its millisecond.
    pub seq: i64,
}

impl Place {
    /// When the message was accepted. Milliseconds that no calendar holds count as the nearest that one does.
    pub fn accepted_at(&self) -> OffsetDateTime {
        let nanos = i128::from(self.ms.clamp(0, LAST_MS)) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// An accepted message, as a worker hands it over. No `Debug`: it holds personal data.
#[derive(Clone)]
pub struct NewMessage {
    /// The 16-byte digest of (source, key): what makes it the same event when it comes again.
    pub key: Uuid,
    /// Who sends to us, for instance `messenger`.
    pub source: Arc<str>,
    /// The provider's id of the message.
    pub external_message_id: String,
    /// The provider's id of the client.
    pub external_client_id: String,
    /// The client's phone, if the message tells it.
    pub client_phone: Option<String>,
    /// The provider's id of the dialog; empty if the source knows none.
    pub external_dialog_id: String,
    /// What was written.
    pub text: Option<String>,
    /// What else came with it, as JSON text.
    pub extra: Option<Box<RawValue>>,
    /// When it was sent, by the provider's clock. Decides the partition; kept to the microsecond.
    pub send_at: OffsetDateTime,
    /// The trace that the message was accepted under.
    pub trace_id: Option<Uuid>,
    /// Of the content: tells a repeat from another message under the same key.
    pub fingerprint: i64,
    /// The entry it comes from.
    pub place: Place,
}

/// What became of one message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is a row now.
    Stored {
        /// The row's id.
        message_id: i64,
    },
    /// This very entry was stored before, by a worker that died before it could say so. Counts as stored.
    AlreadyStored {
        /// The row's id; none if the event made no message.
        message_id: Option<i64>,
    },
    /// Another entry with the same key and content is stored.
    Duplicate {
        /// The entry that was stored.
        first: Place,
        /// Its row's id; none if the event made no message.
        message_id: Option<i64>,
    },
    /// Another entry with the same key and *other* content is stored. Somebody must look at it.
    Conflict {
        /// The entry that was stored.
        first: Place,
    },
}
