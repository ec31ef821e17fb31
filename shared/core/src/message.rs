//! One accepted webhook, and the envelope in which it travels through the queue.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Version of the entries that hold a [`Message`]. An entry of a version that a worker does not know is parked for one that
/// does.
pub const ENTRY_VERSION: &str = "1";

/// One accepted webhook with its fields normalised. As JSON it is the envelope of a stream entry.
///
/// Fields that a newer writer adds are ignored by an older reader; a change that an older reader must not miss needs a
/// new [`ENTRY_VERSION`].
#[derive(Debug, Clone, Deserialize)]
pub struct Message<'a> {
    /// Name of the configured source that sent it.
    #[serde(rename = "src", borrow)]
    pub source: Cow<'a, str>,
    /// The sender's id: with `source` it decides what is the same message.
    #[serde(rename = "id", borrow)]
    pub external_message_id: Cow<'a, str>,
    /// The sender's id of the client.
    #[serde(rename = "client", borrow)]
    pub external_client_id: Cow<'a, str>,
    /// E.164: `+` and 7 to 15 digits.
    #[serde(rename = "phone", borrow)]
    pub client_phone: Cow<'a, str>,
    /// 1 to 4096 characters without NUL.
    #[serde(rename = "text", borrow)]
    pub message_text: Cow<'a, str>,
    /// Unix seconds, as the sender says.
    #[serde(rename = "sent")]
    pub send_at: i64,
    /// Fields that the format does not know, as one JSON object, byte for byte.
    #[serde(borrow, default)]
    pub extra: Option<&'a RawValue>,
    /// W3C `traceparent` of the request.
    #[serde(rename = "trace", borrow, default)]
    pub traceparent: Cow<'a, str>,
}

impl Message<'_> {
    /// The id that makes this the same message when it comes again.
    pub fn key(&self) -> MessageKey {
        MessageKey::new(&self.source, &self.external_message_id)
    }

    /// What tells a repeat from a conflict. It covers the normalised fields, not unknown ones and not the bytes: a
    /// retry that was serialised anew is a repeat.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for field in [&self.external_client_id, &self.client_phone, &self.message_text] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field.as_bytes());
        }
        hash.update(self.send_at.to_be_bytes());
        Fingerprint::of(hash)
    }

    /// The envelope of a stream entry.
    pub fn encode(&self) -> Vec<u8> {
        let extra = self.extra.map_or("", RawValue::get);
        let mut json = Vec::with_capacity(256 + self.message_text.len() + extra.len());
        let strings = [
            (r#"{"src":"#, &self.source),
            (r#","id":"#, &self.external_message_id),
            (r#","client":"#, &self.external_client_id),
            (r#","phone":"#, &self.client_phone),
            (r#","text":"#, &self.message_text),
            (r#","trace":"#, &self.traceparent),
        ];
        for (name, value) in strings {
            json.extend_from_slice(name.as_bytes());
            push_string(&mut json, value);
        }
        json.extend_from_slice(br#","sent":"#);
        json.extend_from_slice(itoa::Buffer::new().format(self.send_at).as_bytes());
        if !extra.is_empty() {
            json.extend_from_slice(br#","extra":"#);
            json.extend_from_slice(extra.as_bytes());
        }
        json.push(b'}');
        json
    }
}

/// Writes a JSON string. Few have anything to escape; to look for that first, many bytes at once, is several times faster
/// than to write byte by byte.
fn push_string(json: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    } else {
        serde_json::to_writer(json, text).expect("a string is always JSON");
    }
}

/// A 128-bit cryptographic digest of (source, external message id).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey(pub [u8; 16]);

impl MessageKey {
    /// The key of what `source` calls `external_message_id`.
    pub fn new(source: &str, external_message_id: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update((source.len() as u64).to_be_bytes());
        hash.update(source.as_bytes());
        hash.update(external_message_id.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(bytes)
    }

    /// The partition that holds every copy of this message: `0..partitions`.
    pub fn partition(&self, partitions: u16) -> u16 {
        let [a, b, c, d, ..] = self.0;
        (u32::from_be_bytes([a, b, c, d]) % u32::from(partitions)) as u16
    }

    /// The dedupe bucket of this message among `buckets`; independent of the partition.
    pub fn bucket(&self, buckets: u32) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_be_bytes([a, b, c, d]) % buckets.max(1)
    }

    /// What tells this message from others in its dedupe bucket: the 96 bits that do not choose the bucket.
    pub fn in_bucket(&self) -> &[u8] {
        &self.0[..12]
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// 56 bits of a digest over a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 7]);

impl Fingerprint {
    /// The first bits of what was hashed.
    pub(crate) fn of(hash: Sha256) -> Self {
        let mut bytes = [0; 7];
        bytes.copy_from_slice(&hash.finalize()[..7]);
        Self(bytes)
    }

    /// The fingerprint as a number that is never negative.
    pub fn as_i64(self) -> i64 {
        self.0.iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte))
    }
}

/// The place of a message in the ingest streams, which is the id senders and operators see: `3-1732233600000-12` is
/// partition 3, entry `1732233600000-12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// Partition, `0..P`.
    pub partition: u16,
    /// Unix milliseconds on the Redis clock at which it was accepted.
    pub ms: u64,
    /// Counts the entries of one millisecond.
    pub seq: u64,
}

impl MessageId {
    /// The entry id within its partition's stream.
    pub fn entry(&self) -> String {
        format!("{}-{}", self.ms, self.seq)
    }

    /// The id as senders and operators see it.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(32);
        text.push_str(itoa::Buffer::new().format(self.partition));
        for number in [self.ms, self.seq] {
            text.push('-');
            text.push_str(itoa::Buffer::new().format(number));
        }
        text
    }

    /// The id of entry `ms-seq` of a partition.
    pub fn from_entry(partition: u16, entry: &str) -> Option<Self> {
        let (ms, seq) = entry.split_once('-')?;
        Some(Self { partition, ms: digits(ms)?, seq: digits(seq)? })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// The text is no message id.
#[derive(Debug, thiserror::Error)]
#[error("a message id looks like 3-1732233600000-12")]
pub struct NoMessageId;

impl FromStr for MessageId {
    type Err = NoMessageId;

    fn from_str(text: &str) -> Result<Self, NoMessageId> {
        let (partition, entry) = text.split_once('-').ok_or(NoMessageId)?;
        let partition = digits(partition).ok_or(NoMessageId)?;
        Self::from_entry(partition, entry).ok_or(NoMessageId)
    }
}

/// A number of nothing but digits; Rust's own reading takes a sign too.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Message<'static> {
        Message {
            source: "messenger".into(),
            external_message_id: "1a2b".into(),
            external_client_id: "fedc".into(),
            client_phone: "+79194961182".into(),
            message_text: "Привет!".into(),
            send_at: 1_640_995_200,
            extra: None,
            traceparent: "".into(),
        }
    }

    #[test]
    fn an_envelope_survives_the_queue() {
        let extra = r#"{"huge":123456789012345678901234567890,"b":[1.0]}"#;
        let raw: &RawValue = serde_json::from_str(extra).unwrap();
        let message = Message { extra: Some(raw), ..sample() };
        let bytes = message.encode();
        let back: Message<'_> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(back.message_text, "Привет!");
        assert_eq!(back.extra.unwrap().get(), extra);
        assert_eq!(back.fingerprint(), message.fingerprint());
    }

    #[test]
    fn a_field_of_a_newer_writer_is_tolerated() {
        let text = r#"{"src":"m","id":"1","client":"c","phone":"+7","text":"t","sent":1,"new":{"x":1}}"#;
        assert!(serde_json::from_str::<Message<'_>>(text).is_ok());
    }

    #[test]
    fn the_fingerprint_sees_where_a_field_ends() {
        let one = Message { external_client_id: "ab".into(), client_phone: "c".into(), ..sample() };
        let two = Message { external_client_id: "a".into(), client_phone: "bc".into(), ..sample() };
        assert_ne!(one.fingerprint(), two.fingerprint());
    }

    #[test]
    fn the_key_sees_where_the_source_ends() {
        assert_ne!(MessageKey::new("ab", "c"), MessageKey::new("a", "bc"));
    }

    #[test]
    fn a_message_id_is_read_as_it_is_written() {
        let id = MessageId { partition: 3, ms: 1_732_233_600_000, seq: 12 };
        assert_eq!(id.to_string(), "3-1732233600000-12");
        assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
        for text in ["1a2b3c", "", "-", "--", "3-1", "3-1-", "+3-1-2", "3-+1-2", "3-1-2-4", "65536-1-2", "3-1-\u{661}"]
        {
            assert!(text.parse::<MessageId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_message_survives_the_queue(
            texts in prop::collection::vec(any::<String>(), 6),
            send_at in any::<i64>(),
            extra in prop::option::of(any::<String>()),
        ) {
            let extra = extra.map(|text| serde_json::json!({ "x": text }).to_string());
            let raw: Option<&RawValue> = extra.as_deref().map(|text| serde_json::from_str(text).unwrap());
            let text = |at: usize| Cow::Borrowed(texts[at].as_str());
            let message = Message {
                source: text(0),
                external_message_id: text(1),
                external_client_id: text(2),
                client_phone: text(3),
                message_text: text(4),
                send_at,
                extra: raw,
                traceparent: text(5),
            };
            let bytes = message.encode();
            let back: Message<'_> = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(back.encode(), bytes.clone());
            prop_assert_eq!((back.key(), back.fingerprint()), (message.key(), message.fingerprint()));
            prop_assert_eq!(&back.traceparent, &message.traceparent);
            prop_assert_eq!(back.extra.map(RawValue::get), message.extra.map(RawValue::get));
            prop_assert!(back.key().partition(4) < 4 && back.key().bucket(7) < 7);
        }

        #[test]
        fn no_bytes_make_reading_an_envelope_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Message<'_>>(&bytes);
        }

        #[test]
        fn any_message_id_is_read_as_it_is_written(partition in any::<u16>(), ms in any::<u64>(), seq in any::<u64>()) {
            let id = MessageId { partition, ms, seq };
            prop_assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
            prop_assert_eq!(MessageId::from_entry(partition, &id.entry()), Some(id));
        }

        #[test]
        fn what_is_read_as_a_message_id_is_nothing_but_digits(text in "[0-9+ -]{0,12}|\\PC{0,12}") {
            if let Ok(id) = text.parse::<MessageId>() {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
                prop_assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
            }
        }
    }
}
