//! What a server says about itself in `postmaster.pid`.

use std::fs;
use std::path::Path;

use crate::folder::named_pid;

/// The line that holds the status, counted from 0.
const STATUS_LINE: usize = 7;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It accepts connections.
    Ready,
    /// It starts, recovers or stops.
    Busy,
    /// It has not said anything yet.
    Unknown,
}

/// The status of the server with this pid; what an earlier one left behind is `Unknown`.
pub(super) fn read(pid_file: &Path, pid: u32) -> Status {
    if named_pid(pid_file) != Some(pid) {
        return Status::Unknown;
    }
    let text = fs::read_to_string(pid_file).unwrap_or_default();
    match text.lines().nth(STATUS_LINE).map(str::trim) {
        Some("ready") => Status::Ready,
        Some(_) => Status::Busy,
        None => Status::Unknown,
    }
}
