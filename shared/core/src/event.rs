//! What a provider tells of that is more than one new message: changed and removed messages, and people. It travels in
//! entries of its own version, so that a worker that does not know it leaves it for one that does.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::message::{Fingerprint, MessageKey};

/// Version of the entries that hold an [`Event`].
pub const EVENT_VERSION: &str = "2";

/// One accepted event. As JSON it is the envelope of a stream entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event<'a> {
    /// Name of the configured source that sent it.
    #[serde(rename = "src", borrow)]
    pub source: Cow<'a, str>,
    /// What makes it the same event when it comes again, unique within its source.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The provider's word for it, such as `message_created`.
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// Unix milliseconds of the event, by the provider's clock. Decides which of two profiles is the newer one.
    #[serde(rename = "at")]
    pub at_ms: i64,
    /// What it does to a message.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageChange<'a>>,
    /// Whom it tells of.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User<'a>>,
    /// W3C `traceparent` of the request.
    #[serde(rename = "trace", borrow, default)]
    pub traceparent: Cow<'a, str>,
}

/// What happens to a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageChange<'a> {
    /// It is new.
    #[serde(borrow)]
    Created(Content<'a>),
    /// Its text or attachments are others now.
    Edited {
        /// The id of the event that created it.
        #[serde(borrow)]
        of: Cow<'a, str>,
        /// What it is now.
        #[serde(borrow)]
        content: Content<'a>,
    },
    /// It is gone at the provider.
    Removed {
        /// The id of the event that created it.
        #[serde(borrow)]
        of: Cow<'a, str>,
    },
}

/// A message as it is after the event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Content<'a> {
    /// The provider's id of the message.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The provider's id of who wrote it.
    #[serde(borrow)]
    pub client: Cow<'a, str>,
    /// The provider's id of the dialog; empty if it knows none.
    #[serde(borrow, default)]
    pub dialog: Cow<'a, str>,
    /// What was written; none if there is nothing but attachments.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
    /// Unix milliseconds at which it was sent.
    #[serde(rename = "sent")]
    pub sent_ms: i64,
    /// What else came with it, as one JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Cow<'a, RawValue>>,
}

/// A person as the provider describes them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User<'a> {
    /// The provider's id, whether it writes it as a number or as a string.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// None if the event does not say, empty if they have none.
    #[serde(rename = "first", borrow, default, skip_serializing_if = "Option::is_none")]
    pub first_name: Option<Cow<'a, str>>,
    /// None if the event does not say, empty if they have none.
    #[serde(rename = "last", borrow, default, skip_serializing_if = "Option::is_none")]
    pub last_name: Option<Cow<'a, str>>,
    /// E.164, if the event proves that it is theirs.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Cow<'a, str>>,
}

/// The id of the event that made a message, by the message's own id: what it is known by in the queue. Other sources send
/// nothing but messages, whose ids are it.
pub fn id_of_message(source: &str, id: &str) -> String {
    if source == "max" { format!("mc:{id}") } else { id.to_owned() }
}

impl Event<'_> {
    /// See [`MessageKey`].
    pub fn key(&self) -> MessageKey {
        MessageKey::new(&self.source, &self.id)
    }

    /// What tells a repeat from a conflict: what the event is and does, not how a person is described at that moment.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        let mut add = |field: &str| {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        };
        add(&self.kind);
        add(self.user.as_ref().map_or("", |user| &user.id));
        match &self.message {
            None => {}
            Some(MessageChange::Removed { of }) => add(of),
            Some(MessageChange::Created(content) | MessageChange::Edited { content, .. }) => {
                for field in [&content.id, &content.client, &content.dialog] {
                    add(field);
                }
                add(content.text.as_deref().unwrap_or_default());
            }
        }
        Fingerprint::of(hash)
    }

    /// The envelope of a stream entry.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an event of strings and numbers is always JSON")
    }
}
