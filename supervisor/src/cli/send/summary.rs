//! What `weir send` says at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::arrival::Arrival;
use super::sender::Plan;
use super::tally::{Latency, Tally};
use crate::cli::Output;
use crate::http::Target;
use crate::output;

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    url: String,
    source: String,
    seed: u64,
    count: u64,
    clients: u64,
    seconds: f64,
    /// Messages answered a second.
    rate: f64,
    accepted: u64,
    duplicates: u64,
    refused: BTreeMap<u16, u64>,
    unknown: u64,
    retried: u64,
    /// Messages that were never sent, because the run was interrupted.
    unsent: u64,
    reason: Option<String>,
    latency: Latency,
    arrival: Arrival,
}

impl Summary {
    pub(super) fn new(target: &Target, plan: &Plan, took: Duration, tally: &mut Tally, arrival: Arrival) -> Self {
        let refused: u64 = tally.refused.values().sum();
        let answered = tally.accepted + tally.duplicates + refused;
        let seconds = took.as_secs_f64();
        Self {
            url: target.to_string(),
            source: plan.traffic.source.clone(),
            seed: plan.traffic.seed,
            count: plan.count,
            clients: plan.traffic.clients,
            seconds,
            rate: answered as f64 / seconds.max(0.001),
            accepted: tally.accepted,
            duplicates: tally.duplicates,
            refused: tally.refused.clone(),
            unknown: tally.unknown,
            retried: tally.retried,
            unsent: plan.count - answered - tally.unknown,
            reason: tally.reason.clone(),
            latency: tally.latency(),
            arrival,
        }
    }

    pub(super) fn print(&self, output: Output) {
        let mut lines = vec![
            ("sent", format!("{} to {} as {}, seed {}", self.count - self.unsent, self.url, self.source, self.seed)),
            ("accepted", self.accepted.to_string()),
            ("duplicates", self.duplicates.to_string()),
            ("refused", self.refusals()),
            ("unknown", self.unknown.to_string()),
            ("retried", self.retried.to_string()),
            ("rate", format!("{:.0}/s in {:.1} s", self.rate, self.seconds)),
            ("latency", self.latencies()),
            ("arrived", self.arrivals()),
        ];
        if self.unsent > 0 {
            lines.insert(1, ("not sent", format!("{}: interrupted", self.unsent)));
        }
        if let Some(reason) = &self.reason {
            lines.push(("first reason", reason.clone()));
        }
        if !self.arrival.missing_ids.is_empty() {
            let ids = self.arrival.missing_ids.join(" ");
            lines.push(("missing", format!("{ids}; see `weir message show`, `weir status` and `weir fleet list`")));
        }
        output::record(output, self, &lines);
    }

    fn refusals(&self) -> String {
        if self.refused.is_empty() {
            return "0".into();
        }
        let each = self.refused.iter().map(|(status, count)| format!("{count} with {status}"));
        each.collect::<Vec<_>>().join(", ")
    }

    fn latencies(&self) -> String {
        let Latency { p50_ms, p95_ms, p99_ms, max_ms } = self.latency;
        format!("p50 {p50_ms:.1} ms, p95 {p95_ms:.1} ms, p99 {p99_ms:.1} ms, max {max_ms:.1} ms")
    }

    fn arrivals(&self) -> String {
        let Arrival { checked_by, reason, stored, dead, missing, .. } = &self.arrival;
        let reason = reason.as_deref().unwrap_or_default();
        match *checked_by {
            "rows" => format!("{stored} rows, {dead} dead letters, {missing} missing"),
            "balance" => format!("{missing} still in the queue, by its balance alone: {reason}"),
            _ => format!("not checked: {reason}"),
        }
    }
}
