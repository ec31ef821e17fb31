//! The report as text.

use std::fmt::Write as _;

use super::{Report, shown};

impl Report {
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from("# Weir, measured\n\n");
        for (name, fact) in self.facts() {
            let _ = writeln!(text, "- {name}: {fact}");
        }
        for (what, why) in &self.failures {
            let _ = writeln!(text, "- **FAILED** {what}: {}", why.replace('\n', " "));
        }
        let _ = write!(text, "\n## Goals\n\n{}", self.markdown_goals());
        for (part, about) in self.parts() {
            let _ = write!(
                text,
                "\n## {part}\n\n{about}\n\n| Figure | Median | Unit | Turns | Beside |\n|---|---|---|---|---|\n"
            );
            for figure in self.figures_of(part) {
                let turns = if figure.turns.len() > 1 { list(&figure.turns) } else { String::new() };
                let cells = [&figure.name, &shown(figure.value), figure.unit, &turns, &figure.beside].map(cell);
                let _ = writeln!(text, "| {} |", cells.join(" | "));
            }
        }
        text
    }

    pub(super) fn markdown_goals(&self) -> String {
        let mut text = String::from("| Goal | Formula | Target | Found | |\n|---|---|---|---|---|\n");
        for verdict in &self.verdicts {
            let found = verdict.found.map_or("-".to_owned(), shown);
            let cells = [verdict.name, verdict.formula, &verdict.target, &found, verdict.word()].map(cell);
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }
}

pub(super) fn list(turns: &[f64]) -> String {
    turns.iter().map(|turn| shown(*turn)).collect::<Vec<_>>().join(", ")
}

fn cell(text: impl AsRef<str>) -> String {
    text.as_ref().replace('|', r"\|").replace('\n', " ")
}
