//! Why a server could not be started. Messages complete the sentence "failed to …" and name the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A program is not installed.
    #[error("find {program}: it is neither in PATH nor in {searched}; install it: {remedy}")]
    Missing {
        /// The program's file name.
        program: &'static str,
        /// Where it was looked for besides PATH.
        searched: &'static str,
        /// The command that installs it.
        remedy: &'static str,
    },

    /// A file or folder refused.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// The system did not start a process.
    #[error("start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's reason.
        source: io::Error,
    },

    /// The process started and ended before it was of use.
    #[error("start {server}: it ended with {status}; the end of {}:\n{tail}", log.display())]
    Ended {
        /// The program.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines it wrote.
        tail: String,
    },

    /// The process lives but says nothing.
    #[error("reach {server} on 127.0.0.1:{port} within {waited:?}: {reason}; its log is {}", log.display())]
    Silent {
        /// The program.
        server: &'static str,
        /// The port it should answer on.
        port: u16,
        /// How long it was given.
        waited: Duration,
        /// What happened instead of an answer.
        reason: String,
        /// Its log.
        log: PathBuf,
    },

    /// An earlier server has not let go of the folder.
    #[error("start {server} in {}: the one with pid {pid} still runs there; stop it (kill {pid}) or choose another folder", dir.display())]
    StillRunning {
        /// The program.
        server: &'static str,
        /// The folder.
        dir: PathBuf,
        /// The earlier server.
        pid: u32,
    },

    /// Another process of ours has the folder open.
    #[error("use {}: another process runs {server} there; stop that one or choose another folder", dir.display())]
    InUse {
        /// The program.
        server: &'static str,
        /// The folder.
        dir: PathBuf,
    },

    /// No free port on 127.0.0.1.
    #[error("find a free port on 127.0.0.1: {0}")]
    NoPort(io::Error),

    /// The system refuses to share them.
    #[error("hand listening sockets over: {0}")]
    Sockets(io::Error),

    /// PostgreSQL does not run as root and there is nobody else to run it as.
    #[error(
        "run PostgreSQL, which refuses to run as root: /etc/passwd has neither `postgres` nor `nobody`; \
         create one: useradd --system postgres"
    )]
    NoAccount,
}

impl StackError {
    /// For `map_err`: names the file that an I/O error is about.
    pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StackError {
        move |source| StackError::File { action, path: path.to_owned(), source }
    }

    /// Whether the server ended because somebody else took its port first.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, StackError::Ended { tail, .. } if tail.contains("Address already in use"))
    }
}
