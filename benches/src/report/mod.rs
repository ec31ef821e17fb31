//! Figures as they come, and all of them at the end: as JSON, as a table, and as a page with plots.

mod html;

mod machine;

mod markdown;

mod plot;

use std::fmt::Display;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::goals::Verdict;
use machine::Machine;
pub(crate) use machine::cores;
pub(crate) use plot::{Plot, Series};

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// By which goals and readers of the JSON know it.
    pub(crate) id: String,
    /// The part of the run that found it.
    part: &'static str,
    pub(crate) name: String,
    /// The median of its turns.
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What it should be, in words; empty when it only informs.
    goal: &'static str,
    /// The command that gives it again.
    from: String,
    /// What each turn found, in order: the same place in two figures is the same few seconds.
    pub(crate) turns: Vec<f64>,
    /// What has to be read with it.
    beside: String,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    started: String,
    commit: Option<String>,
    machine: Machine,
    /// Whether it is the short form.
    quick: bool,
    /// How much of everything was measured.
    scale: String,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) figures: Vec<Figure>,
    plots: Vec<Plot>,
    /// What each part measured and how, by part.
    about: Vec<(&'static str, String)>,
    /// Parts that could not be measured, and why.
    failures: Vec<(String, String)>,
    #[serde(skip)]
    part: &'static str,
    #[serde(skip)]
    bar: Option<ProgressBar>,
}

/// Prints a line.
pub(crate) fn say(text: impl Display) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// The middle one; of an even number the upper of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A number as people read it.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Report {
    /// A report of this machine and moment.
    pub(crate) fn new(quick: bool, scale: String, parts: usize) -> Self {
        let style = ProgressStyle::with_template("{spinner} {bar:20} {pos}/{len} {elapsed} {wide_msg}");
        let bar = ProgressBar::new(parts as u64);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(500));
        Self {
            started: machine::now(),
            commit: machine::commit(),
            machine: Machine::here(),
            quick,
            scale,
            bar: Some(bar),
            ..Self::default()
        }
    }

    /// What follows belongs to this part.
    pub(crate) fn begin(&mut self, part: &'static str, about: String) {
        self.part = part;
        self.print(format_args!("\n{part}: {about}"));
        self.about.push((part, about));
        self.step("");
    }

    /// The part is over.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Shows what is under way.
    pub(crate) fn step(&self, what: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {what}", self.part));
        }
    }

    fn print(&self, text: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Notes a figure and prints it.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: &'static str) {
        let name = name.into();
        self.note(name.clone(), name, unit, goal, vec![value]);
    }

    /// Notes a figure by an id that goals know, with what each turn found.
    pub(crate) fn put(&mut self, id: impl Into<String>, name: impl Into<String>, unit: &'static str, turns: Vec<f64>) {
        self.note(id.into(), name.into(), unit, "", turns);
    }

    fn note(&mut self, id: String, name: String, unit: &'static str, goal: &'static str, turns: Vec<f64>) {
        let value = median(turns.clone());
        self.print(format_args!("{name:<66} {:>10} {unit:<8} {goal}", shown(value)));
        let from = format!("weir-bench all --only {}{}", self.part, if self.quick { " --quick" } else { "" });
        self.figures.push(Figure { id, part: self.part, name, value, unit, goal, from, turns, beside: String::new() });
    }

    /// Says something beside a figure that was noted.
    pub(crate) fn beside(&mut self, id: &str, text: impl Display) {
        if let Some(figure) = self.figures.iter_mut().find(|figure| figure.id == id) {
            figure.beside = text.to_string();
        }
    }

    /// Something could not be measured; the rest goes on.
    pub(crate) fn fail(&mut self, what: impl Into<String>, error: &anyhow::Error) {
        let what = what.into();
        self.print(format_args!("FAILED {what}: {error:#}"));
        self.failures.push((what, format!("{error:#}")));
    }

    pub(crate) fn plot(&mut self, title: impl Into<String>, axes: [&'static str; 2], series: Vec<Series>) {
        self.plots.push(Plot { part: self.part, title: title.into(), axes, series });
    }

    /// A figure that was noted, with two digits.
    pub(crate) fn value(&self, name: &str) -> Result<String> {
        let figure = self.figures.iter().find(|figure| figure.name == name);
        let figure = figure.ok_or_else(|| anyhow::anyhow!("{name} was not measured"))?;
        Ok(format!("{:.2}", figure.value).trim_end_matches("0").trim_end_matches('.').to_owned())
    }

    /// The last turns and their median, by id.
    pub(crate) fn found(&self, id: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.id == id)
    }

    /// Writes everything to target/bench/report.json, and to a table and a page beside it. An error if a part failed.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let folder = Path::new("target/bench");
        fs::create_dir_all(folder)?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
        };
        write("report.json", serde_json::to_string_pretty(self)?)?;
        write("report.md", self.markdown())?;
        write("report.html", self.html())?;
        say(self.markdown_goals());
        say("written to target/bench/report.html, report.md and report.json");
        let failed: Vec<&str> = self.failures.iter().map(|(what, _)| what.as_str()).collect();
        anyhow::ensure!(failed.is_empty(), "could not be measured: {}", failed.join(", "));
        Ok(())
    }

    /// Parts that have something to show, in order.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.about.iter().map(|(part, about)| (*part, about.as_str()))
    }

    fn figures_of(&self, part: &str) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(move |figure| figure.part == part)
    }

    /// The first lines: what was run, when and on what.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("Weir", format!("{} {}", env!("CARGO_PKG_VERSION"), self.commit.as_deref().unwrap_or("(no commit)"))),
            ("Started", self.started.clone()),
            ("Form", format!("{}: {}", if self.quick { "short (--quick)" } else { "full" }, self.scale)),
        ];
        facts.extend(self.machine.facts());
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report { machine: Machine::here(), ..Report::default() };
        report.begin("accept", "what <b> is".into());
        report.put("a.rate", "rate of <script>", "/s", vec![3.0, 1.0, 2.0]);
        report.beside("a.rate", "1 | 2");
        report.plot(
            "a & b",
            ["x", "y"],
            vec![Series::bars("one", &[("<i>", 2.0)]), Series::line("two", vec![(1.0, 5.0)])],
        );
        report.fail("peer <x>", &anyhow::anyhow!("it said \"<no>\""));
        report.verdicts = crate::goals::judge(&report);
        report
    }

    #[test]
    fn the_median_of_turns_is_the_figure() {
        assert_eq!(report().found("a.rate").unwrap().value, 2.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn foreign_text_is_no_markup() {
        let page = report().html();
        for tag in ["<script", "<b>", "<i>", "<x>", "<no>"] {
            assert!(!page.contains(tag), "{tag}");
        }
        assert!(page.contains("rate of &lt;script&gt;") && page.contains("&lt;no&gt;"), "{page}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = report().html();
        assert!(page.contains("<svg") && page.contains("prefers-color-scheme"));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_bar_in_a_cell_does_not_break_the_table() {
        let text = report().markdown();
        let row = text.lines().find(|line| line.contains("rate of")).unwrap();
        assert_eq!(row.replace(r"\|", "").matches('|').count(), 6, "{row}");
        assert!(text.contains("FAILED"), "{text}");
    }

    #[test]
    fn every_raw_figure_is_in_the_json() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["figures"][0]["turns"], serde_json::json!([3.0, 1.0, 2.0]));
        assert_eq!(json["figures"][0]["from"], "weir-bench all --only accept");
        assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
    }
}
