//! What became of the messages of one run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use weir_core::message::{MessageId, MessageKey};

/// What one sender, or all of them, found out.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Messages that are safe: their numbers and keys. A repeat is there once for every answer.
    pub(super) safe: Vec<(u64, MessageKey)>,
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    /// Messages that were refused for good, by status.
    pub(super) refused: BTreeMap<u16, u64>,
    /// Messages of which nobody could say whether they were accepted.
    pub(super) unknown: u64,
    /// Times that a message was sent again.
    pub(super) retried: u64,
    /// Microseconds that answers took.
    pub(super) latencies: Vec<u32>,
    /// The first reason why something was refused or unknown.
    pub(super) reason: Option<String>,
    /// When the first of the accepted was accepted, on the clock of Redis.
    pub(super) first_ms: Option<u64>,
}

impl Tally {
    pub(super) fn answered(&mut self, after: Duration) {
        self.latencies.push(u32::try_from(after.as_micros()).unwrap_or(u32::MAX));
    }

    pub(super) fn safe(&mut self, number: u64, key: MessageKey, id: Option<MessageId>, duplicate: bool) {
        self.safe.push((number, key));
        if duplicate {
            self.duplicates += 1;
        } else {
            self.accepted += 1;
        }
        if let Some(id) = id {
            self.first_ms = Some(self.first_ms.map_or(id.ms, |first| first.min(id.ms)));
        }
    }

    pub(super) fn refused(&mut self, status: u16, reason: &str) {
        *self.refused.entry(status).or_default() += 1;
        self.reason.get_or_insert_with(|| reason.to_owned());
    }

    pub(super) fn unknown(&mut self, reason: &str) {
        self.unknown += 1;
        self.reason.get_or_insert_with(|| reason.to_owned());
    }

    /// Takes in what another sender found out.
    pub(super) fn add(&mut self, other: Self) {
        self.safe.extend(other.safe);
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.unknown += other.unknown;
        self.retried += other.retried;
        self.latencies.extend(other.latencies);
        self.reason = self.reason.take().or(other.reason);
        self.first_ms = [self.first_ms, other.first_ms].into_iter().flatten().min();
    }

    /// Every message was answered for good.
    pub(super) fn is_clean(&self) -> bool {
        self.unknown == 0 && self.refused.is_empty()
    }

    /// How long answers took.
    pub(super) fn latency(&mut self) -> Latency {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            let micros = self.latencies.get(index.min(self.latencies.len().saturating_sub(1)));
            f64::from(micros.copied().unwrap_or_default()) / 1000.0
        };
        Latency { p50_ms: at(0.5), p95_ms: at(0.95), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// Times from request to answer, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_read_off_the_sorted_answers() {
        let mut tally = Tally { latencies: (1..=1000).rev().map(|ms| ms * 1000).collect(), ..Tally::default() };
        let latency = tally.latency();
        assert_eq!(latency, Latency { p50_ms: 501.0, p95_ms: 951.0, p99_ms: 991.0, max_ms: 1000.0 });
        assert_eq!(Tally::default().latency().max_ms, 0.0);
    }
}
