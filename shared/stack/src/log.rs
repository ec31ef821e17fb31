//! The servers' log files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::{Result, StackError};

/// How much of a log is looked at for its last lines.
const WINDOW: u64 = 64 * 1024;
/// A longer log is set aside as `….1` when its server starts.
const ROTATE_AT: u64 = 64 * 1024 * 1024;
/// How many lines an error quotes.
const QUOTED_LINES: usize = 12;

/// The last `lines` lines of a text file; empty if it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    tail_from(path, 0, lines).unwrap_or_default()
}

fn tail_from(path: &Path, start: u64, lines: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(WINDOW))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}

/// A log file and the place in it where the present run of the server begins.
pub(crate) struct RunLog {
    path: PathBuf,
    file: File,
    start: u64,
}

impl RunLog {
    /// Opens the log for one more run of its server.
    pub(crate) fn open(path: &Path) -> Result<RunLog> {
        rotate(path);
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(StackError::at("open the log", path))?;
        let start = file.metadata().map_err(StackError::at("read the size of", path))?.len();
        Ok(RunLog { path: path.to_owned(), file, start })
    }

    /// For a child's stdout or stderr.
    pub(crate) fn stdio(&self) -> Result<Stdio> {
        let file = self.file.try_clone().map_err(StackError::at("share the log", &self.path))?;
        Ok(file.into())
    }

    /// The last lines of this run.
    pub(crate) fn quote(&self) -> String {
        tail_from(&self.path, self.start, QUOTED_LINES).unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn rotate(path: &Path) {
    let too_long = fs::metadata(path).is_ok_and(|meta| meta.len() > ROTATE_AT);
    if too_long && let Err(error) = fs::rename(path, path.with_extension("log.1")) {
        tracing::warn!(path = %path.display(), %error, "log not rotated");
    }
}
