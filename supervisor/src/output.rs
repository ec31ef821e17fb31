//! What commands print: tables for people, JSON for programs, and nothing that could drive a terminal.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::Output;

/// Prints one line to standard output. A closed pipe is no error: the reader has seen enough.
pub(crate) fn line(text: impl Display) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints an error with its causes to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    drop(writeln!(io::stderr().lock(), "weir: {}", escape(&format!("{error:#}")).replace("\\n", "\n")));
}

/// Prints a remark to standard error, so that it does not mix with output for programs.
pub(crate) fn remark(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints rows: a table with a heading, or a JSON array of `rows`.
pub(crate) fn rows<T: Serialize>(output: Output, heading: &[&str], rows: &[T], cells: impl Fn(&T) -> Vec<String>) {
    match output {
        Output::Json => json(&rows),
        Output::Table => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(heading.iter().map(|name| name.to_uppercase()));
            for row in rows {
                table.add_row(cells(row).iter().map(|cell| escape(cell)));
            }
            let text = table.to_string();
            for row in text.lines() {
                line(row.trim_end());
            }
        }
    }
}

/// Prints one thing: lines of name and value, or a JSON object.
pub(crate) fn record<T: Serialize>(output: Output, value: &T, lines: &[(&str, String)]) {
    match output {
        Output::Json => json(value),
        Output::Table => {
            let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            for (name, value) in lines {
                line(format_args!("{name:width$}  {}", escape(value)));
            }
        }
    }
}

/// Prints JSON, over several lines.
pub(crate) fn json<T: Serialize>(value: &T) {
    print_json(serde_json::to_string_pretty(value));
}

/// Prints JSON as one line of many.
pub(crate) fn json_line<T: Serialize>(value: &T) {
    print_json(serde_json::to_string(value));
}

fn print_json(text: serde_json::Result<String>) {
    match text {
        Ok(text) => line(inert(&text)),
        Err(error) => remark(format_args!("weir: the result is no JSON: {error}")),
    }
}

/// JSON in which every character that could drive a terminal is an escape. It stands for the same values: such
/// characters can only be within strings.
pub(crate) fn inert(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || !could_drive_terminal(c) {
            safe.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        }
    }
    safe
}

/// Control characters, and those that change the order or the look of what follows.
fn could_drive_terminal(c: char) -> bool {
    let sly = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    c.is_control() || sly
}

/// Text with everything that could drive a terminal written out.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if could_drive_terminal(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// `1 dead letter`, `3 dead letters`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}

/// The last four digits of a phone, which is all that people may see.
pub(crate) fn mask_phone(phone: &str) -> String {
    let digits: Vec<char> = phone.chars().collect();
    let shown: String = digits[digits.len().saturating_sub(4)..].iter().collect();
    format!("…{shown}")
}

/// The last millisecond of the year 9999, which is the last that can be written.
const LAST_MS: u64 = 253_402_300_799_999;

/// Unix milliseconds as people read them, in UTC. An id can claim any number: what no calendar holds is the last moment
/// that one does.
pub(crate) fn time(ms: u64) -> String {
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS))).to_string()
}

/// A length of time in its two largest units.
pub(crate) fn span(span: Duration) -> String {
    let rounded = if span >= Duration::from_secs(1) {
        Duration::from_secs(span.as_secs())
    } else {
        Duration::from_millis(span.as_millis() as u64)
    };
    humantime::format_duration(rounded).to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Unix milliseconds now.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_payload_cannot_drive_the_terminal() {
        assert_eq!(escape("a\x1b[2Jb\r\n\u{202e}\u{9b}Привет"), "a\\u{1b}[2Jb\\r\\n\\u{202e}\\u{9b}Привет");
    }

    #[test]
    fn inert_json_stands_for_the_same_values() {
        let value = serde_json::json!({"a": "x\u{9b}\u{202e}\n\u{1b}Привет"});
        let text = inert(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.contains("\\u009b\\u202e\\n\\u001bПривет"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_time_beyond_every_calendar_is_the_last_one() {
        assert_eq!(time(1_746_057_600_123), "2025-05-01T00:00:00.123Z");
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_phone_shows_its_last_four_digits() {
        assert_eq!(mask_phone("+79194961182"), "…1182");
        assert_eq!(mask_phone(""), "…");
    }

    proptest! {
        #[test]
        fn no_text_drives_the_terminal(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(could_drive_terminal));
            let json = serde_json::to_string(&text).unwrap();
            prop_assert!(!inert(&json).contains(could_drive_terminal));
            prop_assert!(serde_json::from_str::<String>(&inert(&json)).unwrap() == text);
            prop_assert!(mask_phone(&text).chars().count() <= 5);
        }

        #[test]
        fn any_time_and_any_span_can_be_written(ms in any::<u64>(), seconds in any::<u64>()) {
            prop_assert!(time(ms).ends_with('Z') && !span(Duration::from_secs(seconds)).is_empty());
        }
    }
}
