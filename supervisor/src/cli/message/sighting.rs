//! A place of the queue in which a message is, as it is printed.

use serde::Serialize;
use weir_core::dead_letter::DeadLetter;
use weir_core::queue::trail;

use crate::output;

/// Where it is.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Sighting {
    /// No worker has read it.
    Waiting {
        stream: &'static str,
        entry: String,
        /// Entries that are before it.
        before: u64,
        /// There are more than `before`.
        more: bool,
    },
    /// A worker has read it and not settled it.
    Processing { stream: &'static str, entry: String, worker: String, since: String, deliveries: u64 },
    /// It waits for its next attempt.
    RetryLater { attempts: u32, due: String },
    /// Set aside.
    Parked { place: String, since: String, class: String, error: String },
    /// A dead letter.
    Dead { place: String, since: String, class: String, code: String, error: String },
}

impl Sighting {
    pub(super) fn of(seen: trail::Sighting) -> Self {
        let place = |letter: &DeadLetter| format!("{}/{}", letter.partition, letter.entry);
        match seen {
            trail::Sighting::Waiting { stream, entry, before, more } => Self::Waiting { stream, entry, before, more },
            trail::Sighting::Processing { stream, entry, worker, since_ms, deliveries } => {
                Self::Processing { stream, entry, worker, since: output::time(since_ms), deliveries }
            }
            trail::Sighting::RetryLater { attempts, due_ms } => {
                Self::RetryLater { attempts, due: output::time(due_ms) }
            }
            trail::Sighting::Parked(letter) => {
                let (place, since) = (place(&letter), output::time(letter.died_ms()));
                Self::Parked { place, since, class: letter.class, error: letter.error }
            }
            trail::Sighting::Dead(letter) => {
                let (place, since) = (place(&letter), output::time(letter.died_ms()));
                Self::Dead { place, since, class: letter.class, code: letter.code, error: letter.error }
            }
        }
    }
}

impl std::fmt::Display for Sighting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sighting::Waiting { stream, entry, before, more } => {
                let more = if *more { "more than " } else { "" };
                write!(f, "waiting in {stream} as entry {entry}, {more}{before} before it")
            }
            Sighting::Processing { stream, entry, worker, since, deliveries } => {
                write!(
                    f,
                    "being processed by {worker} since {since} (entry {entry} of {stream}, delivery {deliveries})"
                )
            }
            Sighting::RetryLater { attempts, due } => write!(f, "waiting for retry {attempts} until {due}"),
            Sighting::Parked { place, since, class, error } => {
                write!(f, "parked at {place} since {since}: {class} {error}")
            }
            Sighting::Dead { place, since, class, code, error } => {
                write!(f, "dead letter {place} since {since}: {class} {code} {error}")
            }
        }
    }
}
