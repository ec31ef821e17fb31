//! From bytes to one message, or to the list of everything that is wrong with them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use weir_core::message::Message;

use crate::storable;

/// 2000-01-01T00:00:00Z, the earliest time a message can have been sent at.
pub const EARLIEST: i64 = 946_684_800;

/// How far ahead of our clock a message may claim to have been sent, in seconds.
pub const AHEAD: i64 = 86_400;

/// Longest text, in characters.
pub const TEXT_LIMIT: usize = 4096;

/// Longest external id, in characters.
pub const ID_LIMIT: usize = 128;

/// Faults after which no more unknown fields are looked at: an answer must not be larger than what it answers.
const FAULTS: usize = 20;

/// One thing that is wrong with one field. The words hold nothing of its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Name of the field.
    pub field: String,
    /// Stable code for programs.
    pub code: &'static str,
    /// For people.
    pub message: &'static str,
}

/// Why bytes make no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// They are no JSON object.
    NotAnObject(String),
    /// Fields are missing or wrong; never empty.
    Invalid(Vec<Fault>),
}

const FIELDS: [&str; 5] = ["external_message_id", "external_client_id", "client_phone", "message_text", "send_at"];
const PHONE: usize = 2;

/// A message of the flat format with its values unread.
#[derive(Default)]
struct Flat<'a> {
    fields: [Option<&'a RawValue>; 5],
    twice: [bool; 5],
    extra: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// A string, such as a member's name: borrowed unless it is written with escapes.
#[derive(serde::Deserialize)]
pub(crate) struct Name<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Flat<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Flat<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Flat<'de>, A::Error> {
                let mut flat = Flat::default();
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    let value: &'de RawValue = map.next_value()?;
                    match FIELDS.iter().position(|field| *field == name) {
                        Some(at) => flat.twice[at] |= flat.fields[at].replace(value).is_some(),
                        None => flat.extra.push((name, value)),
                    }
                }
                Ok(flat)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A decoded message and the memory that it may borrow from beside the body.
#[derive(Debug)]
pub struct Decoded<'a> {
    fields: (Cow<'a, str>, Cow<'a, str>, Cow<'a, str>, Cow<'a, str>, i64),
    extra: Option<Box<RawValue>>,
}

impl Decoded<'_> {
    /// The message as it travels on.
    pub fn message<'m>(&'m self, source: &'m str, traceparent: &'m str) -> Message<'m> {
        let (id, client, phone, text, send_at) = &self.fields;
        Message {
            source: source.into(),
            external_message_id: id.as_ref().into(),
            external_client_id: client.as_ref().into(),
            client_phone: phone.as_ref().into(),
            message_text: text.as_ref().into(),
            send_at: *send_at,
            extra: self.extra.as_deref(),
            traceparent: traceparent.into(),
        }
    }

    /// The sender's id of the client.
    pub fn client(&self) -> &str {
        &self.fields.1
    }
}

/// Decodes one message of the messenger API.
///
/// `now` is our clock in Unix seconds.
///
/// # Errors
/// See [`DecodeError`]; all faults at once.
pub fn decode(body: &[u8], now: i64) -> Result<Decoded<'_>, DecodeError> {
    // What is no UTF-8 is no JSON either, and the parser says where.
    let flat = std::str::from_utf8(body).map_or_else(|_| serde_json::from_slice(body), serde_json::from_str);
    let flat: Flat<'_> = flat.map_err(|error| DecodeError::NotAnObject(describe(&error)))?;
    let mut faults = Vec::new();
    let mut fault = |at: usize, (code, message)| faults.push(Fault { field: FIELDS[at].to_owned(), code, message });
    for (at, _) in flat.twice.iter().enumerate().filter(|(_, twice)| **twice) {
        fault(at, TWICE);
    }
    let mut read = |at: usize, check: fn(&str) -> Check| {
        let value = flat.fields[at].ok_or(("missing", "is required")).and_then(|raw| text(raw));
        let value = if at == PHONE { value.map(normalise_phone) } else { value };
        value.and_then(|value| check(&value).map(|()| value)).map_err(|wrong| fault(at, wrong)).unwrap_or_default()
    };
    let id = read(0, check_id);
    let client = read(1, check_id);
    let phone = read(PHONE, check_phone);
    let text = read(3, check_text);
    let send_at = flat.fields[4].ok_or(("missing", "is required")).and_then(|raw| check_time(raw, now));
    let send_at = send_at.map_err(|wrong| fault(4, wrong)).unwrap_or_default();
    let extra = read_extra(&flat.extra, &mut faults);
    if faults.is_empty() {
        Ok(Decoded { fields: (id, client, phone, text, send_at), extra })
    } else {
        Err(DecodeError::Invalid(faults))
    }
}

/// Splits a batch into its items without reading them.
///
/// # Errors
/// Words that say why it is no JSON array.
pub fn split(body: &[u8]) -> Result<Vec<&RawValue>, String> {
    serde_json::from_slice(body).map_err(|error| describe(&error).replace("object", "array"))
}

/// Says where the JSON is broken, without quoting it.
fn describe(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => "the body is no JSON object".into(),
        _ => format!("the body is no JSON object: broken at line {} column {}", error.line(), error.column()),
    }
}

/// A fault's code and its words.
pub(crate) type Wrong = (&'static str, &'static str);
type Check = Result<(), Wrong>;

const TWICE: Wrong = ("duplicate", "is there more than once");

fn text(raw: &RawValue) -> Result<Cow<'_, str>, Wrong> {
    let Some(quoted) = raw.get().strip_prefix('"') else {
        return Err(("type", "must be a string"));
    };
    if !quoted.contains('\\') {
        return Ok(Cow::Borrowed(&quoted[..quoted.len() - 1]));
    }
    match serde_json::from_str::<Name<'_>>(raw.get()) {
        Ok(Name(text)) => Ok(text),
        Err(_) => Err(("unicode", "holds an escape that is no character")),
    }
}

fn check_id(id: &str) -> Check {
    if id.is_empty() || id.len() > ID_LIMIT {
        return Err(("length", "must have 1 to 128 characters"));
    }
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b':' | b'-');
    // Without a way out in the middle: so the compiler looks at many bytes at once.
    if id.bytes().fold(true, |good, byte| good & plain(byte)) {
        Ok(())
    } else {
        Err(("characters", "may only hold letters, digits and . _ : -"))
    }
}

/// Takes out what people write into phone numbers.
fn normalise_phone(phone: Cow<'_, str>) -> Cow<'_, str> {
    const BETWEEN: [char; 6] = [' ', '-', '(', ')', '[', ']'];
    if phone.contains(BETWEEN) { phone.replace(BETWEEN, "").into() } else { phone }
}

fn check_phone(phone: &str) -> Check {
    let digits = phone.strip_prefix('+').unwrap_or_default();
    let good =
        (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if good { Ok(()) } else { Err(("phone", "must be E.164: + and 7 to 15 digits, the first not 0")) }
}

fn check_text(text: &str) -> Check {
    if text.contains('\0') {
        return Err(("nul", "must not hold NUL"));
    }
    // A character has at least one byte: short texts need no counting.
    let short = text.len() <= TEXT_LIMIT || text.chars().count() <= TEXT_LIMIT;
    if short && !text.is_empty() { Ok(()) } else { Err(("length", "must have 1 to 4096 characters")) }
}

fn check_time(raw: &RawValue, now: i64) -> Result<i64, Wrong> {
    let seconds: i64 = raw.get().parse().map_err(|_| ("type", "must be whole Unix seconds"))?;
    if !(EARLIEST..=now + AHEAD).contains(&seconds) {
        return Err(("range", "must be between 2000-01-01 and a day from now"));
    }
    Ok(seconds)
}

/// Keeps unknown fields as they were written, once it is clear that PostgreSQL can hold them.
fn read_extra(extra: &[(Cow<'_, str>, &RawValue)], faults: &mut Vec<Fault>) -> Option<Box<RawValue>> {
    if extra.is_empty() {
        return None;
    }
    let mut names = HashSet::with_capacity(extra.len());
    let mut object = String::from("{");
    for (name, value) in extra {
        let twice = !names.insert(name);
        if let Err((code, message)) = check_extra(name, value, twice) {
            faults.push(Fault { field: shown(name), code, message });
            if faults.len() >= FAULTS {
                break;
            }
            continue;
        }
        if object.len() > 1 {
            object.push(',');
        }
        object.push_str(&serde_json::Value::from(name.as_ref()).to_string());
        object.push(':');
        object.push_str(value.get());
    }
    object.push('}');
    RawValue::from_string(object).ok()
}

fn check_extra(name: &str, value: &RawValue, twice: bool) -> Check {
    if name.contains('\0') {
        return Err(("nul", "must not hold NUL"));
    }
    if twice {
        return Err(TWICE);
    }
    storable::check(value.get())
}

/// An unknown field's name for its sender's log: not too long, and nothing in it that drives a terminal.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_760_000_000;

    fn body(changes: &[(&str, Option<&str>)]) -> String {
        let mut members = vec![
            ("external_message_id", "\"1a2b\""),
            ("external_client_id", "\"fedc\""),
            ("client_phone", "\"+79194961182\""),
            ("message_text", "\"Привет!\""),
            ("send_at", "1640995200"),
        ];
        for (name, value) in changes {
            members.retain(|(known, _)| known != name);
            members.extend(value.map(|value| (*name, value)));
        }
        let text: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", text.join(","))
    }

    fn faults(body: &str) -> Vec<(String, &'static str)> {
        match decode(body.as_bytes(), NOW) {
            Err(DecodeError::Invalid(faults)) => faults.into_iter().map(|fault| (fault.field, fault.code)).collect(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn the_sample_is_a_message() {
        let body = body(&[]);
        let decoded = decode(body.as_bytes(), NOW).unwrap();
        let message = decoded.message("messenger", "");
        assert_eq!(
            (&*message.message_text, message.send_at, message.extra.is_none()),
            ("Привет!", 1_640_995_200, true)
        );
    }

    #[test]
    fn every_wrong_value_is_named_with_its_field() {
        let long_id = format!("\"{}\"", "a".repeat(129));
        let long_text = format!("\"{}\"", "я".repeat(4097));
        let late = (NOW + AHEAD + 1).to_string();
        let cases = [
            ("external_message_id", "\"\"", "length"),
            ("external_message_id", long_id.as_str(), "length"),
            ("external_message_id", "\"a b\"", "characters"),
            ("external_message_id", "\"\\u0000\"", "characters"),
            ("external_message_id", "7", "type"),
            ("external_client_id", "null", "type"),
            ("client_phone", "\"89194961182\"", "phone"),
            ("client_phone", "\"+0919496118\"", "phone"),
            ("client_phone", "\"+123456\"", "phone"),
            ("client_phone", "\"+1234567890123456\"", "phone"),
            ("client_phone", "\"+٧٩١٩٤٩٦١١٨٢\"", "phone"),
            ("message_text", "\"\"", "length"),
            ("message_text", long_text.as_str(), "length"),
            ("message_text", "\"a\\u0000b\"", "nul"),
            ("message_text", "\"\\ud800\"", "unicode"),
            ("message_text", "{}", "type"),
            ("send_at", "1640995200.0", "type"),
            ("send_at", "\"1640995200\"", "type"),
            ("send_at", "1e9", "type"),
            ("send_at", "99999999999999999999", "type"),
            ("send_at", "946684799", "range"),
            ("send_at", late.as_str(), "range"),
            ("send_at", "-1", "range"),
        ];
        for (field, value, code) in cases {
            assert_eq!(faults(&body(&[(field, Some(value))])), [(field.to_owned(), code)], "{field} {value}");
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let id = format!("\"{}\"", "a".repeat(128));
        let text = format!("\"{}\"", "я".repeat(4096));
        let latest = (NOW + AHEAD).to_string();
        for (field, value) in [
            ("external_message_id", id.as_str()),
            ("message_text", text.as_str()),
            ("send_at", "946684800"),
            ("send_at", latest.as_str()),
            ("client_phone", "\"+1234567\""),
            ("client_phone", "\"+123456789012345\""),
        ] {
            assert!(decode(body(&[(field, Some(value))]).as_bytes(), NOW).is_ok(), "{field} {value}");
        }
    }

    #[test]
    fn all_faults_of_a_message_are_named_at_once() {
        let found = faults(r#"{"client_phone":"x","send_at":true}"#);
        let fields: Vec<_> = found.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["external_message_id", "external_client_id", "client_phone", "message_text", "send_at"]);
    }

    #[test]
    fn a_field_that_comes_twice_is_a_fault() {
        let twice = body(&[]).replace('{', r#"{"message_text":"first","#);
        assert_eq!(faults(&twice), [("message_text".to_owned(), "duplicate")]);
    }

    #[test]
    fn a_phone_loses_spaces_dashes_and_brackets() {
        let body = body(&[("client_phone", Some("\"+7 (919) 496-11-82\""))]);
        assert_eq!(decode(body.as_bytes(), NOW).unwrap().message("m", "").client_phone, "+79194961182");
    }

    #[test]
    fn unknown_fields_are_kept_as_they_were_written() {
        let body = body(&[("x", Some("12345678901234567890123")), ("y", Some("{\"a\": [1.50]}"))]);
        let decoded = decode(body.as_bytes(), NOW).unwrap();
        let extra = decoded.message("m", "").extra.unwrap().get().to_owned();
        assert_eq!(extra, r#"{"x":12345678901234567890123,"y":{"a": [1.50]}}"#);
    }

    #[test]
    fn unknown_fields_that_postgresql_cannot_hold_are_faults() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for value in ["\"\\u0000\"", "\"\\ud800\"", "1e400", "{\"a\\u0000\":1}", deep.as_str()] {
            assert_eq!(faults(&body(&[("x", Some(value))]))[0].0, "x", "{value}");
        }
    }

    #[test]
    fn an_unknown_field_that_comes_twice_is_a_fault_however_it_is_written() {
        let twice = body(&[]).replace('{', r#"{"x":1,"\u0078":1,"#);
        assert_eq!(faults(&twice), [("x".to_owned(), "duplicate")]);
    }

    #[test]
    fn a_name_is_told_without_what_drives_a_terminal() {
        let name = format!("a\u{202e}{}", "b".repeat(100));
        let found = faults(&body(&[(&name, Some("1e400"))]));
        assert_eq!(found, [(format!("a\\u{{202e}}{}", "b".repeat(62)), "number")]);
        assert_eq!(faults(&body(&[("\\u0000", Some("1"))])), [("\\0".to_owned(), "nul")]);
    }

    #[test]
    fn an_answer_does_not_grow_with_the_faults_of_unknown_fields() {
        let many: String = (0..5000).map(|n| format!(r#""x{n}":"\u0000","#)).collect();
        assert_eq!(faults(&body(&[]).replace('{', &format!("{{{many}"))).len(), FAULTS);
    }

    #[test]
    fn bytes_that_are_no_object_are_refused_without_quoting_them() {
        for bytes in [
            &b""[..],
            b"null",
            b"[]",
            b"7",
            b"\"s3cret\"",
            b"{",
            b"{}x",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\xff}",
            b"{\"\\ud800\":1}",
        ] {
            match decode(bytes, NOW) {
                Err(DecodeError::NotAnObject(text)) => assert!(!text.contains("s3cret")),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, NOW);
            let _ = split(&bytes);
        }

        #[test]
        fn any_text_without_nul_arrives_as_it_was(text in "[^\\x00]{1,80}") {
            let quoted = serde_json::to_string(&text).unwrap();
            let body = body(&[("message_text", Some(&quoted))]);
            let decoded = decode(body.as_bytes(), NOW).unwrap();
            let bytes = decoded.message("m", "").encode();
            let back: Message<'_> = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(back.message_text, text);
        }
    }

    proptest! {
        #[test]
        fn what_is_decoded_keeps_its_fields_and_its_bounds(
            id in "[A-Za-z0-9._:-]{1,130}",
            text in any::<String>(),
            send_at in any::<i64>(),
            phone in "\\+?[0-9 ()-]{5,20}",
        ) {
            let (quoted, sent) = (serde_json::to_string(&text).unwrap(), send_at.to_string());
            let (id_json, phone_json) = (format!("{id:?}"), format!("{phone:?}"));
            let body = body(&[
                ("external_message_id", Some(&id_json)),
                ("client_phone", Some(&phone_json)),
                ("message_text", Some(&quoted)),
                ("send_at", Some(&sent)),
            ]);
            match decode(body.as_bytes(), NOW) {
                Ok(decoded) => {
                    let message = decoded.message("m", "");
                    prop_assert_eq!((&*message.external_message_id, &*message.message_text), (&*id, &*text));
                    prop_assert!(id.len() <= ID_LIMIT && (1..=TEXT_LIMIT).contains(&text.chars().count()));
                    prop_assert!(send_at == message.send_at && (EARLIEST..=NOW + AHEAD).contains(&send_at));
                    prop_assert!(check_phone(&message.client_phone).is_ok());
                }
                Err(DecodeError::Invalid(faults)) => prop_assert!(!faults.is_empty()),
                Err(DecodeError::NotAnObject(text)) => prop_assert!(false, "{text}"),
            }
        }

        #[test]
        fn a_batch_falls_apart_into_its_items(items in prop::collection::vec(any::<String>(), 0..9)) {
            let quoted: Vec<_> = items.iter().map(|item| serde_json::to_string(item).unwrap()).collect();
            let batch = format!("[{}]", quoted.join(" ,"));
            let found: Vec<_> = split(batch.as_bytes()).unwrap().into_iter().map(RawValue::get).collect();
            prop_assert_eq!(found, quoted);
        }
    }
}
