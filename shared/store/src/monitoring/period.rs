//! A stretch of time, as exactly as the counts of its age are kept.

use time::{Duration, OffsetDateTime, Time, UtcOffset};

/// How long counts are kept by the minute, and then by the hour. Days are kept for ever.
pub(super) const MINUTES_FOR: Duration = Duration::hours(6);
pub(super) const HOURS_FOR: Duration = Duration::days(14);

/// How exactly a moment can be told apart from others in the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// The last six hours.
    Minute,
    /// Two weeks.
    Hour,
    /// UTC days, older than that.
    Day,
}

/// From a moment to another one, which is not part of it. Both are at the beginning of a minute, hour or day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its beginning.
    pub from: OffsetDateTime,
    /// Its end.
    pub to: OffsetDateTime,
    /// The coarser one of its two ends.
    pub resolution: Resolution,
}

impl Resolution {
    fn of(at: OffsetDateTime, now: OffsetDateTime) -> Self {
        match now - at {
            age if age <= MINUTES_FOR => Self::Minute,
            age if age <= HOURS_FOR => Self::Hour,
            _ => Self::Day,
        }
    }

    /// The beginning of the minute, hour or day.
    fn floor(self, at: OffsetDateTime) -> OffsetDateTime {
        let at = at.to_offset(UtcOffset::UTC);
        let (hour, minute) = match self {
            Self::Minute => (at.hour(), at.minute()),
            Self::Hour => (at.hour(), 0),
            Self::Day => (0, 0),
        };
        at.replace_time(Time::from_hms(hour, minute, 0).unwrap_or(Time::MIDNIGHT))
    }

    fn length(self) -> Duration {
        match self {
            Self::Minute => Duration::MINUTE,
            Self::Hour => Duration::HOUR,
            Self::Day => Duration::DAY,
        }
    }

    fn ceil(self, at: OffsetDateTime) -> OffsetDateTime {
        let floor = self.floor(at);
        if floor == at { floor } else { floor.saturating_add(self.length()) }
    }
}

impl Period {
    /// The shortest one around `from` and `to` that the counts can tell.
    pub fn around(from: OffsetDateTime, to: OffsetDateTime, now: OffsetDateTime) -> Self {
        let (first, last) = (Resolution::of(from, now), Resolution::of(to, now));
        Self { from: first.floor(from), to: last.ceil(to), resolution: first.max(last) }
    }

    /// The last stretch of so long, the minute that has just begun included.
    pub fn last(length: Duration, now: OffsetDateTime) -> Self {
        Self::around(now.saturating_sub(length), now, now)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_period_grows_to_what_the_counts_of_its_age_can_tell() {
        let now = datetime!(2026-06-30 12:00:30 UTC);
        for (from, to, expected) in [
            (
                datetime!(2026-06-30 11:59:59.5 UTC),
                now,
                (datetime!(2026-06-30 11:59 UTC), datetime!(2026-06-30 12:01 UTC), Resolution::Minute),
            ),
            (
                datetime!(2026-06-30 04:30 UTC),
                datetime!(2026-06-30 06:30 UTC),
                (datetime!(2026-06-30 04:00 UTC), datetime!(2026-06-30 06:30 UTC), Resolution::Hour),
            ),
            (
                datetime!(2026-01-01 03:30 +3),
                datetime!(2026-01-02 00:00 UTC),
                (datetime!(2026-01-01 00:00 UTC), datetime!(2026-01-02 00:00 UTC), Resolution::Day),
            ),
        ] {
            let period = Period::around(from, to, now);
            assert_eq!((period.from, period.to, period.resolution), expected);
        }
    }

    #[test]
    fn the_last_period_holds_the_present_minute() {
        let period = Period::last(Duration::MINUTE, datetime!(2026-06-30 12:00:00 UTC));
        assert_eq!(period.from, datetime!(2026-06-30 11:59 UTC));
        let period = Period::last(Duration::MINUTE, datetime!(2026-06-30 12:00:01 UTC));
        assert_eq!(period.to, datetime!(2026-06-30 12:01 UTC));
    }
}
