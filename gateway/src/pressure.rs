//! How many messages may be in flight: as many as configured, and fewer while more come than Redis takes.
//!
//! A burst may wait. What waits for longer than a burst only makes everybody later and takes memory, and the processor
//! time that goes into messages which are refused in the end is missing for those that are accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Time over which it is judged whether there is a burst or more.
const WINDOW: Duration = Duration::from_millis(100);

/// What requests see.
pub(crate) struct Pressure {
    limit: usize,
    room: AtomicUsize,
    turned_away: AtomicBool,
}

impl Pressure {
    /// `limit` messages may be in flight, and fewer under overload.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, room: AtomicUsize::new(limit), turned_away: AtomicBool::new(false) })
    }

    /// How many messages may be in flight at all.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether about so many more messages are let in now. A guess of them counts for an eighth of the room at most: it
    /// may be too high, and what would fit must not be refused for ever.
    pub(crate) fn lets_in(&self, in_flight: usize, guess: usize) -> bool {
        let room = self.room.load(Ordering::Relaxed);
        let lets = in_flight + guess.min(room / 8).max(1) <= room;
        if !lets {
            self.turn_away();
        }
        lets
    }

    /// Somebody is refused because there are too many.
    pub(crate) fn turn_away(&self) {
        self.turned_away.store(true, Ordering::Relaxed);
    }
}

/// Watches the batches on their way to Redis.
pub(crate) struct Judge {
    pressure: Arc<Pressure>,
    /// How long messages may wait while more come than Redis takes.
    delay: Duration,
    /// As many are let in whatever the rate: fewer would make batches that are not worth their fsync.
    least: usize,
    started: Instant,
    sent: usize,
    /// Somebody was turned away in the window before.
    turned_away: bool,
}

impl Judge {
    pub(crate) fn new(pressure: Arc<Pressure>, delay: Duration, least: usize) -> Self {
        Self { pressure, delay, least, started: Instant::now(), sent: 0, turned_away: false }
    }

    /// A batch of so many messages goes to Redis.
    pub(crate) fn sends(&mut self, messages: usize, now: Instant) {
        self.sent += messages;
        let passed = now.saturating_duration_since(self.started);
        if passed < WINDOW {
            return;
        }
        let turned_away = self.pressure.turned_away.swap(false, Ordering::Relaxed);
        let room = if turned_away && self.turned_away {
            let in_time = self.sent as f64 / passed.as_secs_f64() * self.delay.as_secs_f64();
            (in_time as usize).max(self.least).min(self.pressure.limit)
        } else {
            self.pressure.limit
        };
        self.pressure.room.store(room, Ordering::Relaxed);
        (self.started, self.sent, self.turned_away) = (now, 0, turned_away);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8000;

    struct Case {
        pressure: Arc<Pressure>,
        judge: Judge,
        now: Instant,
    }

    impl Case {
        fn new() -> Self {
            let pressure = Pressure::new(LIMIT);
            let judge = Judge::new(pressure.clone(), Duration::from_millis(10), 1000);
            Self { pressure, judge, now: Instant::now() }
        }

        /// A batch every ten milliseconds for a window; whether somebody comes when there is no room.
        fn window(&mut self, messages: usize, too_many: bool) {
            if too_many {
                assert!(!self.pressure.lets_in(LIMIT, 1));
            }
            for _ in 0..10 {
                self.now += WINDOW / 10;
                self.judge.sends(messages, self.now);
            }
        }

        fn room(&self) -> usize {
            self.pressure.room.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_burst_may_fill_what_is_configured() {
        let mut case = Case::new();
        for _ in 0..10 {
            case.window(1000, true);
            assert_eq!(case.room(), LIMIT);
            case.window(1000, false);
            assert_eq!(case.room(), LIMIT);
        }
    }

    #[test]
    fn who_waits_for_answers_before_sending_more_may_fill_it_for_ever() {
        let mut case = Case::new();
        for _ in 0..10 {
            assert!(case.pressure.lets_in(LIMIT - 1, 1));
            case.window(1000, false);
            assert_eq!(case.room(), LIMIT);
        }
    }

    #[test]
    fn under_overload_as_many_are_let_in_as_redis_takes_in_the_delay() {
        let mut case = Case::new();
        case.window(2000, true);
        case.window(2000, true);
        assert_eq!(case.room(), 2000);
        assert!(case.pressure.lets_in(1999, 1) && !case.pressure.lets_in(2000, 1));
        assert!(case.pressure.lets_in(1750, 1000) && !case.pressure.lets_in(1751, 1000));
    }

    #[test]
    fn it_is_over_when_nobody_was_turned_away_for_a_while() {
        let mut case = Case::new();
        for _ in 0..5 {
            case.window(2000, true);
        }
        assert_eq!(case.room(), 2000);
        case.window(500, false);
        assert_eq!(case.room(), LIMIT);
    }

    #[test]
    fn a_slow_redis_still_gets_batches_that_are_worth_it() {
        let mut case = Case::new();
        case.window(10, true);
        case.window(10, true);
        assert_eq!(case.room(), 1000);
    }

    #[test]
    fn the_configured_limit_is_the_most_under_overload_too() {
        let mut case = Case::new();
        case.window(100_000, true);
        case.window(100_000, true);
        assert_eq!(case.room(), LIMIT);
        let small = Pressure::new(5);
        assert!(small.lets_in(4, 50) && !small.lets_in(5, 50));
    }
}
