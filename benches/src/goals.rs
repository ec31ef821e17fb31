//! What the figures of one run should be to each other: each goal with its formula over measured figures.
//!
//! Where all figures of a goal have as many turns, the formula is taken turn by turn and its median counts: the machine's
//! speed drifts, and the same turn of two figures is the same few seconds.

use serde::Serialize;

use crate::report::{Report, median};

/// One goal.
struct Goal {
    name: &'static str,
    formula: &'static str,
    target: Target,
    /// The figures that the formula takes, in its order.
    of: &'static [&'static str],
    value: fn(&[f64]) -> f64,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {least}"),
            Self::AtMost(most) => format!("<= {most}"),
        }
    }
}

/// What became of one goal.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) name: &'static str,
    pub(crate) formula: &'static str,
    pub(crate) target: String,
    /// None if a figure is missing.
    pub(crate) found: Option<f64>,
    pub(crate) met: Option<bool>,
}

impl Verdict {
    pub(crate) fn word(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        }
    }
}

fn first(values: &[f64]) -> f64 {
    values[0]
}

fn quotient(values: &[f64]) -> f64 {
    values[0] / values[1]
}

/// Accepted a second against what the cores would give if only HTTP, its load and the function had to be paid for. Times
/// are in microseconds per message.
fn of_the_parts(values: &[f64]) -> f64 {
    let [rate, cores, bare, load, calls, redis] = values else { return f64::NAN };
    rate / (cores * 1e6 / (bare + load + calls + redis))
}

/// The answer's p99 against the bare server's and two syncs.
fn of_two_syncs(values: &[f64]) -> f64 {
    let [accept, bare, sync] = values else { return f64::NAN };
    accept / (bare + 2.0 * sync)
}

fn of_the_best(values: &[f64]) -> f64 {
    values[0] / values[1..].iter().copied().fold(f64::MIN_POSITIVE, f64::max)
}

/// What the second rate's things cost more than the first one's.
fn extra_cost(values: &[f64]) -> f64 {
    values[0] / values[1] - 1.0
}

/// What the first two cost more than the last two.
fn extra_processor(values: &[f64]) -> f64 {
    let [worker, postgres, worker_without, postgres_without] = values else { return f64::NAN };
    (worker + postgres) / (worker_without + postgres_without) - 1.0
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

const GOALS: [Goal; 26] = [
    Goal {
        name: "store: profiles",
        formula: "stored/s of events without a user ÷ of the same events with one - 1",
        target: Target::AtMost(0.15),
        of: &["profiles.without.rate", "profiles.with.rate"],
        value: extra_cost,
    },
    Goal {
        name: "store: profiles' processor",
        formula: "CPU per message of worker and PostgreSQL with users who are known ÷ without users, both with known clients - 1",
        target: Target::AtMost(0.15),
        of: &[
            "profiles.known.worker_cpu",
            "profiles.known.postgres_cpu",
            "profiles.without_again.worker_cpu",
            "profiles.without_again.postgres_cpu",
        ],
        value: extra_processor,
    },
    Goal {
        name: "monitoring: latency",
        formula: "p99 of the slowest monitoring endpoint, ms",
        target: Target::AtMost(20.0),
        of: &[
            "monitoring.coverage.p99",
            "monitoring.quality.p99",
            "monitoring.webhook_stats.p99",
            "monitoring.cache_health.p99",
            "monitoring.alerts.p99",
        ],
        value: largest,
    },
    Goal {
        name: "profiles: search",
        formula: "p99 of the slowest search, ms",
        target: Target::AtMost(50.0),
        of: &[
            "search.three_common.p99",
            "search.three_between.p99",
            "search.three_none.p99",
            "search.five_common.p99",
            "search.five_between.p99",
            "search.five_rare.p99",
            "search.word.p99",
            "search.name_common.p99",
            "search.name_rare.p99",
            "search.id.p99",
            "search.updated_after.p99",
            "search.updated_after_common.p99",
            "search.updated_after_between.p99",
            "search.cursor.p99",
            "search.cursor_common.p99",
        ],
        value: largest,
    },
    Goal {
        name: "accept: the parts",
        formula: "accepted/s, 256 connections ÷ [cores ÷ (CPU per request of bare hyper + of its load + CPU per message \
                  of raw function calls at the same batch size: the caller's + Redis')]",
        target: Target::AtLeast(0.85),
        of: &[
            "accept.256.disk.rate",
            "accept.cores",
            "accept.256.bare.cpu",
            "accept.256.bare.load_cpu",
            "accept.256.raw.cpu",
            "accept.256.raw.redis_cpu",
        ],
        value: of_the_parts,
    },
    Goal {
        name: "accept: bare hyper",
        formula: "accepted/s ÷ bare hyper's, 256 connections",
        target: Target::AtLeast(0.55),
        of: &["accept.256.disk.rate", "accept.256.bare.rate"],
        value: quotient,
    },
    Goal {
        name: "accept: gateway's processor",
        formula: "gateway CPU per message ÷ bare hyper's CPU per request, 256 connections",
        target: Target::AtMost(1.35),
        of: &["accept.256.disk.cpu", "accept.256.bare.cpu"],
        value: quotient,
    },
    Goal {
        name: "accept: Redis' processor",
        formula: "Redis CPU per message at saturation ÷ of raw calls of the same function at the same batch size",
        target: Target::AtMost(1.2),
        of: &["accept.256.disk.redis_cpu", "accept.256.raw.redis_cpu"],
        value: quotient,
    },
    Goal {
        name: "accept: Fastify + BullMQ",
        formula: "accepted/s ÷ theirs, 256 connections",
        target: Target::AtLeast(6.0),
        of: &["accept.256.disk.rate", "accept.256.fastify-bullmq.rate"],
        value: quotient,
    },
    Goal {
        name: "accept: FastAPI + arq",
        formula: "accepted/s ÷ theirs, 256 connections",
        target: Target::AtLeast(25.0),
        of: &["accept.256.disk.rate", "accept.256.fastapi-arq.rate"],
        value: quotient,
    },
    Goal {
        name: "accept: axum + apalis",
        formula: "accepted/s ÷ theirs, 256 connections",
        target: Target::AtLeast(3.0),
        of: &["accept.256.disk.rate", "accept.256.axum-apalis.rate"],
        value: quotient,
    },
    Goal {
        name: "accept: latency",
        formula: "p99 of accept at 50 % of saturation ÷ (bare hyper's p99 at the same rate + 2 × p99 of a sync)",
        target: Target::AtMost(2.5),
        of: &["latency.50.disk.p99", "latency.50.bare.p99", "latency.sync.p99"],
        value: of_two_syncs,
    },
    Goal {
        name: "accept: price of durability",
        formula: "accepted/s durable ÷ in memory, 256 connections",
        target: Target::AtLeast(0.8),
        of: &["accept.256.disk.rate", "accept.256.memory.rate"],
        value: quotient,
    },
    Goal {
        name: "store: COPY",
        formula: "stored/s from a backlog ÷ rows/s of COPY into the same tables",
        target: Target::AtLeast(0.7),
        of: &["drain.weir.rate", "drain.copy.rate"],
        value: quotient,
    },
    Goal {
        name: "store: Fastify + BullMQ",
        formula: "stored/s from a backlog ÷ theirs",
        target: Target::AtLeast(20.0),
        of: &["drain.weir.rate", "drain.fastify-bullmq.rate"],
        value: quotient,
    },
    Goal {
        name: "store: FastAPI + arq",
        formula: "stored/s from a backlog ÷ theirs",
        target: Target::AtLeast(40.0),
        of: &["drain.weir.rate", "drain.fastapi-arq.rate"],
        value: quotient,
    },
    Goal {
        name: "store: axum + apalis",
        formula: "stored/s from a backlog ÷ theirs",
        target: Target::AtLeast(8.0),
        of: &["drain.weir.rate", "drain.axum-apalis.rate"],
        value: quotient,
    },
    Goal {
        name: "end to end: best peer",
        formula: "sustained/s ÷ the best peer's",
        target: Target::AtLeast(8.0),
        of: &["whole.weir.rate", "whole.fastify-bullmq.rate", "whole.fastapi-arq.rate", "whole.axum-apalis.rate"],
        value: of_the_best,
    },
    Goal {
        name: "end to end: visible",
        formula: "p99 from answer to visible row at 25 % of sustained/s, ms",
        target: Target::AtMost(50.0),
        of: &["whole.visible.p99"],
        value: first,
    },
    Goal {
        name: "memory: dedupe",
        formula: "bytes of Redis per remembered id",
        target: Target::AtMost(42.0),
        of: &["memory.dedupe"],
        value: first,
    },
    Goal {
        name: "memory: queue",
        formula: "bytes of Redis per queued message above its payload",
        target: Target::AtMost(120.0),
        of: &["memory.queued"],
        value: first,
    },
    Goal {
        name: "memory: after the drain",
        formula: "bytes of the streams after the drain ÷ messages drained",
        target: Target::AtMost(1.0),
        of: &["drain.weir.left"],
        value: first,
    },
    Goal {
        name: "memory: idle connection",
        formula: "resident memory of the gateway per idle connection, KB",
        target: Target::AtMost(12.0),
        of: &["memory.idle"],
        value: first,
    },
    Goal {
        name: "growth: accept",
        formula: "accepted/s with the table full and the longest backlog ÷ with both empty",
        target: Target::AtLeast(0.9),
        of: &["growth.accept.full", "growth.accept.empty"],
        value: quotient,
    },
    Goal {
        name: "growth: drain",
        formula: "stored/s with the table full ÷ empty",
        target: Target::AtLeast(0.6),
        of: &["growth.drain.full", "growth.drain.empty"],
        value: quotient,
    },
    Goal {
        name: "scale: three primaries",
        formula: "appended/s over three primaries ÷ over one, each with the same tenth of a core",
        target: Target::AtLeast(2.5),
        of: &["cluster.calls.3.rate", "cluster.calls.1.rate"],
        value: quotient,
    },
];

/// Judges what was measured.
pub(crate) fn judge(report: &Report) -> Vec<Verdict> {
    GOALS.iter().map(|goal| goal.judge(report)).collect()
}

impl Goal {
    fn judge(&self, report: &Report) -> Verdict {
        let found = self.find(report).filter(|value| value.is_finite());
        Verdict {
            name: self.name,
            formula: self.formula,
            target: self.target.text(),
            found,
            met: found.map(|value| self.target.is_met(value)),
        }
    }

    fn find(&self, report: &Report) -> Option<f64> {
        let figures = self.of.iter().map(|id| report.found(id)).collect::<Option<Vec<_>>>()?;
        let turns = figures[0].turns.len();
        if figures.iter().all(|figure| figure.turns.len() == turns) {
            let of_turn =
                |turn: usize| (self.value)(&figures.iter().map(|figure| figure.turns[turn]).collect::<Vec<_>>());
            return Some(median((0..turns).map(of_turn).collect()));
        }
        Some((self.value)(&figures.iter().map(|figure| figure.value).collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn verdict(report: &Report, name: &str) -> Verdict {
        judge(report).into_iter().find(|verdict| verdict.name == name).expect("a goal of that name")
    }

    #[test]
    fn a_ratio_is_the_median_of_the_turns_ratios() {
        let mut report = Report::default();
        // The machine halves its speed after the first turn: the ratio stays.
        report.put("accept.256.disk.rate", "", "", vec![60.0, 30.0, 31.0]);
        report.put("accept.256.bare.rate", "", "", vec![100.0, 50.0, 50.0]);
        let found = verdict(&report, "accept: bare hyper");
        assert_eq!((found.found, found.met), (Some(0.6), Some(true)));
    }

    #[test]
    fn unequal_turns_are_compared_by_their_medians() {
        let mut report = Report::default();
        report.put("drain.weir.rate", "", "", vec![60.0, 70.0, 80.0]);
        report.put("drain.copy.rate", "", "", vec![100.0]);
        assert_eq!(verdict(&report, "store: COPY").found, Some(0.7));
    }

    #[test]
    fn a_missing_figure_is_no_verdict() {
        let mut report = Report::default();
        report.put("drain.weir.rate", "", "", vec![60.0]);
        let found = verdict(&report, "store: COPY");
        assert_eq!((found.found, found.met, found.word()), (None, None, "not measured"));
    }

    #[test]
    fn the_parts_share_the_cores() {
        let mut report = Report::default();
        for (id, value) in [
            ("accept.256.disk.rate", 80_000.0),
            ("accept.cores", 2.0),
            ("accept.256.bare.cpu", 7.0),
            ("accept.256.bare.load_cpu", 5.0),
            ("accept.256.raw.cpu", 3.0),
            ("accept.256.raw.redis_cpu", 5.0),
        ] {
            report.put(id, "", "", vec![value]);
        }
        // Two cores and 20 us a message: 100,000 a second.
        let found = verdict(&report, "accept: the parts");
        assert!((found.found.unwrap() - 0.8).abs() < 1e-9);
        assert_eq!(found.met, Some(false));
    }

    #[test]
    fn the_best_peer_counts() {
        let mut report = Report::default();
        for (name, value) in [("weir", 80.0), ("fastify-bullmq", 4.0), ("fastapi-arq", 1.0), ("axum-apalis", 8.0)] {
            report.put(format!("whole.{name}.rate"), "", "", vec![value]);
        }
        assert_eq!(verdict(&report, "end to end: best peer").found, Some(10.0));
    }

    #[test]
    fn no_two_goals_have_one_name() {
        let names: HashSet<_> = GOALS.iter().map(|goal| goal.name).collect();
        assert_eq!(names.len(), GOALS.len());
    }
}
