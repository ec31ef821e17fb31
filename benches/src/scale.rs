//! `weir-bench scale`: the fleet for other rates, reckoned from what was measured. docs/SCALING.md has its tables.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::report::{say, shown};

/// Which rates, and how much may be asked of what was measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// Messages a second; may be repeated
    #[arg(long, default_values_t = [10_000.0, 100_000.0, 1_000_000.0])]
    rate: Vec<f64>,
    /// How busy a core may be, and how much of a measured rate may be asked
    #[arg(long, default_value_t = 0.6)]
    busy: f64,
    /// What `weir-bench all` wrote
    #[arg(long, default_value = "target/bench/report.json")]
    report: PathBuf,
}

/// What was measured, by id.
struct Measured {
    values: HashMap<String, f64>,
    busy: f64,
}

/// A line of the table: `value` gives NaN where something was not measured.
struct Line {
    what: &'static str,
    formula: &'static str,
    value: fn(&Measured, f64) -> f64,
}

const DAY: f64 = 86_400.0;
const CORE: f64 = 1e6;

const LINES: [Line; 22] = [
    Line {
        what: "gateways: cores",
        formula: "r × costs.gateway.cpu ÷ 10⁶ ÷ b",
        value: |m, r| m.cores(r, "costs.gateway.cpu"),
    },
    Line {
        what: "gateways: processes, two at least",
        formula: "⌈r ÷ (b × accept.256.disk.rate)⌉",
        value: |m, r| two_at_least(m.processes(r, "accept.256.disk.rate")),
    },
    Line {
        what: "gateways: HTTP in, Gbit/s",
        formula: "r × costs.gateway.in × 8",
        value: |m, r| r * m.of("costs.gateway.in") * 8e-9,
    },
    Line {
        what: "Redis: primaries, a core each",
        formula: "P = ⌈r × costs.redis.cpu ÷ 10⁶ ÷ b⌉",
        value: Measured::primaries,
    },
    Line { what: "Redis: partitions", formula: "4 × P", value: |m, r| 4.0 * m.primaries(r) },
    Line {
        what: "Redis: to all primaries, Gbit/s",
        formula: "r × costs.redis.in × 8",
        value: |m, r| r * m.of("costs.redis.in") * 8e-9,
    },
    Line {
        what: "Redis: from all primaries, Gbit/s",
        formula: "r × costs.redis.out × 8",
        value: |m, r| r * m.of("costs.redis.out") * 8e-9,
    },
    Line {
        what: "Redis: log of one primary, MB/s",
        formula: "r × costs.redis.log ÷ P",
        value: |m, r| r * m.of("costs.redis.log") / m.primaries(r) / 1e6,
    },
    Line {
        what: "Redis: pages of one primary, MB/s",
        formula: "r × costs.redis.disk ÷ P",
        value: |m, r| r * m.of("costs.redis.disk") / m.primaries(r) / 1e6,
    },
    Line {
        what: "Redis: fsyncs of one primary, at most, /s",
        formula: "r × (costs.redis.batches + reads + settles) ÷ P",
        value: |m, r| {
            let calls = ["batches", "reads", "settles"].map(|what| m.of(&format!("costs.redis.{what}")));
            r * calls.iter().sum::<f64>() / m.primaries(r)
        },
    },
    Line {
        what: "Redis: ids of an hour, all primaries, GB",
        formula: "2 epochs × r × 3600 × memory.dedupe",
        value: |m, r| 2.0 * r * 3600.0 * m.of("memory.dedupe") / 1e9,
    },
    Line {
        what: "Redis: ten minutes' backlog, all primaries, GB",
        formula: "r × 600 × (memory.payload + memory.queued)",
        value: |m, r| r * 600.0 * (m.of("memory.payload") + m.of("memory.queued")) / 1e9,
    },
    Line {
        what: "workers: cores",
        formula: "r × costs.worker.cpu ÷ 10⁶ ÷ b",
        value: |m, r| m.cores(r, "costs.worker.cpu"),
    },
    Line {
        what: "workers: processes, two at least",
        formula: "⌈r ÷ (b × drain.weir.rate)⌉",
        value: |m, r| two_at_least(m.processes(r, "drain.weir.rate")),
    },
    Line {
        what: "PostgreSQL: cores",
        formula: "r × costs.postgres.cpu ÷ 10⁶ ÷ b",
        value: |m, r| m.cores(r, "costs.postgres.cpu"),
    },
    Line {
        what: "PostgreSQL: machines like the measured one",
        formula: "⌈r ÷ (b × drain.weir.rate)⌉",
        value: |m, r| m.processes(r, "drain.weir.rate"),
    },
    Line {
        what: "PostgreSQL: to all, Gbit/s",
        formula: "r × costs.postgres.in × 8",
        value: |m, r| r * m.of("costs.postgres.in") * 8e-9,
    },
    Line {
        what: "PostgreSQL: WAL, MB/s",
        formula: "r × costs.postgres.wal",
        value: |m, r| r * m.of("costs.postgres.wal") / 1e6,
    },
    Line {
        what: "PostgreSQL: syncs of the WAL, /s",
        formula: "r × costs.postgres.syncs",
        value: |m, r| r * m.of("costs.postgres.syncs"),
    },
    Line {
        what: "PostgreSQL: rows and indexes, TB a day",
        formula: "r × 86,400 × costs.postgres.tables",
        value: |m, r| r * DAY * m.of("costs.postgres.tables") / 1e12,
    },
    Line {
        what: "PostgreSQL: index of one day's keys, GB",
        formula: "r × 86,400 × costs.postgres.keys_index",
        value: |m, r| r * DAY * m.of("costs.postgres.keys_index") / 1e9,
    },
    Line {
        what: "PostgreSQL: days until event_keys has 32 TiB",
        formula: "32 × 2⁴⁰ ÷ (r × 86,400 × costs.postgres.keys)",
        value: |m, r| 32.0 * 2_f64.powi(40) / (r * DAY * m.of("costs.postgres.keys")),
    },
];

impl Scale {
    /// Prints what was measured and the table.
    pub(crate) fn run(&self) -> Result<()> {
        let text = fs::read_to_string(&self.report)
            .with_context(|| format!("{} cannot be read; `weir-bench all` writes it", self.report.display()))?;
        let measured = Measured { values: figures(&text)?, busy: self.busy };
        for line in measured.table(&self.rate) {
            say(line);
        }
        Ok(())
    }
}

fn figures(text: &str) -> Result<HashMap<String, f64>> {
    let report: serde_json::Value = serde_json::from_str(text).context("the report is no JSON")?;
    let figures = report["figures"].as_array().context("the report has no figures")?;
    Ok(figures
        .iter()
        .filter_map(|figure| Some((figure["id"].as_str()?.to_owned(), figure["value"].as_f64()?)))
        .collect())
}

impl Measured {
    fn of(&self, id: &str) -> f64 {
        self.values.get(id).copied().unwrap_or(f64::NAN)
    }

    fn cores(&self, rate: f64, id: &str) -> f64 {
        rate * self.of(id) / CORE / self.busy
    }

    fn processes(&self, rate: f64, id: &str) -> f64 {
        let each = self.busy * self.of(id);
        (rate / each).ceil()
    }

    fn primaries(&self, rate: f64) -> f64 {
        self.cores(rate, "costs.redis.cpu").ceil()
    }

    fn table(&self, rates: &[f64]) -> Vec<String> {
        let heads = rates.iter().map(|rate| format!(" {rate}/s |")).collect::<String>();
        let rule = "---:|".repeat(rates.len());
        let mut table = vec![format!("| | formula |{heads}"), format!("|---|---|{rule}")];
        table.extend(LINES.iter().map(|line| {
            let values = rates.iter().map(|rate| format!(" {} |", cell((line.value)(self, *rate)))).collect::<String>();
            format!("| {} | {} |{values}", line.what, line.formula)
        }));
        table
    }
}

/// `f64::max` takes what was not measured for less than two.
fn two_at_least(count: f64) -> f64 {
    if count < 2.0 { 2.0 } else { count }
}

fn cell(value: f64) -> String {
    match value {
        value if value.is_nan() => "not measured".into(),
        value if value.fract() == 0.0 => format!("{value}"),
        value => shown(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_reckoned_from_a_report() {
        let text =
            r#"{"figures": [{"id": "costs.redis.cpu", "value": 12.0}, {"id": "costs.redis.log", "value": 600.0}]}"#;
        let measured = Measured { values: figures(text).unwrap(), busy: 0.6 };
        let table = measured.table(&[10_000.0, 100_000.0]);
        let line = |start: &str| table.iter().find(|line| line.starts_with(&format!("| {start}"))).unwrap();
        assert!(line("Redis: primaries").ends_with("| 1 | 2 |"), "{table:?}");
        assert!(line("Redis: log of one").ends_with("| 6 | 30 |"), "{table:?}");
        // What is missing is never taken for nothing.
        assert!(line("gateways: processes").ends_with("| not measured | not measured |"), "{table:?}");
    }
}
