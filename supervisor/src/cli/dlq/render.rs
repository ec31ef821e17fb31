//! How letters are shown: shortened, and without what is nobody's business.

use serde_json::Value;

use crate::output;

/// The beginning of a text, with a mark where something was cut off.
pub(crate) fn shorten(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A payload as lines for people. Unless `reveal`, phones show their last four digits, and texts and unknown fields
/// only their kind and size.
pub(crate) fn payload(bytes: &[u8], reveal: bool) -> Vec<String> {
    let object = serde_json::from_slice::<Value>(bytes).ok().filter(Value::is_object);
    let Some(object) = object else { return foreign(bytes, reveal) };
    let shown = if reveal { object } else { masked(object) };
    let text = serde_json::to_string_pretty(&shown).unwrap_or_default();
    text.lines().map(output::escape).collect()
}

/// A payload as JSON for programs, with the same things hidden.
pub(crate) fn payload_value(bytes: &[u8], reveal: bool) -> Value {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) if value.is_object() => {
            if reveal {
                value
            } else {
                masked(value)
            }
        }
        _ if reveal => match std::str::from_utf8(bytes) {
            Ok(text) => Value::from(text),
            Err(_) => serde_json::json!({ "hex": hex::encode(bytes) }),
        },
        _ => Value::from(hidden_bytes(bytes)),
    }
}

fn hidden_bytes(bytes: &[u8]) -> String {
    format!("({} bytes that are no JSON object)", bytes.len())
}

/// What is no JSON object: escaped text, or a dump.
fn foreign(bytes: &[u8], reveal: bool) -> Vec<String> {
    if !reveal {
        return vec![format!("{}, --reveal shows them", hidden_bytes(bytes))];
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => vec![output::escape(text)],
        Err(_) => bytes.chunks(16).enumerate().map(|(row, chunk)| dump_row(16 * row, chunk)).collect(),
    }
}

/// `00000010  61 62 ff …  |ab.|`
fn dump_row(offset: usize, chunk: &[u8]) -> String {
    let codes: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
    let printable = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
    let text: String = chunk.iter().map(printable).collect();
    format!("{offset:08x}  {:47}  |{text}|", codes.join(" "))
}

/// Fields of the envelope that say nothing about a person, as long as they are the texts that a gateway writes.
const PLAIN: [&str; 4] = ["src", "id", "client", "trace"];

fn masked(value: Value) -> Value {
    let Value::Object(members) = value else { return hidden(&value) };
    let mask = |(name, value): (String, Value)| {
        let shown = match (name.as_str(), &value) {
            ("phone", Value::String(phone)) => Value::from(output::mask_phone(phone)),
            ("extra", Value::Object(extra)) => extra
                .iter()
                .map(|(name, value)| (name.clone(), hidden(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            ("sent", Value::Number(_)) => value,
            (_, Value::String(_)) if PLAIN.contains(&name.as_str()) => value,
            _ => hidden(&value),
        };
        (name, shown)
    };
    Value::Object(members.into_iter().map(mask).collect())
}

/// A value's kind and size.
fn hidden(value: &Value) -> Value {
    Value::from(match value {
        Value::Null => return Value::Null,
        Value::Bool(_) => "(true or false)".to_owned(),
        Value::Number(_) => "(a number)".to_owned(),
        Value::String(text) => hidden_text(text),
        Value::Array(items) => format!("(a list of {})", items.len()),
        Value::Object(members) => format!("(an object of {})", members.len()),
    })
}

/// What stands in the place of a text.
pub(crate) fn hidden_text(text: &str) -> String {
    format!("({} characters)", text.chars().count())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENVELOPE: &str = "{\"src\":\"m\",\"id\":\"1\",\"client\":\"c\",\"phone\":\"+79194961182\",\"text\":\"a\\u001b[2Jb\u{9b}\",\
                            \"sent\":5,\"extra\":{\"name\":\"Ann\",\"age\":7}}";

    #[test]
    fn a_payload_hides_phone_text_and_unknown_fields() {
        let text = payload(ENVELOPE.as_bytes(), false).join("\n");
        for shown in
            ["\"phone\": \"…1182\"", "\"text\": \"(7 characters)\"", "\"name\": \"(3 characters)\"", "\"sent\": 5"]
        {
            assert!(text.contains(shown), "{shown} in {text}");
        }
        assert!(!text.contains("7919") && !text.contains("Ann"));
    }

    #[test]
    fn a_plain_field_of_another_kind_is_hidden_too() {
        let text = payload(br#"{"sent":"Ann","id":{"name":"Ann"},"client":["Ann"],"trace":7}"#, false).join("\n");
        assert!(!text.contains("Ann") && text.contains("(a list of 1)") && text.contains("(a number)"), "{text}");
    }

    #[test]
    fn a_revealed_payload_is_inert() {
        let text = payload(ENVELOPE.as_bytes(), true).join("\n");
        assert!(text.contains("+79194961182") && text.contains("\\u001b[2J") && text.contains("\\u{9b}"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{9b}']));
    }

    #[test]
    fn bytes_that_are_no_text_are_dumped() {
        assert_eq!(payload(&[0xff, b'a'], true), [format!("00000000  {:47}  |.a|", "ff 61")]);
        assert_eq!(payload(b"a\x1bb", true), ["a\\u{1b}b"]);
        assert_eq!(payload(b"secret", false), ["(6 bytes that are no JSON object), --reveal shows them"]);
        assert_eq!(payload(b"[1]", false), ["(3 bytes that are no JSON object), --reveal shows them"]);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shorten("Привет", 3), "При…");
        assert_eq!(shorten("Привет", 6), "Привет");
    }

    proptest! {
        #[test]
        fn no_payload_drives_the_terminal(bytes in any::<Vec<u8>>(), text in any::<String>(), reveal in any::<bool>()) {
            let object = serde_json::json!({ "text": &text, "extra": { text.clone(): &text }, text: 1 }).to_string();
            for bytes in [&bytes[..], object.as_bytes()] {
                let lines = payload(bytes, reveal);
                prop_assert!(lines.iter().all(|line| output::escape(line) == *line), "{lines:?}");
                let _ = payload_value(bytes, reveal);
            }
        }
    }
}
