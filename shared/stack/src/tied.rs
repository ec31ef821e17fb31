//! Commands that die with us, even when we are killed by SIGKILL.

use std::env;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{self, Command, Stdio};

use command_fds::{CommandFdExt as _, FdMapping};

use crate::postgres::Account;
use crate::{Result, StackError, program};

/// Runs after the death signal is set: if we died before that, the signal will never come, so end at once.
const GUARD: &str = r#"test "$PPID" = "$0" && exec "$@""#;

/// The same for a program that is given sockets: only the child knows the pid that they are meant for.
const GUARD_WITH_SOCKETS: &str = r#"test "$PPID" = "$0" && LISTEN_PID=$$ && export LISTEN_PID && exec "$@""#;

/// The first descriptor of those that are handed over, as systemd has it.
const FIRST: i32 = 3;

/// The variables that a server needs from us; the others may hold secrets that are none of its business.
const PASSED_ON: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// A command for `program` that gets `death_signal` (`KILL`, `TERM`) when this process ends in whatever way. It keeps its
/// pid; the caller adds arguments and the like.
///
/// Start it by [`Process::spawn`](crate::Process::spawn): the signal also comes when the *thread* ends that forked.
pub fn tied_command(program: &Path, death_signal: &'static str) -> Result<Command> {
    wrap(program, death_signal, GUARD, None)
}

/// The same for a program that takes listening sockets in the way of systemd: `LISTEN_FDS`, `LISTEN_PID`, descriptors
/// from 3 on. We keep them too, so that nobody is refused while it is not there.
pub fn tied_command_with(sockets: &[TcpListener], program: &Path, death_signal: &'static str) -> Result<Command> {
    let mut command = wrap(program, death_signal, GUARD_WITH_SOCKETS, None)?;
    let clone = |(number, socket): (i32, &TcpListener)| {
        let parent_fd: OwnedFd = socket.try_clone()?.into();
        Ok(FdMapping { parent_fd, child_fd: FIRST + number })
    };
    let mappings = (0..).zip(sockets).map(clone).collect::<std::io::Result<_>>();
    let mappings = mappings.map_err(StackError::Sockets)?;
    command.fd_mappings(mappings).map_err(|error| StackError::Sockets(std::io::Error::other(error)))?;
    command.env("LISTEN_FDS", sockets.len().to_string());
    Ok(command)
}

/// The same for a server: with a clean environment, no input, and as `account` if one is given (which takes root).
pub(crate) fn server_command(program: &Path, death_signal: &'static str, account: Option<&Account>) -> Result<Command> {
    let mut command = wrap(program, death_signal, GUARD, account)?;
    command
        .env_clear()
        .env("LC_ALL", "C")
        .envs(PASSED_ON.iter().filter_map(|name| Some((name, env::var_os(name)?))))
        .stdin(Stdio::null());
    Ok(command)
}

fn wrap(program: &Path, death_signal: &'static str, guard: &str, account: Option<&Account>) -> Result<Command> {
    let setpriv = program::find("setpriv", "apt-get install util-linux")?;
    let mut command = Command::new(setpriv);
    if let Some(account) = account {
        command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid)).arg("--clear-groups");
    }
    command.args(["--pdeathsig", death_signal]).args(["sh", "-c", guard]).arg(process::id().to_string()).arg(program);
    Ok(command)
}
