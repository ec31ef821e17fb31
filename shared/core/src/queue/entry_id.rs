//! Ids of stream entries as numbers, which is how they are ordered.

/// Milliseconds and number within the millisecond.
pub type EntryId = (u64, u64);

/// Reads `1732233600000-12`.
pub fn parse(text: &str) -> Option<EntryId> {
    let (ms, seq) = text.split_once('-')?;
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    Some((number(ms)?, number(seq)?))
}

/// Reads the id of an entry that exists; anything else counts as the very first.
pub fn of(text: &str) -> EntryId {
    parse(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_ordered_as_numbers() {
        assert!(of("9-10") > of("9-9") && of("10-0") > of("9-99"));
        assert_eq!(parse("1732233600000-12"), Some((1_732_233_600_000, 12)));
        for text in ["", "-", "1", "1-", "-1", "+1-1", "1-x", "1-2-3"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_is_written_and_nothing_else_is_one(ms in any::<u64>(), seq in any::<u64>(), text in "[0-9+-]{0,50}|\\PC{0,9}") {
            prop_assert_eq!(parse(&format!("{ms}-{seq}")), Some((ms, seq)));
            prop_assert!(parse(&text).is_none() || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
        }
    }
}
