//! A letter as one line of JSON, for `export` and `import`.

use serde::{Deserialize, Serialize};
use weir_core::dead_letter::DeadLetter;
use weir_core::journey::Journey;
use weir_core::queue::entry_id;
use weir_core::queue::letters::Shelf;

use crate::output;

/// Every field of a letter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// `dead` or `parked`.
    shelf: String,
    partition: u16,
    entry: String,
    version: String,
    origin: String,
    source: String,
    external_message_id: String,
    class: String,
    code: String,
    error: String,
    journey: Journey,
    crashes: u32,
    trace: String,
    replay: String,
    edited: String,
    envelope: Bytes,
    original: Bytes,
}

/// Text as it is; other bytes as `{"hex":"ff00"}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Other { hex: String },
}

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Other { hex: hex::encode(bytes) },
        }
    }

    fn into_bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Other { hex } => hex::decode(hex).map_err(|_| "hex holds something else than hex digits".to_owned()),
        }
    }
}

/// The line of a letter, without its line break.
pub(super) fn write(shelf: Shelf, letter: &DeadLetter) -> Result<String, serde_json::Error> {
    let record = Record {
        shelf: shelf.name().to_owned(),
        partition: letter.partition,
        entry: letter.entry.clone(),
        version: letter.version.clone(),
        origin: letter.origin.clone(),
        source: letter.source.clone(),
        external_message_id: letter.external_message_id.clone(),
        class: letter.class.clone(),
        code: letter.code.clone(),
        error: letter.error.clone(),
        journey: letter.journey.clone(),
        crashes: letter.crashes,
        trace: letter.trace.clone(),
        replay: letter.replay.clone(),
        edited: letter.edited.clone(),
        envelope: Bytes::of(&letter.envelope),
        original: Bytes::of(&letter.original),
    };
    serde_json::to_string(&record).map(|json| output::inert(&json))
}

/// The letter of a line, or what is wrong with the line, without quoting it.
pub(super) fn read(line: &str) -> Result<DeadLetter, String> {
    let record: Record = serde_json::from_str(line).map_err(|error| describe(&error))?;
    if !matches!(record.shelf.as_str(), "dead" | "parked") {
        return Err("shelf is neither dead nor parked".into());
    }
    for (name, id) in [("origin", &record.origin), ("entry", &record.entry)] {
        if entry_id::parse(id).is_none() {
            return Err(format!("{name} is no entry id such as 1732233600000-12"));
        }
    }
    if record.class.is_empty() {
        return Err("class is empty".into());
    }
    let letter = DeadLetter {
        partition: record.partition,
        entry: record.entry,
        version: record.version,
        origin: record.origin,
        source: record.source,
        external_message_id: record.external_message_id,
        class: record.class,
        code: record.code,
        error: record.error,
        journey: record.journey,
        crashes: record.crashes,
        trace: record.trace,
        replay: record.replay,
        edited: record.edited,
        envelope: record.envelope.into_bytes()?,
        original: record.original.into_bytes()?,
    };
    agree(&letter)?;
    Ok(letter)
}

/// The ids beside the envelope must be those within: they decide where the letter belongs.
fn agree(letter: &DeadLetter) -> Result<(), String> {
    let Some(message) = letter.message() else { return Ok(()) };
    if message.source != letter.source || message.external_message_id != letter.external_message_id {
        return Err("source or external_message_id differ from those in the envelope".into());
    }
    Ok(())
}

/// Where the JSON is broken. Serde's own words would quote values.
fn describe(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => {
            let text = error.to_string();
            let known = ["missing field", "unknown field"].iter().any(|start| text.starts_with(start));
            if known { text } else { format!("a field has a value of the wrong kind, at column {}", error.column()) }
        }
        _ => format!("it is no JSON, broken at column {}", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            partition: 2,
            entry: "7-1".into(),
            origin: "5-3".into(),
            class: "decode".into(),
            error: "odd \u{9b} \n".into(),
            envelope: vec![0xff, 0],
            original: b"{}".to_vec(),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn a_letter_is_read_as_it_is_written() {
        let line = write(Shelf::Dead, &letter()).unwrap();
        assert!(!line.contains(['\n', '\u{9b}']));
        let back = read(&line).unwrap();
        assert_eq!((back.partition, back.entry.as_str(), back.origin.as_str()), (2, "7-1", "5-3"));
        assert_eq!(back.fields(), letter().fields());
    }

    #[test]
    fn a_line_that_is_no_letter_is_refused_without_being_quoted() {
        let good = write(Shelf::Dead, &letter()).unwrap();
        let cases = [
            ("{", "no JSON"),
            ("[]", "wrong kind"),
            ("{}", "missing field"),
            (&good.replace("\"partition\":2", "\"partition\":\"s3cret\""), "wrong kind"),
            (&good.replace("5-3", "s3cret"), "origin is no entry id"),
            (&good.replace("ff00", "s3cret"), "hex"),
            (&good.replace("\"class\":\"decode\"", "\"class\":\"\""), "class is empty"),
            (&good.replace("\"shelf\":\"dead\"", "\"shelf\":\"s3cret\""), "shelf"),
        ];
        for (line, reason) in cases {
            let error = read(line).unwrap_err();
            assert!(error.contains(reason) && !error.contains("s3cret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_letter_is_read_as_it_is_written_in_one_inert_line(
            texts in prop::collection::vec(any::<String>(), 6),
            envelope in any::<Vec<u8>>(),
            origin in any::<(u64, u64)>(),
        ) {
            let text = |at: usize| texts[at].clone();
            let letter = DeadLetter {
                origin: format!("{}-{}", origin.0, origin.1),
                class: format!("x{}", text(0)),
                error: text(1),
                source: text(2),
                external_message_id: text(3),
                replay: text(4),
                edited: text(5),
                envelope,
                ..letter()
            };
            let line = write(Shelf::Dead, &letter).unwrap();
            prop_assert!(output::inert(&line) == line);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(read(&line).unwrap().fields(), letter.fields());
        }

        #[test]
        fn no_line_makes_reading_a_letter_panic(line in any::<String>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let _ = read(&line);
            let mut bytes = write(Shelf::Dead, &letter()).unwrap().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = read(&String::from_utf8_lossy(&bytes));
        }
    }
}
