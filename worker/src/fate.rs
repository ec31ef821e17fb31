//! What becomes of a message that could not be stored: one pure decision.

use std::time::Duration;

use weir_core::dead_letter::class;
use weir_store::{Class, StoreError};

/// Why a single message could not be stored. Faults of PostgreSQL or of the deployment are no failures of a message:
/// they are waited out and never get here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// PostgreSQL cannot hold its data (SQLSTATE 22, 54).
    Data {
        /// SQLSTATE.
        code: String,
        /// Without any value.
        error: String,
    },
    /// It breaks a constraint (SQLSTATE 23).
    Constraint {
        /// SQLSTATE.
        code: String,
        /// Without any value.
        error: String,
    },
    /// Its statement takes too long again and again while others pass.
    Timeout {
        /// Without any value.
        error: String,
    },
    /// A bug of ours shows with this message.
    Internal {
        /// SQLSTATE or empty.
        code: String,
        /// Without any value.
        error: String,
    },
    /// The same id was stored with other content.
    Conflict {
        /// Message id of the one that was stored.
        first: String,
    },
    /// The entry is no message.
    Undecodable {
        /// Where it is broken, without quoting it.
        error: String,
    },
    /// Workers died while they processed it alone.
    Crash {
        /// How many.
        deaths: u32,
    },
}

impl Failure {
    /// What an error of the store says about the one message that it was about.
    pub fn of_message(error: &StoreError) -> Self {
        let code = error.sqlstate.clone().unwrap_or_default();
        let text = error.text.clone();
        if error.is_timeout() {
            return Self::Timeout { error: text };
        }
        match error.class {
            Class::Message if code.starts_with("23") => Self::Constraint { code, error: text },
            Class::Message => Self::Data { code, error: text },
            Class::Batch | Class::Dependency | Class::Deployment | Class::Damage => {
                Self::Internal { code, error: text }
            }
        }
    }

    /// The class in dead letters and metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Data { .. } => class::DATA,
            Self::Constraint { .. } => class::CONSTRAINT,
            Self::Timeout { .. } => class::TIMEOUT,
            Self::Internal { .. } => class::INTERNAL,
            Self::Conflict { .. } => class::CONFLICT,
            Self::Undecodable { .. } => class::DECODE,
            Self::Crash { .. } => class::CRASH,
        }
    }

    /// SQLSTATE, or empty.
    pub fn code(&self) -> &str {
        match self {
            Self::Data { code, .. } | Self::Constraint { code, .. } | Self::Internal { code, .. } => code,
            Self::Timeout { .. } => "57014",
            Self::Conflict { .. } | Self::Undecodable { .. } | Self::Crash { .. } => "",
        }
    }

    /// The error for people, without any of the message's data.
    pub fn text(&self) -> String {
        match self {
            Self::Data { error, .. }
            | Self::Constraint { error, .. }
            | Self::Timeout { error }
            | Self::Internal { error, .. }
            | Self::Undecodable { error } => error.clone(),
            Self::Conflict { first } => format!("message {first} has the same id and other content"),
            Self::Crash { deaths } => format!("{deaths} workers died while they processed this entry alone"),
        }
    }
}

/// When and how often a failed message is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Attempts before the message becomes a dead letter, the first one included.
    pub attempts: u32,
    /// Longest pause after the first failure.
    pub base: Duration,
    /// Growth of the longest pause from failure to failure.
    pub factor: f64,
    /// Longest pause ever.
    pub cap: Duration,
}

/// A policy for each class whose messages may be cured by time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policies {
    /// Data that PostgreSQL cannot hold: trying again changes nothing, so once by default.
    pub data: Policy,
    /// Broken constraints.
    pub constraint: Policy,
    /// Timeouts of one message.
    pub timeout: Policy,
    /// Bugs of ours.
    pub internal: Policy,
}

/// What to do with a failed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Try again after this long.
    Retry(Duration),
    /// Give up: an operator decides.
    Dead,
}

/// Decides. `attempts` counts the failed ones, this one included; `chance` is from 0 to 1: the pause is drawn from the
/// whole range (full jitter), so that messages which failed together do not come back together.
pub fn decide(failure: &Failure, attempts: u32, policies: &Policies, chance: f64) -> Fate {
    let policy = match failure {
        Failure::Data { .. } => &policies.data,
        Failure::Constraint { .. } => &policies.constraint,
        Failure::Timeout { .. } => &policies.timeout,
        Failure::Internal { .. } => &policies.internal,
        Failure::Conflict { .. } | Failure::Undecodable { .. } | Failure::Crash { .. } => return Fate::Dead,
    };
    if attempts >= policy.attempts {
        return Fate::Dead;
    }
    let growth = policy.factor.powi(attempts.saturating_sub(1).min(64) as i32);
    let longest = (policy.base.as_secs_f64() * growth).min(policy.cap.as_secs_f64());
    // No pause is out of reach with settings that were checked; with others the longest one is right.
    let pause = Duration::try_from_secs_f64(longest * chance.clamp(0.0, 1.0));
    Fate::Retry(pause.unwrap_or(policy.cap).min(policy.cap))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policies(attempts: u32) -> Policies {
        let policy = Policy { attempts, base: Duration::from_secs(1), factor: 3.0, cap: Duration::from_secs(900) };
        Policies { data: Policy { attempts: 1, ..policy }, constraint: policy, timeout: policy, internal: policy }
    }

    fn timeout() -> Failure {
        Failure::Timeout { error: String::new() }
    }

    #[test]
    fn pauses_grow_to_the_cap_and_then_it_is_dead() {
        let pauses: Vec<_> = (1..=8).map(|attempt| decide(&timeout(), attempt, &policies(8), 1.0)).collect();
        let seconds = [1, 3, 9, 27, 81, 243, 729].map(|s| Fate::Retry(Duration::from_secs(s)));
        assert_eq!(pauses[..7], seconds);
        assert_eq!(pauses[7], Fate::Dead);
        assert_eq!(decide(&timeout(), 60, &policies(99), 1.0), Fate::Retry(Duration::from_secs(900)));
    }

    #[test]
    fn a_pause_is_drawn_from_the_whole_range() {
        assert_eq!(decide(&timeout(), 3, &policies(8), 0.0), Fate::Retry(Duration::ZERO));
        assert_eq!(decide(&timeout(), 3, &policies(8), 0.5), Fate::Retry(Duration::from_millis(4500)));
    }

    #[test]
    fn what_time_cannot_cure_is_dead_at_once() {
        let failures = [
            Failure::Data { code: "22021".into(), error: String::new() },
            Failure::Conflict { first: String::new() },
            Failure::Undecodable { error: String::new() },
            Failure::Crash { deaths: 3 },
        ];
        for failure in failures {
            assert_eq!(decide(&failure, 1, &policies(8), 1.0), Fate::Dead, "{failure:?}");
        }
    }

    #[test]
    fn the_class_of_a_failure_follows_the_sqlstate() {
        let error = |class, code: &str| StoreError { class, sqlstate: Some(code.into()), text: "x".into() };
        let cases = [
            (error(Class::Message, "22021"), "data"),
            (error(Class::Message, "54000"), "data"),
            (error(Class::Message, "23502"), "constraint"),
            (error(Class::Dependency, "57014"), "timeout"),
            (error(Class::Batch, "21000"), "internal"),
        ];
        for (error, class) in cases {
            assert_eq!(Failure::of_message(&error).class(), class);
        }
    }

    fn any_seconds() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0_u64..100_000).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_secs),
            Just(Duration::MAX)
        ]
    }

    proptest! {
        #[test]
        fn no_policy_makes_a_pause_longer_than_its_cap_or_a_worker_panic(
            attempts in any::<u32>(),
            most in any::<u32>(),
            base in any_seconds(),
            cap in any_seconds(),
            factor in prop_oneof![1.0..10.0, any::<f64>()],
            chance in prop_oneof![0.0..=1.0, any::<f64>()],
        ) {
            let policy = Policy { attempts: most, base, factor, cap };
            let policies = Policies { data: policy, constraint: policy, timeout: policy, internal: policy };
            match decide(&timeout(), attempts, &policies, chance) {
                Fate::Retry(pause) => prop_assert!(attempts < most && pause <= cap),
                Fate::Dead => prop_assert!(attempts >= most),
            }
        }
    }
}
