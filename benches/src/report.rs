//! Figures as they come, and all of them at the end.

use std::fmt::Display;
use std::io::Write as _;

use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What it should be, in words; empty when it only informs.
    goal: &'static str,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

/// Prints a line.
pub(crate) fn say(text: impl Display) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

impl Report {
    /// Notes a figure and prints it.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: &'static str) {
        let name = name.into();
        let shown = if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        say(format_args!("{name:<58} {shown:>10} {unit:<8} {goal}"));
        self.figures.push(Figure { name, value, unit, goal });
    }

    /// A figure that was noted, with two digits.
    pub(crate) fn value(&self, name: &str) -> anyhow::Result<String> {
        let figure = self.figures.iter().find(|figure| figure.name == name);
        let figure = figure.ok_or_else(|| anyhow::anyhow!("{name} was not measured"))?;
        Ok(format!("{:.2}", figure.value).trim_end_matches("0").trim_end_matches('.').to_owned())
    }

    /// Writes everything to target/bench/report.json.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all("target/bench")?;
        std::fs::write("target/bench/report.json", serde_json::to_vec_pretty(self)?)?;
        say("written to target/bench/report.json");
        Ok(())
    }
}
