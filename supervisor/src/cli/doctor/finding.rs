//! What a check found.

use std::fmt;

use serde::Serialize;

use super::Repair;

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

impl Findings {
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
