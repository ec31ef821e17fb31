//! How much of everything is measured.

use std::fmt;
use std::time::Duration;

/// The numbers of the full form, and of the short one.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    /// Turns of every side of a comparison that costs seconds, and of one that costs a minute.
    pub(super) rounds: usize,
    pub(super) long_rounds: usize,
    /// Length of one turn of load, after a second to warm up.
    pub(super) turn: Duration,
    /// Numbers of connections for which everybody is measured.
    pub(super) connections: &'static [usize],
    /// Messages of the backlog that Weir drains, and of each peer's.
    pub(super) backlog: usize,
    pub(super) peer_backlog: usize,
    /// Length of one try of a rate end to end, and how often the interval is halved.
    pub(super) step: Duration,
    pub(super) halvings: usize,
    /// For how long messages are followed until they are visible.
    pub(super) visible: Duration,
    /// Ids in the dedupe memory. Its first epoch is made for about a million; fewer would look dearer than they are.
    pub(super) ids: usize,
    pub(super) idle: usize,
    /// Rows of the full table.
    pub(super) rows: usize,
    /// Messages that wait while more are accepted.
    pub(super) backlogs: [usize; 3],
    /// Messages of one drain where several are compared.
    pub(super) small_backlog: usize,
    /// Profiles of the system that is monitored, and requests to each of its endpoints.
    pub(super) profiles: usize,
    pub(super) requests: usize,
}

impl Scale {
    pub(super) fn full() -> Self {
        Self {
            rounds: 5,
            long_rounds: 3,
            turn: Duration::from_secs(3),
            connections: &[64, 256],
            backlog: 1_000_000,
            peer_backlog: 40_000,
            step: Duration::from_secs(8),
            halvings: 4,
            visible: Duration::from_secs(30),
            ids: 1_000_000,
            idle: 10_000,
            rows: 10_000_000,
            backlogs: [10_000, 1_000_000, 5_000_000],
            small_backlog: 300_000,
            profiles: 10_000_000,
            requests: 2_000,
        }
    }

    pub(super) fn quick() -> Self {
        Self {
            rounds: 1,
            long_rounds: 1,
            turn: Duration::from_secs(2),
            connections: &[256],
            backlog: 150_000,
            peer_backlog: 5_000,
            step: Duration::from_secs(2),
            halvings: 2,
            visible: Duration::from_secs(4),
            ids: 1_000_000,
            idle: 2_000,
            rows: 500_000,
            backlogs: [1_000, 50_000, 250_000],
            small_backlog: 50_000,
            profiles: 200_000,
            requests: 500,
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} turns of {} s, {} of long ones, {:?} connections, backlogs of {} (peers {}), steps of {} s, {} idle \
             connections, a table of {} rows, accept with {:?} waiting",
            self.rounds,
            self.turn.as_secs(),
            self.long_rounds,
            self.connections,
            self.backlog,
            self.peer_backlog,
            self.step.as_secs(),
            self.idle,
            self.rows,
            self.backlogs
        )
    }
}
