//! The clock of an open loop: says to each sender when its next request is due.

use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Sleeps at least so long: each time the processor is woken costs what is measured. The runtime's own timers are only
/// exact to a millisecond, which is as much as an answer takes.
const STEP: Duration = Duration::from_micros(100);

/// The moments at which requests are due: evenly spread, one sender after the other.
pub(crate) struct Schedule {
    first: Instant,
    gap: Duration,
}

impl Schedule {
    pub(crate) fn new(first: Instant, per_second: f64) -> Self {
        Self { first, gap: Duration::from_secs_f64(1.0 / per_second.max(0.001)) }
    }

    /// When the request of this number is due.
    fn due(&self, number: u64) -> Instant {
        self.first + Duration::from_nanos((self.gap.as_nanos() * u128::from(number)) as u64)
    }
}

/// Starts the clock; it ends by itself at `until`, or when nobody listens.
pub(crate) fn start(schedule: Schedule, senders: usize, until: Instant) -> Vec<UnboundedReceiver<Instant>> {
    let (ticks, receivers): (Vec<_>, Vec<_>) = (0..senders).map(|_| mpsc::unbounded_channel()).unzip();
    thread::spawn(move || run(&schedule, &ticks, until));
    receivers
}

fn run(schedule: &Schedule, ticks: &[UnboundedSender<Instant>], until: Instant) {
    let mut number = 0;
    loop {
        let due = schedule.due(number);
        if due >= until {
            return;
        }
        let now = Instant::now();
        if due > now {
            thread::sleep((due - now).max(STEP));
            continue;
        }
        let sent = ticks[(number % ticks.len() as u64) as usize].send(due);
        if sent.is_err() && ticks.iter().all(UnboundedSender::is_closed) {
            return;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_without_drift() {
        let first = Instant::now();
        let schedule = Schedule::new(first, 30_000.0);
        assert_eq!(schedule.due(0), first);
        let after_a_minute = schedule.due(1_800_000) - first;
        assert!((after_a_minute.as_secs_f64() - 60.0).abs() < 0.001, "{after_a_minute:?}");
    }

    #[test]
    fn each_sender_has_its_turn_with_the_intended_time() {
        let first = Instant::now();
        let mut receivers = start(Schedule::new(first, 1000.0), 4, first + Duration::from_millis(40));
        let due = |receiver: &mut UnboundedReceiver<Instant>| std::iter::from_fn(|| receiver.blocking_recv()).collect();
        let all: Vec<Vec<Instant>> = receivers.iter_mut().map(due).collect();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [10; 4]);
        assert_eq!(all[1][0] - first, Duration::from_millis(1));
        assert_eq!(all[3][9] - first, Duration::from_millis(39));
    }
}
