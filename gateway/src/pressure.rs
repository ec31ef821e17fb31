//! How many messages may be in flight: as many as configured, and fewer while more come than Redis takes.
//!
//! A burst may wait. What waits for longer than a burst only makes everybody later and takes memory, and the processor
//! time that goes into messages which are refused in the end is missing for those that are accepted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Time over which it is judged whether there is a burst or more, at least.
const WINDOW: Duration = Duration::from_millis(100);

/// After so long under overload it is looked again how long the way to Redis is.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a message takes where Redis has one batch after the other on the way: it waits until one has returned, then behind
/// another one. And one more, so that as many come as are needed to find out whether more would get through.
const TRIPS: u32 = 4;

/// The shortest of so many looks counts: one fsync may take long for reasons of its own.
const LOOKS: usize = 4;

/// What requests and batches see.
pub(crate) struct Pressure {
    limit: usize,
    room: AtomicUsize,
    turned_away: AtomicBool,
    /// The shortest way of this window, in microseconds.
    way_us: AtomicU64,
}

/// [`Pressure::way_us`] when nothing went the way.
const NONE: u64 = u64::MAX;

impl Pressure {
    /// `limit` messages may be in flight, and fewer under overload.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            room: AtomicUsize::new(limit),
            turned_away: AtomicBool::new(false),
            way_us: AtomicU64::new(NONE),
        })
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

    /// A small batch that had Redis to itself took so long: the way there and back and an fsync.
    pub(crate) fn took(&self, way: Duration) {
        self.way_us.fetch_min(way.as_micros() as u64, Ordering::Relaxed);
    }
}

/// Watches the batches on their way to Redis.
pub(crate) struct Judge {
    pressure: Arc<Pressure>,
    /// How long messages may wait while more come than Redis takes, beside what the way takes.
    delay: Duration,
    /// The shortest ways of the last windows that saw any.
    ways: VecDeque<Duration>,
    /// When the way was looked at.
    looked: Instant,
    /// In this window, for which others were held back.
    looks: bool,
    /// As many are let in whatever the rate: fewer would make batches that are not worth their fsync.
    least: usize,
    started: Instant,
    sent: usize,
    /// Somebody was turned away in the window before.
    turned_away: bool,
}

impl Judge {
    pub(crate) fn new(pressure: Arc<Pressure>, delay: Duration, least: usize) -> Self {
        let now = Instant::now();
        let ways = VecDeque::with_capacity(LOOKS);
        Self { pressure, delay, ways, looked: now, looks: false, least, started: now, sent: 0, turned_away: false }
    }

    /// Whether the next batch should be a small one that goes alone. Under overload no batch is small or alone by itself.
    pub(crate) fn wants_to_look(&mut self, now: Instant) -> bool {
        let wants = self.turned_away && now.saturating_duration_since(self.looked) >= LOOK_AGAIN;
        if wants {
            (self.looked, self.looks) = (now, true);
        }
        wants
    }

    /// How long a message is on its way to Redis and back, waiting included, when there is no crowd.
    fn trips(&self) -> Duration {
        TRIPS * self.ways.iter().min().copied().unwrap_or_default()
    }

    /// A batch of so many messages goes to Redis.
    pub(crate) fn sends(&mut self, messages: usize, now: Instant) {
        self.sent += messages;
        let passed = now.saturating_duration_since(self.started);
        if passed < WINDOW.max(self.trips()) {
            return;
        }
        let way = self.pressure.way_us.swap(NONE, Ordering::Relaxed);
        if way != NONE {
            self.ways.truncate(LOOKS - 1);
            self.ways.push_front(Duration::from_micros(way));
            self.looked = now;
        }
        let turned_away = self.pressure.turned_away.swap(false, Ordering::Relaxed);
        if !(turned_away && self.turned_away) {
            self.pressure.room.store(self.pressure.limit, Ordering::Relaxed);
        } else if !self.looks {
            let delay = self.delay + self.trips();
            let in_time = self.sent as f64 / passed.as_secs_f64() * delay.as_secs_f64();
            let room = (in_time as usize).max(self.least).min(self.pressure.limit);
            self.pressure.room.store(room, Ordering::Relaxed);
        }
        (self.started, self.sent, self.turned_away, self.looks) = (now, 0, turned_away, false);
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
    fn over_a_long_way_more_are_let_in() {
        let mut case = Case::new();
        case.pressure.took(Duration::from_millis(5));
        case.pressure.took(Duration::from_millis(200));
        case.window(2000, true);
        case.window(2000, true);
        assert_eq!(case.room(), 6000);
    }

    #[test]
    fn the_shortest_of_the_last_ways_counts() {
        let mut case = Case::new();
        case.pressure.took(Duration::from_millis(5));
        case.window(2000, true);
        for _ in 1..LOOKS {
            case.pressure.took(Duration::from_millis(10));
            case.window(2000, true);
            assert_eq!(case.room(), 6000);
        }
        case.pressure.took(Duration::from_millis(6));
        case.window(2000, true);
        assert_eq!(case.room(), 6800);
        case.pressure.took(Duration::from_millis(1));
        case.window(2000, true);
        assert_eq!(case.room(), 2800);
    }

    #[test]
    fn under_overload_the_way_is_looked_at_from_time_to_time() {
        let mut case = Case::new();
        case.now += LOOK_AGAIN;
        assert!(!case.judge.wants_to_look(case.now), "nobody is turned away");
        case.window(2000, true);
        case.now += LOOK_AGAIN;
        assert!(case.judge.wants_to_look(case.now));
        assert!(!case.judge.wants_to_look(case.now), "once is enough");
        case.now += LOOK_AGAIN;
        case.pressure.took(Duration::from_millis(5));
        case.window(2000, true);
        assert!(!case.judge.wants_to_look(case.now), "a small batch has just gone alone");
    }

    #[test]
    fn what_is_held_back_for_a_look_does_not_count_as_slow() {
        let mut case = Case::new();
        case.window(2000, true);
        case.window(2000, true);
        case.now += LOOK_AGAIN;
        assert!(case.judge.wants_to_look(case.now));
        case.window(10, true);
        assert_eq!(case.room(), 2000);
        case.window(1500, true);
        case.window(1500, true);
        assert_eq!(case.room(), 1500);
    }

    #[test]
    fn over_a_long_way_it_is_judged_by_more_than_one_batch() {
        let mut case = Case::new();
        case.pressure.took(WINDOW / 2);
        case.window(100, true);
        case.window(100, true);
        assert_eq!(case.room(), LIMIT);
        case.window(100, true);
        assert_eq!(case.room(), 2100);
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
