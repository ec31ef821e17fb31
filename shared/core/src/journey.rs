//! What happened to an entry so far: travels with it through retry, suspect and dead letters.

use serde::{Deserialize, Serialize};

/// The attempts of one entry, oldest first. As JSON it is field `a` of an entry outside ingest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Journey {
    /// Attempts that failed through the message's own fault since it was accepted or replayed.
    #[serde(rename = "n", default)]
    pub attempts: u32,
    /// Unix milliseconds of the first failure.
    #[serde(rename = "first", default)]
    pub first_failed_ms: u64,
    /// The last few failures.
    #[serde(rename = "log", default)]
    pub log: Vec<Attempt>,
}

/// One failed attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// Unix milliseconds.
    #[serde(rename = "at")]
    pub at_ms: u64,
    /// Worker that tried.
    pub worker: String,
    /// Error class.
    pub class: String,
    /// The error without any of the message's data.
    pub error: String,
}

/// Failures kept with an entry.
const LOG_LENGTH: usize = 10;

impl Journey {
    /// Reads field `a`; an empty or broken one is a journey that begins.
    pub fn decode(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// Field `a`: one line without a line break.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("a journey is always JSON")
    }

    /// Notes a failed attempt.
    pub fn failed(&mut self, attempt: Attempt) {
        self.attempts = self.attempts.saturating_add(1);
        if self.first_failed_ms == 0 {
            self.first_failed_ms = attempt.at_ms;
        }
        self.log.push(attempt);
        if self.log.len() > LOG_LENGTH {
            self.log.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_journey_survives_the_queue_in_one_line(
            attempts in any::<u32>(),
            first_failed_ms in any::<u64>(),
            log in prop::collection::vec((any::<u64>(), any::<String>(), any::<String>()), 0..15),
        ) {
            let mut journey = Journey { attempts, first_failed_ms, log: Vec::new() };
            for (at_ms, worker, error) in log {
                journey.failed(Attempt { at_ms, worker, class: "data".into(), error });
            }
            let line = journey.encode();
            prop_assert!(!line.contains('\n') && journey.log.len() <= LOG_LENGTH && journey.attempts >= attempts);
            prop_assert_eq!(Journey::decode(line.as_bytes()).encode(), line);
        }

        #[test]
        fn no_bytes_make_reading_a_journey_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Journey::decode(&bytes);
        }
    }
}
