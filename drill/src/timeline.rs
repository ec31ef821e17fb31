//! What went through, slice by slice, and when the faults were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::fault::Fault;

/// Length of a slice.
pub(crate) const SLICE: Duration = Duration::from_millis(500);

/// One slice of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Slice {
    /// Seconds since the start, at its end.
    pub at: f64,
    /// Acknowledged messages a second.
    pub accepted_per_second: f64,
    /// Messages a second that were refused or got no answer.
    pub failed_per_second: f64,
    /// Rows a second; `None` when Redis did not say.
    pub stored_per_second: Option<f64>,
    /// Median time from request to answer, in milliseconds; `None` without answers.
    pub p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub p99_ms: Option<f64>,
}

/// One fault as it happened. Times are seconds since the start.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// What.
    pub fault: Fault,
    /// From when.
    pub struck: f64,
    /// When its cause was gone: a server answers again, a connection can be made.
    pub healed: f64,
    /// When work went on; `None` when it did not in time.
    pub recovered: Option<f64>,
    /// Whether another fault overlapped it: its recovery then says little.
    pub overlapped: bool,
}

impl Event {
    /// From the healing to the first success, in seconds.
    pub fn recovery(&self) -> Option<f64> {
        self.recovered.map(|recovered| (recovered - self.healed).max(0.0))
    }
}

/// Collects slices and events while the run goes on.
pub(crate) struct Timeline {
    pub(crate) started: Instant,
    latencies: Mutex<Vec<u32>>,
    accepted: AtomicU64,
    failed: AtomicU64,
    slices: Mutex<Vec<Slice>>,
    events: Mutex<Vec<Event>>,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            latencies: Mutex::default(),
            accepted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            slices: Mutex::default(),
            events: Mutex::default(),
        }
    }

    /// Seconds since the start.
    pub(crate) fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Counts an answer that acknowledged `messages`.
    pub(crate) fn accepted(&self, messages: u64, took: Duration) {
        self.accepted.fetch_add(messages, Ordering::Relaxed);
        lock(&self.latencies).push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// Counts messages that were not acknowledged.
    pub(crate) fn failed(&self, messages: u64) {
        self.failed.fetch_add(messages, Ordering::Relaxed);
    }

    /// Messages acknowledged since the last slice ended, and so on: ends a slice.
    pub(crate) fn end_slice(&self, since: f64, stored: Option<u64>) {
        let at = self.now();
        let seconds = (at - since).max(0.001);
        let mut latencies = std::mem::take(&mut *lock(&self.latencies));
        latencies.sort_unstable();
        let rate = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed) as f64 / seconds;
        lock(&self.slices).push(Slice {
            at,
            accepted_per_second: rate(&self.accepted),
            failed_per_second: rate(&self.failed),
            stored_per_second: stored.map(|stored| stored as f64 / seconds),
            p50_ms: percentile(&latencies, 0.5).map(|micros| f64::from(micros) / 1000.0),
            p99_ms: percentile(&latencies, 0.99).map(|micros| f64::from(micros) / 1000.0),
        });
    }

    pub(crate) fn add(&self, event: Event) {
        lock(&self.events).push(event);
    }

    /// All slices, and all events in the order in which they began, with what overlapped marked.
    pub(crate) fn finish(&self) -> (Vec<Slice>, Vec<Event>) {
        let mut events = lock(&self.events).clone();
        events.sort_by(|a, b| a.struck.total_cmp(&b.struck));
        mark_overlaps(&mut events);
        (lock(&self.slices).clone(), events)
    }
}

fn mark_overlaps(events: &mut [Event]) {
    let spans: Vec<(f64, f64)> =
        events.iter().map(|event| (event.struck, event.recovered.unwrap_or(event.healed))).collect();
    for (index, event) in events.iter_mut().enumerate() {
        let (from, to) = spans[index];
        event.overlapped =
            spans.iter().enumerate().any(|(other, (start, end))| other != index && *start < to && *end > from);
    }
}

/// The value below which `share` of the sorted values lie.
pub(crate) fn percentile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get(((sorted.len() as f64 * share) as usize).min(last)).copied()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(struck: f64, healed: f64, recovered: f64) -> Event {
        Event { fault: Fault::RedisKill, struck, healed, recovered: Some(recovered), overlapped: false }
    }

    #[test]
    fn only_events_that_overlap_are_marked() {
        let timeline = Timeline::new();
        for one in [event(10.0, 11.0, 12.0), event(1.0, 2.0, 3.0), event(11.5, 12.5, 13.0)] {
            timeline.add(one);
        }
        let overlapped: Vec<bool> = timeline.finish().1.iter().map(|event| event.overlapped).collect();
        assert_eq!(overlapped, [false, true, true]);
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.99)), (Some(51), Some(100)));
        assert_eq!((percentile(&[7], 0.99), percentile::<u32>(&[], 0.5)), (Some(7), None));
    }
}
