//! What stands before everything that writes.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Result, bail};

/// Asks before something is done, unless `yes` was given. Without a terminal nobody can answer, so it is refused.
///
/// Nothing may have been started yet: Ctrl-C at the question simply ends the process.
pub(super) fn ask(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("{question} Nothing was changed: there is no terminal to ask; look with --dry-run, then add --yes");
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

/// `1 dead letter`, `3 dead letters`.
pub(super) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
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
