//! Whether PostgreSQL can hold a JSON value that nobody reads on the way there.
//!
//! What is let through here and refused there would be a message that was accepted and can never be stored. So each
//! rule is at least as strict as `jsonb`, and a value that passes is also read by every program of ours.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::decode::{Name, Wrong};

/// Arrays and objects within each other, at most. Parsers give up at 128, and the value travels two levels deep.
const LEVELS: usize = 100;

/// Characters of a number, and the size of its exponent, at most. `jsonb` gives up at 16,383 digits after the point.
const NUMBER: usize = 1000;

const DEPTH: Wrong = ("depth", "holds more than 100 levels");
const DUPLICATE: Wrong = ("duplicate", "holds an object with one name more than once");
const UNICODE: Wrong = ("unicode", "holds an escape that is no character");
const NUL: Wrong = ("nul", "must not hold NUL");
const OUT_OF_RANGE: Wrong = ("number", "holds a number out of range");

/// Looks through a value in one pass, without building it. `json` is known to be JSON; its escapes are not known to be
/// characters.
pub(crate) fn check(json: &str) -> Result<(), Wrong> {
    // The names of each object around the present place; an array has none.
    let mut around: Vec<HashSet<Cow<'_, str>>> = Vec::new();
    let mut rest = json;
    while let Some(first) = rest.bytes().next() {
        let length = match first {
            b'{' | b'[' if around.len() == LEVELS => return Err(DEPTH),
            b'{' | b'[' => {
                around.push(HashSet::new());
                1
            }
            b'}' | b']' => {
                around.pop();
                1
            }
            b'"' => {
                let (quoted, after) = rest.split_at(string_length(rest));
                let string = check_string(quoted)?;
                let is_name = after.trim_ascii_start().starts_with(':');
                if is_name && around.last_mut().is_some_and(|names| !names.insert(string)) {
                    return Err(DUPLICATE);
                }
                quoted.len()
            }
            b'-' | b'0'..=b'9' => {
                let number = &rest[..number_length(rest)];
                check_number(number)?;
                number.len()
            }
            // Space, punctuation, and the letters of true, false and null: all of one byte.
            _ => 1,
        };
        rest = &rest[length..];
    }
    Ok(())
}

/// Length of the string that `rest` begins with, its quotes included.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    let end = rest.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |end| end + 2)
}

/// The text of a string, which `jsonb` can hold.
fn check_string(quoted: &str) -> Result<Cow<'_, str>, Wrong> {
    let Name(text) = serde_json::from_str(quoted).map_err(|_| UNICODE)?;
    if text.contains('\0') { Err(NUL) } else { Ok(text) }
}

fn number_length(rest: &str) -> usize {
    let part = |byte: u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    rest.bytes().position(|byte| !part(byte)).unwrap_or(rest.len())
}

/// Numbers are kept as they were written, to the last digit. But one beyond the reach of a double could be read by
/// nobody afterwards, and one with an excessive exponent not even be stored.
fn check_number(number: &str) -> Result<(), Wrong> {
    let exponent = number.split_once(['e', 'E']).map_or(Ok(0), |(_, exponent)| exponent.parse::<i64>());
    let modest = exponent.is_ok_and(|exponent| exponent.unsigned_abs() <= NUMBER as u64) && number.len() <= NUMBER;
    let finite = number.parse::<f64>().is_ok_and(f64::is_finite);
    if modest && finite { Ok(()) } else { Err(OUT_OF_RANGE) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(json: &str) -> &'static str {
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(json).is_ok(), "{json} is JSON");
        check(json).err().map_or("", |(code, _)| code)
    }

    fn nested(levels: usize) -> String {
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn what_can_be_held_passes() {
        for json in [
            "null",
            "true",
            "\"\"",
            "\"\\\\\"",
            "\"\\\"{\\\"\"",
            "\"\\ud83d\\ude00\"",
            "\"\u{ffff}\u{2028}\\u0001\"",
            "[ ]",
            "{ }",
            r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}"#,
            r#"{"a":"a","b" : "a"}"#,
            "[-0, 0.0, 9007199254740993, 1.50, 1E5, 1e-1000, 0e+1000, 123456789012345678901234567890]",
            &nested(LEVELS),
        ] {
            assert_eq!(code(json), "", "{json}");
        }
    }

    #[test]
    fn what_cannot_be_held_is_told_by_its_kind() {
        let long = format!("0.{}", "1".repeat(NUMBER));
        for (json, expected) in [
            (r#""\u0000""#, "nul"),
            (r#"{"a\u0000":1}"#, "nul"),
            // The value that a parser would forget is looked at too.
            (r#"{"a":"\u0000","a":1}"#, "nul"),
            (r#""\ud800""#, "unicode"),
            (r#""\ude04\ud83d""#, "unicode"),
            (r#"{"\udc00":1}"#, "unicode"),
            (r#"{"a":1,"a":1}"#, "duplicate"),
            (r#"[{"a":1,"b":[],"\u0061" :2}]"#, "duplicate"),
            ("1e400", "number"),
            ("[1e-1001]", "number"),
            ("0e99999999999999999999", "number"),
            ("-0E-5000", "number"),
            (&long, "number"),
            (&"1".repeat(400), "number"),
            (&nested(LEVELS + 1), "depth"),
            (&nested(100_000), "depth"),
        ] {
            assert_eq!(code(json), expected, "{:.40}", json);
        }
    }

    proptest! {
        #[test]
        fn any_json_is_judged_without_a_panic(text in "[\\[\\]{}:,\"\\\\u0-9dDeE.+ ntrueflas-]{0,40}") {
            // Only JSON comes here, but nothing else may do harm either.
            let _ = check(&text);
        }

        #[test]
        fn a_string_is_held_unless_it_has_nul(text in any::<String>()) {
            let quoted = serde_json::to_string(&text).unwrap();
            let expected = if text.contains('\0') { Err(NUL) } else { Ok(()) };
            prop_assert_eq!(check(&quoted), expected);
            prop_assert_eq!(check(&format!("[{{{quoted}:{quoted}}}]")), expected);
        }
    }
}
