//! What `weir status` found: the JSON form, and what the tables are made of.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_core::queue::balance::Balance;
use weir_core::queue::server::Durability;

use super::probe::Gateway;
use crate::cli::fleet::roster::Roster;
use crate::stack_file::StackFile;

/// Everything at one moment.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Unix milliseconds.
    pub(crate) at_ms: u64,
    /// Nothing is wrong.
    pub(crate) ok: bool,
    /// What is wrong.
    pub(crate) problems: Vec<String>,
    pub(crate) redis: Redis,
    pub(crate) database: Database,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) webhooks: Webhooks,
    /// None while Redis cannot be asked.
    pub(crate) balance: Option<Sum>,
    pub(crate) partitions: Vec<Sum>,
    pub(crate) flow: Option<Flow>,
    pub(crate) fleet: Option<Roster>,
    /// What `weir up` runs, whole.
    pub(crate) stack: Option<StackFile>,
}

/// The queue's server.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Redis {
    /// Without its password.
    pub(crate) url: String,
    pub(crate) reachable: bool,
    pub(crate) error: Option<String>,
    pub(crate) version: String,
    /// What a 2xx promises.
    pub(crate) durability: Option<Durability>,
    /// Why the server does not keep that promise.
    pub(crate) weaknesses: Vec<String>,
    /// Of a cluster, that of the primary whose memory is the fullest.
    pub(crate) used_memory: u64,
    pub(crate) memory_limit: u64,
}

impl Redis {
    /// Memory in use, in percent.
    pub(crate) fn memory_percent(&self) -> f64 {
        100.0 * self.used_memory as f64 / self.memory_limit.max(1) as f64
    }
}

/// What comes to `/webhook/max`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Webhooks {
    /// Whether the settings, as this command sees them, have gateways take it.
    pub(crate) enabled: bool,
    /// What was looked at and not taken within the last 24 hours, and events that became dead letters, by reason.
    pub(crate) not_taken: BTreeMap<String, u64>,
}

/// PostgreSQL.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Database {
    /// Without its password.
    pub(crate) url: String,
    pub(crate) reachable: bool,
    pub(crate) schema_current: bool,
    pub(crate) error: Option<String>,
}

/// A balance with what follows from it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sum {
    #[serde(flatten)]
    pub(crate) counts: Balance,
    pub(crate) in_flight: u64,
    pub(crate) backlog: u64,
    pub(crate) drift: i64,
}

impl From<Balance> for Sum {
    fn from(counts: Balance) -> Self {
        Self { counts, in_flight: counts.in_flight(), backlog: counts.backlog(), drift: counts.drift() }
    }
}

/// How fast things move.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Flow {
    /// Accepted a second since the last look; none in a look that stands alone.
    pub(crate) accepted_per_second: Option<f64>,
    /// Rows a second, as the workers say.
    pub(crate) stored_per_second: f64,
    /// Seconds until the backlog is gone at this pace; none when it does not shrink.
    pub(crate) drained_in_seconds: Option<f64>,
}

impl Flow {
    /// `backlog` shrinks by what is stored less what comes in.
    pub(crate) fn new(backlog: u64, stored_per_second: f64, accepted_per_second: Option<f64>) -> Self {
        let shrinks = stored_per_second - accepted_per_second.unwrap_or_default();
        let drained_in_seconds = (shrinks > 0.5 && backlog > 0).then(|| backlog as f64 / shrinks);
        Self { accepted_per_second, stored_per_second, drained_in_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::Flow;

    #[test]
    fn a_backlog_drains_only_when_more_is_stored_than_comes_in() {
        assert_eq!(Flow::new(1000, 500.0, None).drained_in_seconds, Some(2.0));
        assert_eq!(Flow::new(1000, 500.0, Some(400.0)).drained_in_seconds, Some(10.0));
        assert_eq!(Flow::new(1000, 500.0, Some(600.0)).drained_in_seconds, None);
        assert_eq!(Flow::new(0, 500.0, None).drained_in_seconds, None);
    }
}
