//! An event on its way into the store, and what became of it.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

/// The latest time that PostgreSQL and `time` agree on, in milliseconds: the end of the year 9999.
const LAST_MS: i64 = 253_402_300_799_999;

/// An entry of the queue, from where an event comes. It also says when the event was accepted. As text it is the message id
/// that senders and operators see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::FromRow)]
pub struct Place {
    /// The queue's partition.
    pub partition: i16,
    /// The entry's milliseconds since 1970: the time of acceptance.
    pub ms: i64,
    /// The entry's number within its millisecond.
    pub seq: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.partition, self.ms, self.seq)
    }
}

impl Place {
    /// When the message was accepted. Milliseconds that no calendar holds count as the nearest that one does.
    pub fn accepted_at(&self) -> OffsetDateTime {
        let nanos = i128::from(self.ms.clamp(0, LAST_MS)) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// An accepted event, as a worker hands it over: mostly a new message. No `Debug`: it holds personal data.
#[derive(Clone)]
pub struct NewEvent {
    /// The 16-byte digest of (source, key): what makes it the same event when it comes again.
    pub key: Uuid,
    /// Who sends to us, for instance `messenger`.
    pub source: Arc<str>,
    /// What it does to a message. Unless it makes one, the next four fields and, but for an edit, text and extra mean nothing.
    pub effect: Effect,
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
    /// When the message was sent, or when another event happened, by the provider's clock. Decides a message's partition; kept
    /// to the microsecond.
    pub send_at: OffsetDateTime,
    /// The trace that the event was accepted under.
    pub trace_id: Option<Uuid>,
    /// Of the content: tells a repeat from another event under the same key.
    pub fingerprint: i64,
    /// The entry it comes from.
    pub place: Place,
    /// What else it tells of, if its source sends more than messages.
    pub news: Option<Box<News>>,
}

/// What an event does to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is new.
    Message,
    /// It has another text and other attachments now.
    Edit {
        /// The key of the event that made the message.
        of: Uuid,
    },
    /// It is gone at the provider.
    Removal {
        /// The key of the event that made the message.
        of: Uuid,
    },
    /// Nothing.
    None,
}

/// What an event tells of besides a message. No `Debug`: it holds personal data.
#[derive(Clone)]
pub struct News {
    /// The provider's word for the event, such as `message_created`.
    pub kind: String,
    /// When it happened, by the provider's clock. Not when its message was sent: an edit comes later.
    pub at: OffsetDateTime,
    /// Whom it tells of.
    pub person: Option<Person>,
}

/// A person as an event describes them. No `Debug`: it is personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    /// The provider's id.
    pub user_id: String,
    /// First and last name, each empty if they have none. None if the event names nobody.
    pub names: Option<(String, String)>,
    /// E.164, if the event proves that it is theirs.
    pub phone: Option<String>,
}

/// What became of one event of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is stored now.
    Stored {
        /// The message's row; none if the event makes no message.
        message_id: Option<i64>,
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
