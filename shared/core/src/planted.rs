//! Defects on purpose, so that it can be shown that the drill finds them.
//!
//! Only a build with the feature `planted-faults` has them, which no release enables; there `WEIR_PLANTED` names the one
//! that is in effect. Without the feature [`is`] is a constant, and the branches that ask are compiled away.

use std::fmt;

/// A promise that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The gateway answers before Redis has.
    AnswerBeforeFlush,
    /// The worker acknowledges entries before PostgreSQL has them.
    AckBeforeCommit,
    /// Nobody takes over what a dead worker left.
    NoReclaim,
    /// The id is remembered first and the message appended later, in two steps.
    SetBeforeXadd,
    /// A worker that lost its lease goes on, and its moves are not checked.
    UnfencedMove,
    /// While PostgreSQL is away every try counts against the message.
    OutageBurnsAttempts,
    /// Of two events the one that a worker reads later counts, whenever they happened.
    ArrivalCounts,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 7] = [
        Planted::AnswerBeforeFlush,
        Planted::AckBeforeCommit,
        Planted::NoReclaim,
        Planted::SetBeforeXadd,
        Planted::UnfencedMove,
        Planted::OutageBurnsAttempts,
        Planted::ArrivalCounts,
    ];

    /// As `WEIR_PLANTED` names it.
    pub fn name(self) -> &'static str {
        match self {
            Planted::AnswerBeforeFlush => "answer-before-flush",
            Planted::AckBeforeCommit => "ack-before-commit",
            Planted::NoReclaim => "no-reclaim",
            Planted::SetBeforeXadd => "set-before-xadd",
            Planted::UnfencedMove => "unfenced-move",
            Planted::OutageBurnsAttempts => "outage-burns-attempts",
            Planted::ArrivalCounts => "arrival-counts",
        }
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether this build has planted faults.
pub const PRESENT: bool = cfg!(feature = "planted-faults");

/// Whether `fault` is in effect.
#[cfg(not(feature = "planted-faults"))]
pub const fn is(_fault: Planted) -> bool {
    false
}

/// Whether `fault` is in effect.
#[cfg(feature = "planted-faults")]
pub fn is(fault: Planted) -> bool {
    chosen() == Some(fault)
}

/// The fault that `WEIR_PLANTED` names.
///
/// # Panics
/// When it names none: a planted fault that is not in effect would prove nothing.
#[cfg(feature = "planted-faults")]
pub fn chosen() -> Option<Planted> {
    static CHOSEN: std::sync::OnceLock<Option<Planted>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("WEIR_PLANTED").ok()?;
        let fault = Planted::ALL.into_iter().find(|fault| fault.name() == name);
        Some(fault.unwrap_or_else(|| panic!("WEIR_PLANTED={name} is no planted fault")))
    })
}
