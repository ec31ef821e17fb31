//! Takes data out of PostgreSQL's messages. The primary message is terse and mostly names tables and constraints, but
//! errors about data quote the data; DETAIL always does and is never read.

/// The message without what it may quote from a row. Errors of class 22 are about values: there every quoted part goes,
/// and all that follows a colon. Elsewhere quotes name things of the schema, except after a colon. What is left is one
/// line of bounded length: a trigger can raise anything.
pub(crate) fn scrub(sqlstate: &str, message: &str) -> String {
    let (head, tail) = split_at_colon(message);
    let text =
        if sqlstate.starts_with("22") { without_quoted(head) } else { format!("{head}{}", without_quoted(tail)) };
    text.chars().take(LENGTH).map(|c| if drives(c) { ' ' } else { c }).collect()
}

/// Characters kept of a message. PostgreSQL's own are shorter.
const LENGTH: usize = 500;

/// Whether a character ends a line, drives a terminal or turns the direction of what follows.
fn drives(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Splits before the first colon that is not inside quotes.
fn split_at_colon(message: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in message.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ':' if !quoted => return message.split_at(at),
            _ => {}
        }
    }
    (message, "")
}

/// Replaces everything from the first quote to the last: a value may contain quotes itself.
fn without_quoted(text: &str) -> String {
    match (text.find('"'), text.rfind('"')) {
        (Some(from), Some(to)) if to > from => format!("{}\"…\"{}", &text[..from], &text[to + 1..]),
        (Some(from), _) => format!("{}\"…", &text[..from]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::scrub;

    #[test]
    fn data_goes_and_the_names_of_the_schema_stay() {
        for (sqlstate, message, wanted) in [
            ("22P02", r#"invalid input syntax for type uuid: "+7900"#, "invalid input syntax for type uuid"),
            ("22P02", r#"invalid input syntax for type uuid: "a: "b" c""#, "invalid input syntax for type uuid"),
            (
                "22003",
                r#"value "79001234567" is out of range for type integer"#,
                r#"value "…" is out of range for type integer"#,
            ),
            ("22003", r#"value "7"9" is out of range"#, r#"value "…" is out of range"#),
            (
                "22021",
                r#"invalid byte sequence for encoding "UTF8": 0x00"#,
                r#"invalid byte sequence for encoding "…""#,
            ),
            ("42P01", r#"relation "messages" does not exist"#, r#"relation "messages" does not exist"#),
            ("XX000", r#"could not do it: "secret" is wrong"#, r#"could not do it: "…" is wrong"#),
            ("23514", "one\r\ntwo\u{1b}[2J\u{2028}\u{202e}", "one  two [2J  "),
            (
                "23514",
                r#"new row for relation "clients" violates check constraint "clients_check""#,
                r#"new row for relation "clients" violates check constraint "clients_check""#,
            ),
        ] {
            assert_eq!(scrub(sqlstate, message), wanted);
        }
    }
}
