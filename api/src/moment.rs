//! Times as they are written in answers and requests.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

const FORM: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// RFC 3339, UTC, six decimals, `Z`.
pub(crate) fn text(time: OffsetDateTime) -> String {
    time.to_offset(UtcOffset::UTC).format(&FORM).unwrap_or_default()
}

/// The same of Unix milliseconds.
pub(crate) fn of_ms(ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    text(time.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// A time as cursors hold it: Unix microseconds, which is what PostgreSQL keeps.
pub(crate) fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

/// And back; none if there is no such time.
pub(crate) fn of_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}

/// A time that a caller wrote in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) OffsetDateTime);

impl Moment {
    /// Reads it; none if it is no such time.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // In a query a bare + is a blank.
        let text = text.trim().replace(' ', "+");
        let time = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
        Some(Self(time.checked_to_offset(UtcOffset::UTC)?))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("is no time such as 2026-07-01T00:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_with_six_decimals() {
        let time = Moment::parse("2026-07-01T03:00:00.5+03:00").unwrap();
        assert_eq!(text(time.0), "2026-07-01T00:00:00.500000Z");
        assert_eq!(of_ms(1_782_864_000_001), "2026-07-01T00:00:00.001000Z");
    }

    #[test]
    fn a_plus_that_the_query_made_a_blank_is_a_plus() {
        assert_eq!(Moment::parse("2026-07-01T03:00:00 03:00"), Moment::parse("2026-07-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "yesterday", "2026-07-01", "1782864000", "2026-13-01T00:00:00Z", "9999-12-31T23:59:59-23:59"] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }
}
