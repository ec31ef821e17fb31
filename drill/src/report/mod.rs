//! What a run found, for people, programs and browsers.

mod html;
mod text;

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::fault::Fault;
use crate::judge::Verdict;
use crate::run::DrillOptions;
use crate::timeline::{Event, Slice, percentile};

/// Everything that a run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of Weir.
    pub version: &'static str,
    /// What `WEIR_COMMIT` says of the build, if anything.
    pub commit: Option<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// Its whole length in seconds.
    pub seconds: f64,
    /// The seed that repeats it.
    pub seed: u64,
    /// Gateway processes, worker processes, senders.
    pub fleet: [usize; 3],
    /// Whether every promise held and work went on after every fault.
    pub green: bool,
    /// What did not hold, in words.
    pub findings: Vec<String>,
    /// The judgement in numbers.
    pub verdict: Verdict,
    /// Processes that were killed.
    pub kills: usize,
    /// With no loss in so many kills, the chance of a loss in one kill is at most this, at 95 %; `None` without kills or
    /// with a loss.
    pub loss_per_kill_at_most: Option<f64>,
    /// Fault by fault.
    pub faults: Vec<FaultSummary>,
    /// Faults that could not be had here, and why.
    pub left_out: Vec<String>,
    /// Every fault as it happened.
    pub events: Vec<Event>,
    /// What went through, slice by slice.
    pub slices: Vec<Slice>,
}

/// What came of one kind of fault.
#[derive(Debug, Clone, Serialize)]
pub struct FaultSummary {
    /// Which.
    pub fault: Fault,
    /// How often.
    pub times: usize,
    /// Of how many the recovery was not seen in time.
    pub not_recovered: usize,
    /// From the healing to the first success, where nothing overlapped; `None` without any.
    pub recovery: Option<Recovery>,
}

/// Times of recovery in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Recovery {
    /// How many were measured.
    pub of: usize,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Longest.
    pub max: f64,
}

impl Report {
    pub(crate) fn new(
        options: &DrillOptions,
        started: SystemTime,
        verdict: Verdict,
        kills: usize,
        left_out: Vec<String>,
        slices: Vec<Slice>,
        events: Vec<Event>,
    ) -> Self {
        let faults = summarise(&events);
        let mut findings = verdict.findings();
        let stuck: usize = faults.iter().map(|fault| fault.not_recovered).sum();
        if stuck > 0 {
            findings.push(format!("after {stuck} faults work did not go on in time"));
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: std::env::var("WEIR_COMMIT").ok().filter(|commit| !commit.is_empty()),
            started: OffsetDateTime::from(started).format(&Rfc3339).unwrap_or_default(),
            seconds: started.elapsed().unwrap_or_default().as_secs_f64(),
            seed: options.seed,
            fleet: [options.gateways, options.workers, usize::from(options.senders)],
            green: findings.is_empty(),
            findings,
            loss_per_kill_at_most: (kills > 0 && verdict.lost == 0).then(|| (3.0 / kills as f64).min(1.0)),
            verdict,
            kills,
            faults,
            left_out,
            events,
            slices,
        }
    }
}

fn summarise(events: &[Event]) -> Vec<FaultSummary> {
    let mut by_fault: BTreeMap<Fault, Vec<&Event>> = BTreeMap::new();
    for event in events {
        by_fault.entry(event.fault).or_default().push(event);
    }
    by_fault
        .into_iter()
        .map(|(fault, events)| FaultSummary {
            fault,
            times: events.len(),
            not_recovered: events.iter().filter(|event| event.recovered.is_none()).count(),
            recovery: Recovery::of(
                events.iter().filter(|event| !event.overlapped).filter_map(|event| event.recovery()),
            ),
        })
        .collect()
}

impl Recovery {
    /// The times' distribution; `None` when there are none.
    pub fn of(times: impl Iterator<Item = f64>) -> Option<Self> {
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        let at = |share| percentile(&times, share);
        Some(Self { of: times.len(), p50: at(0.5)?, p95: at(0.95)?, max: *times.last()? })
    }
}
