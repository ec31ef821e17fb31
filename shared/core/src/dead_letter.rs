//! A dead letter: the message as it came, and all that an operator needs to judge it.

use std::collections::HashMap;

use crate::journey::Journey;
use crate::message::Message;

/// Error classes of dead letters.
pub mod class {
    /// The same id came with other content after the dedupe window.
    pub const CONFLICT: &str = "conflict";
    /// Workers died while they processed the entry alone.
    pub const CRASH: &str = "crash";
    /// The entry is no message: it cannot be decoded.
    pub const DECODE: &str = "decode";
    /// PostgreSQL cannot hold the message's data.
    pub const DATA: &str = "data";
    /// The message breaks a constraint of the schema.
    pub const CONSTRAINT: &str = "constraint";
    /// The message's statement took too long again and again while others passed.
    pub const TIMEOUT: &str = "timeout";
    /// A bug of ours showed with this message.
    pub const INTERNAL: &str = "internal";
    /// The entry has a version that this build does not know (parked, not dead).
    pub const VERSION: &str = "version";
}

/// One entry of a `dead` or `parked` stream.
#[derive(Debug, Clone, Default)]
pub struct DeadLetter {
    /// Partition it is in.
    pub partition: u16,
    /// Its entry id in the stream, which also says when it died. Empty before it is written.
    pub entry: String,
    /// Entry version of the envelope.
    pub version: String,
    /// The envelope as it came; bytes of any kind when it could not be decoded.
    pub envelope: Vec<u8>,
    /// Attempts and failures.
    pub journey: Journey,
    /// Entry id at which it was first accepted.
    pub origin: String,
    /// Deaths of workers that processed it alone.
    pub crashes: u32,
    /// Error class, see [`class`].
    pub class: String,
    /// SQLSTATE or another short code, or empty.
    pub code: String,
    /// The error without any of the message's data.
    pub error: String,
    /// Source, when the envelope could be read.
    pub source: String,
    /// External message id, when the envelope could be read.
    pub external_message_id: String,
    /// Trace id (32 hex digits), when there is one.
    pub trace: String,
    /// Id of the replay after which it died again, or empty.
    pub replay: String,
    /// The envelope before an operator edited it, or empty.
    pub original: Vec<u8>,
    /// Who edited it, or empty.
    pub edited: String,
}

impl DeadLetter {
    /// Groups letters that died of the same thing: class, code and the error with numbers taken out.
    pub fn signature(&self) -> String {
        let mut shape = String::with_capacity(self.error.len());
        for c in self.error.chars() {
            match c {
                '0'..='9' if shape.ends_with('#') => {}
                '0'..='9' => shape.push('#'),
                _ => shape.push(c),
            }
        }
        let mut parts = vec![self.class.as_str()];
        parts.extend((!self.code.is_empty()).then_some(self.code.as_str()));
        parts.extend((!shape.is_empty()).then_some(shape.as_str()));
        parts.join(": ")
    }

    /// Fields for a `dead` or `parked` stream.
    pub fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut fields = vec![
            ("v", self.version.clone().into_bytes()),
            ("e", self.envelope.clone()),
            ("a", self.journey.encode().into_bytes()),
            ("o", self.origin.clone().into_bytes()),
            ("c", self.crashes.to_string().into_bytes()),
            ("class", self.class.clone().into_bytes()),
            ("error", self.error.clone().into_bytes()),
            ("source", self.source.clone().into_bytes()),
            ("id", self.external_message_id.clone().into_bytes()),
        ];
        for (name, value) in
            [("code", &self.code), ("trace", &self.trace), ("r", &self.replay), ("edited", &self.edited)]
        {
            if !value.is_empty() {
                fields.push((name, value.clone().into_bytes()));
            }
        }
        if !self.original.is_empty() {
            fields.push(("original", self.original.clone()));
        }
        fields
    }

    /// Reads an entry of a `dead` or `parked` stream; what is missing stays empty.
    pub fn from_fields(partition: u16, entry: String, mut fields: HashMap<String, Vec<u8>>) -> Self {
        let envelope = fields.remove("e").unwrap_or_default();
        let original = fields.remove("original").unwrap_or_default();
        let mut text = |name: &str| String::from_utf8_lossy(&fields.remove(name).unwrap_or_default()).into_owned();
        Self {
            partition,
            entry,
            version: text("v"),
            journey: Journey::decode(text("a").as_bytes()),
            origin: text("o"),
            crashes: text("c").parse().unwrap_or_default(),
            class: text("class"),
            code: text("code"),
            error: text("error"),
            source: text("source"),
            external_message_id: text("id"),
            trace: text("trace"),
            replay: text("r"),
            edited: text("edited"),
            envelope,
            original,
        }
    }

    /// Unix milliseconds at which it died.
    pub fn died_ms(&self) -> u64 {
        self.entry.split_once('-').and_then(|(ms, _)| ms.parse().ok()).unwrap_or_default()
    }

    /// The message inside, when it can be read.
    pub fn message(&self) -> Option<Message<'_>> {
        serde_json::from_slice(&self.envelope).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_that_differ_only_in_numbers_share_a_signature() {
        let letter = |error: &str| DeadLetter {
            class: "message".into(),
            code: "22003".into(),
            error: error.into(),
            ..Default::default()
        };
        assert_eq!(letter("row 17 of 400").signature(), "message: 22003: row # of #");
        assert_eq!(letter("row 17 of 400").signature(), letter("row 3 of 12").signature());
    }

    #[test]
    fn a_letter_is_read_as_it_is_written() {
        let letter = DeadLetter {
            entry: "5-0".into(),
            envelope: vec![0xff, 0x00],
            origin: "1-2".into(),
            class: "decode".into(),
            crashes: 2,
            ..Default::default()
        };
        let fields = letter.fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let back = DeadLetter::from_fields(1, "5-0".into(), fields);
        assert_eq!(
            (back.envelope, back.origin, back.crashes, back.class),
            (vec![0xff, 0x00], "1-2".into(), 2, "decode".into())
        );
    }

    proptest! {
        #[test]
        fn a_letter_of_any_bytes_is_read_as_it_is_written(
            texts in prop::collection::vec(any::<String>(), 9),
            envelope in prop::collection::vec(any::<u8>(), 0..60),
            crashes in any::<u32>(),
        ) {
            let text = |at: usize| texts[at].clone();
            let letter = DeadLetter {
                version: text(0),
                origin: text(1),
                class: text(2),
                code: text(3),
                error: text(4),
                source: text(5),
                external_message_id: text(6),
                replay: text(7),
                edited: text(8),
                original: envelope.clone(),
                envelope,
                crashes,
                ..DeadLetter::default()
            };
            let fields = |letter: &DeadLetter| -> HashMap<String, Vec<u8>> {
                letter.fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            };
            let back = DeadLetter::from_fields(0, String::new(), fields(&letter));
            prop_assert_eq!(fields(&back), fields(&letter));
            prop_assert_eq!(back.signature(), letter.signature());
        }

        #[test]
        fn no_entry_makes_reading_a_letter_panic(
            entry in any::<String>(),
            fields in prop::collection::hash_map("[veaoc]|class|code|error|id|original", prop::collection::vec(any::<u8>(), 0..40), 0..9),
        ) {
            let letter = DeadLetter::from_fields(0, entry, fields);
            let _ = (letter.signature(), letter.died_ms(), letter.message().is_some());
        }
    }
}
