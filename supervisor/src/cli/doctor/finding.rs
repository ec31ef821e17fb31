//! What a check found.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Repair;
use crate::output;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// Works, and somebody should look at it.
    Warn,
    /// A promise is not kept, or will not be kept for long.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// The result of one check.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) part: &'static str,
    pub(super) check: &'static str,
    pub(super) found: String,
    /// What to do about it.
    pub(super) fix: Option<String>,
}

/// All results, and what `--fix` could do.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    pub(super) repairs: Vec<Repair>,
}

/// Entry ids and leases are on the clock of Redis, `stored_at` on that of PostgreSQL, the rest on ours.
const CLOCKS: Duration = Duration::from_secs(2);

impl Findings {
    /// Judges the clock of a server against ours, both in Unix milliseconds at the same moment.
    pub(super) fn clock(&mut self, part: &'static str, theirs: u64, ours: u64) {
        let apart = Duration::from_millis(theirs.abs_diff(ours));
        if apart > CLOCKS {
            let found = format!("{} away from the clock of this machine", output::span(apart));
            self.warn(part, "clock", found, "synchronise both clocks (chrony, systemd-timesyncd)");
        } else {
            self.ok(part, "clock", format!("{} ms away from the clock of this machine", apart.as_millis()));
        }
    }

    pub(super) fn ok(&mut self, part: &'static str, check: &'static str, found: impl Into<String>) {
        self.list.push(Finding { verdict: Verdict::Ok, part, check, found: found.into(), fix: None });
    }

    pub(super) fn warn(
        &mut self,
        part: &'static str,
        check: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.list.push(Finding { verdict: Verdict::Warn, part, check, found: found.into(), fix: Some(fix.into()) });
    }

    pub(super) fn fail(
        &mut self,
        part: &'static str,
        check: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.list.push(Finding { verdict: Verdict::Fail, part, check, found: found.into(), fix: Some(fix.into()) });
    }
}
