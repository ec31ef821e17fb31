//! Commands that die with us, even when we are killed by SIGKILL.

use std::env;
use std::path::Path;
use std::process::{self, Command, Stdio};

use crate::postgres::Account;
use crate::{Result, program};

/// Runs after the death signal is set: if we died before that, the signal will never come, so end at once.
const GUARD: &str = r#"test "$PPID" = "$0" && exec "$@""#;

/// The variables that a server needs from us; the others may hold secrets that are none of its business.
const PASSED_ON: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// A command for `program` that gets `death_signal` (`KILL`, `TERM`) when this process ends in whatever way. It keeps its
/// pid; the caller adds arguments and the like.
///
/// Start it by [`Process::spawn`](crate::Process::spawn): the signal also comes when the *thread* ends that forked.
pub fn tied_command(program: &Path, death_signal: &'static str) -> Result<Command> {
    wrap(program, death_signal, None)
}

/// The same for a server: with a clean environment, no input, and as `account` if one is given (which takes root).
pub(crate) fn server_command(program: &Path, death_signal: &'static str, account: Option<&Account>) -> Result<Command> {
    let mut command = wrap(program, death_signal, account)?;
    command
        .env_clear()
        .env("LC_ALL", "C")
        .envs(PASSED_ON.iter().filter_map(|name| Some((name, env::var_os(name)?))))
        .stdin(Stdio::null());
    Ok(command)
}

fn wrap(program: &Path, death_signal: &'static str, account: Option<&Account>) -> Result<Command> {
    let setpriv = program::find("setpriv", "apt-get install util-linux")?;
    let mut command = Command::new(setpriv);
    if let Some(account) = account {
        command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid)).arg("--clear-groups");
    }
    command.args(["--pdeathsig", death_signal]).args(["sh", "-c", GUARD]).arg(process::id().to_string()).arg(program);
    Ok(command)
}
