//! How fast, and how much failing is too much.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

/// Letters in one call at most: Redis does nothing else meanwhile.
pub(super) const CHUNK: u64 = 200;

/// Letters per second; none for as fast as Redis takes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate(Option<f64>);

impl Rate {
    /// How long `count` letters take at least.
    pub(super) fn time_for(self, count: u64) -> Option<Duration> {
        self.0.map(|rate| Duration::try_from_secs_f64(count as f64 / rate).unwrap_or(Duration::MAX))
    }

    /// Letters to move at once: a tenth of a second's worth, so that the rate is steady.
    pub(super) fn chunk(self) -> u64 {
        self.0.map_or(CHUNK, |rate| ((rate / 10.0) as u64).clamp(1, CHUNK))
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write 200/s, 600/m, 1000/h or unlimited";
        if text == "unlimited" {
            return Ok(Self(None));
        }
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(WRONG),
        };
        let number: u32 = number.parse().map_err(|_| WRONG)?;
        if number == 0 { Err(WRONG) } else { Ok(Self(Some(f64::from(number) / seconds))) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("as fast as Redis takes them"),
            Some(rate) if rate >= 1.0 => write!(f, "at {rate:.0}/s"),
            Some(rate) => write!(f, "at {:.0}/h", rate * 3600.0),
        }
    }
}

/// When the next letters may go.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    next: Instant,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, next: Instant::now() }
    }

    /// Waits until letters may go. Time in which none could go is not made up for.
    pub(super) async fn wait(&mut self) {
        self.next = self.next.max(Instant::now());
        tokio::time::sleep_until(self.next).await;
    }

    /// Notes that `count` letters went.
    pub(super) fn went(&mut self, count: u64) {
        self.next += self.rate.time_for(count).unwrap_or_default().min(Duration::from_secs(86_400));
    }
}

/// A share of fates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Percent(f64);

impl Percent {
    pub(super) const NONE: Self = Self(0.0);

    /// Whether `part` of `whole` is more than this.
    pub(super) fn is_exceeded(self, part: u64, whole: u64) -> bool {
        100.0 * part as f64 > self.0 * whole as f64
    }
}

impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "write a share such as 5%")?;
        if (0.0..100.0).contains(&number) { Ok(Self(number)) } else { Err("write a share below 100%, such as 5%") }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        assert_eq!(rate("200/s").time_for(400), Some(Duration::from_secs(2)));
        assert_eq!(rate("200"), rate("200/s"));
        assert_eq!(rate("600/m"), rate("10/s"));
        assert_eq!(rate("3600/h").time_for(5), Some(Duration::from_secs(5)));
        assert_eq!(rate("unlimited").time_for(5), None);
        for text in ["", "0/s", "-1/s", "x/s", "5/d", "1.5/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_chunk_is_a_tenth_of_a_second() {
        let chunks: Vec<_> = ["1/s", "200/s", "100000/s", "unlimited"].map(|text| rate(text).chunk()).into();
        assert_eq!(chunks, [1, 20, 200, 200]);
    }

    #[test]
    fn a_share_is_exceeded_by_more_than_itself() {
        let five: Percent = "5%".parse().unwrap();
        assert!(!five.is_exceeded(1, 20) && five.is_exceeded(2, 20) && five.is_exceeded(1, 1));
        assert!(!Percent::NONE.is_exceeded(0, 20) && Percent::NONE.is_exceeded(1, 1000));
        for text in ["", "x", "-1%", "100%", "NaN"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_letters_wait_for_those_that_went() {
        let mut pace = Pace::new(rate("10/s"));
        let first = pace.next;
        pace.went(10);
        pace.went(5);
        assert_eq!(pace.next - first, Duration::from_millis(1500));
    }

    proptest! {
        #[test]
        fn no_rate_is_without_end(text in "[0-9]{0,12}(/(s|m|min|h|x))?|\\PC{0,9}", count in any::<u64>()) {
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert!((1..=CHUNK).contains(&rate.chunk()) && rate.time_for(count).is_some());
            }
        }
    }
}
