//! The question before anything that cannot be taken back.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Result, bail};

use crate::output;

/// What a command offers to those who are not sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preview {
    /// It has `--dry-run`.
    DryRun,
    /// Nothing.
    None,
}

/// Asks before something is done, unless `yes` was given. Without a terminal nobody can answer, so it is refused.
///
/// Nothing may have been started yet, and signals must do what they do by default: Ctrl-C at the question simply ends
/// the process.
pub(crate) fn ask(question: &str, yes: bool, preview: Preview) -> Result<()> {
    if yes {
        return Ok(());
    }
    let question = output::escape(question);
    if !io::stdin().is_terminal() {
        let way = match preview {
            Preview::DryRun => "look with --dry-run, then add --yes",
            Preview::None => "add --yes if that is meant",
        };
        bail!("{question} Nothing was changed: there is no terminal to ask; {way}");
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if is_yes(&answer) { Ok(()) } else { bail!("nothing was changed") }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["y", "Y\n", " yes \n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "ja", "yy", "yes please"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
