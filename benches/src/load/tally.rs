//! What became of what was sent.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Counts of messages, and how long the answers took.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// A 2xx.
    pub(crate) accepted: u64,
    /// A 4xx to a message that had to be refused.
    pub(crate) refused_rightly: u64,
    /// Any other answer below 500.
    pub(crate) refused: u64,
    /// A 5xx.
    pub(crate) failed: u64,
    /// No answer.
    pub(crate) silent: u64,
    /// Not sent in time, because answers to earlier ones were missing.
    pub(crate) unsent: u64,
    /// Of requests with a 2xx, in microseconds.
    latency: Histogram<u32>,
}

/// The longest time that is told from longer ones.
const LONGEST_MICROS: u64 = 60_000_000;

impl Default for Tally {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_MICROS, 2).expect("these bounds are valid");
        Self { accepted: 0, refused_rightly: 0, refused: 0, failed: 0, silent: 0, unsent: 0, latency }
    }
}

impl Tally {
    /// Counts one answer to a request of `batch` messages, of which `bad` had to be refused.
    pub(crate) fn count(&mut self, status: u16, body: &[u8], batch: usize, bad: usize, took: Duration) {
        if !(200..300).contains(&status) {
            self.judge(status, batch as u64, &mut (bad as u64));
            return;
        }
        self.latency.saturating_record((took.as_micros() as u64).max(1));
        if batch == 1 {
            self.accepted += 1;
            return;
        }
        let (mut seen, mut bad) = (0, bad as u64);
        for code in codes(body) {
            seen += 1;
            self.judge(code, 1, &mut bad);
        }
        // A server that answers for the batch as a whole.
        if seen == 0 {
            self.accepted += batch as u64;
        }
    }

    fn judge(&mut self, status: u16, messages: u64, bad: &mut u64) {
        match status {
            200..300 => self.accepted += messages,
            400..500 if status != 429 => {
                let rightly = messages.min(*bad);
                *bad -= rightly;
                self.refused_rightly += rightly;
                self.refused += messages - rightly;
            }
            500.. => self.failed += messages,
            _ => self.refused += messages,
        }
    }

    /// Messages that were neither accepted nor rightly refused.
    pub(crate) fn errors(&self) -> u64 {
        self.refused + self.failed + self.silent
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused_rightly += other.refused_rightly;
        self.refused += other.refused;
        self.failed += other.failed;
        self.silent += other.silent;
        self.unsent += other.unsent;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
    }

    /// The latency in milliseconds that a share of requests (0 to 1) stays below.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1e3
    }
}

/// The status of each message in the answer to a batch. Faults of a message have codes too, which are words.
fn codes(body: &[u8]) -> impl Iterator<Item = u16> {
    const NAME: &[u8] = b"\"code\":";
    let mut rest = body;
    std::iter::from_fn(move || {
        loop {
            let at = rest.windows(NAME.len()).position(|window| window == NAME)?;
            rest = &rest[at + NAME.len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
            let code = digits.fold(0, |sum: u16, byte| sum.saturating_mul(10).saturating_add(u16::from(byte - b'0')));
            if code > 0 {
                return Some(code);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_their_status() {
        let mut tally = Tally::default();
        let took = Duration::from_millis(1);
        tally.count(202, b"", 1, 0, took);
        tally.count(200, b"", 1, 0, took);
        tally.count(422, b"", 1, 1, took);
        tally.count(422, b"", 1, 0, took);
        tally.count(429, b"", 1, 1, took);
        tally.count(503, b"", 4, 0, took);
        assert_eq!((tally.accepted, tally.refused_rightly, tally.refused, tally.failed), (2, 1, 2, 4));
        assert_eq!(tally.errors(), 6);
    }

    #[test]
    fn each_message_of_a_batch_is_judged() {
        let mut tally = Tally::default();
        let body = br#"{"results":[{"code":202,"x":1},{"code":422,"errors":[{"code":"no_phone"}]},{"code":200},{"code":503},{"code":422}]}"#;
        tally.count(200, body, 5, 1, Duration::from_millis(1));
        assert_eq!((tally.accepted, tally.refused_rightly, tally.refused, tally.failed), (2, 1, 1, 1));
    }

    #[test]
    fn percentiles_are_within_a_hundredth() {
        let mut tally = Tally::default();
        for ms in 1..=1000 {
            tally.count(202, b"", 1, 0, Duration::from_millis(ms));
        }
        for (share, ms) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = tally.quantile_ms(share);
            assert!((found / ms - 1.0).abs() < 0.011, "{share}: {found}");
        }
    }
}
