//! How a replay ended.

use anyhow::{Result, bail};
use serde::Serialize;

use super::fates::Counts;
use crate::Ending;
use crate::cli::Output;
use crate::output;

/// Why a replay ended.
#[derive(Debug)]
pub(super) enum End {
    /// Everything that was selected was replayed or gone.
    Finished,
    /// The operator stopped it.
    Interrupted,
    /// Too many died again.
    Failing,
    /// A canary died again.
    CanaryFailed,
    /// No fate became known for too long.
    Silent,
    /// Redis failed.
    Broken(anyhow::Error),
}

impl End {
    fn name(&self) -> &'static str {
        match self {
            End::Finished => "finished",
            End::Interrupted => "interrupted",
            End::Failing => "stopped_failing",
            End::CanaryFailed => "stopped_canary_failed",
            End::Silent => "stopped_no_fates",
            End::Broken(_) => "broken",
        }
    }
}

/// What a replay did.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) replay: String,
    /// Letters that were selected at the start.
    pub(super) selected: u64,
    pub(super) replayed: u64,
    /// Letters that others replayed or removed in between.
    pub(super) gone_already: u64,
    /// None when nobody looked.
    pub(super) fates: Option<Counts>,
    /// PostgreSQL was asked.
    pub(super) knows_rows: bool,
    pub(super) under_way: u64,
    pub(super) end: End,
}

/// The summary for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    replay: &'a str,
    ended: &'static str,
    selected: u64,
    replayed: u64,
    gone_already: u64,
    left: u64,
    stored: Option<u64>,
    there_already: Option<u64>,
    processed: Option<u64>,
    failed_again: Option<u64>,
    under_way: u64,
}

impl Summary {
    /// Prints it and gives the command's ending.
    pub(super) fn finish(self, form: Output) -> Result<Ending> {
        self.print(form);
        let left = self.left();
        match self.end {
            End::Finished => Ok(Ending::Done),
            End::Failing => stopped("too many of them died again", left),
            End::CanaryFailed => stopped("canaries died again", left),
            End::Silent => {
                stopped("no fate became known within --wait; do workers run, or do they wait for a retry?", left)
            }
            End::Interrupted => bail!("interrupted: {left} letters are left; the same command goes on with them"),
            End::Broken(error) => {
                Err(error.context(format!("the replay broke off: {left} letters may be left; run it again to go on")))
            }
        }
    }

    fn left(&self) -> u64 {
        self.selected.saturating_sub(self.replayed + self.gone_already)
    }

    fn print(&self, form: Output) {
        let fate = |of: fn(&Counts) -> u64| self.fates.as_ref().map(of);
        let rows = |of: fn(&Counts) -> u64| fate(of).filter(|count| self.knows_rows || *count > 0);
        let report = Report {
            replay: &self.replay,
            ended: self.end.name(),
            selected: self.selected,
            replayed: self.replayed,
            gone_already: self.gone_already,
            left: self.left(),
            stored: rows(|counts| counts.stored),
            there_already: rows(|counts| counts.there_already),
            processed: fate(|counts| counts.processed),
            failed_again: fate(|counts| counts.failed_again),
            under_way: self.under_way,
        };
        output::record(form, &report, &report.lines());
    }
}

impl Report<'_> {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let known = |number: Option<u64>| number.map_or("unknown".to_owned(), |number| number.to_string());
        let mut lines = vec![
            ("replay", self.replay.to_owned()),
            ("selected", self.selected.to_string()),
            ("replayed", self.replayed.to_string()),
            ("gone already", self.gone_already.to_string()),
            ("left", self.left.to_string()),
            ("stored", known(self.stored)),
            ("there already", known(self.there_already)),
            ("failed again", known(self.failed_again)),
            ("under way", self.under_way.to_string()),
        ];
        if let Some(processed) = self.processed.filter(|processed| *processed > 0) {
            lines.insert(7, ("processed, row not seen", processed.to_string()));
        }
        lines
    }
}

fn stopped(why: &str, left: u64) -> Result<Ending> {
    output::remark(format_args!("Stopped: {why}. {left} letters are left; the same command goes on with them."));
    Ok(Ending::Negative)
}
