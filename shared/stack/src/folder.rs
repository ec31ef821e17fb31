//! A server's folder: one owner at a time, and no start before the previous server has gone.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{Result, StackError};

/// The claim of a process ends with it; only one that is ending right now is worth waiting for.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);
/// A server whose parent died a moment ago still writes out its data; a large one takes a while.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A folder that no other process may use for this server until this value is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be and claims it.
    pub(crate) async fn claim(dir: &Path, server: &'static str) -> Result<Folder> {
        fs::create_dir_all(dir).map_err(StackError::at("create the folder", dir))?;
        let path = fs::canonicalize(dir).map_err(StackError::at("find the folder", dir))?;
        let lock = path.join(format!("{server}.lock"));
        let file = File::create(&lock).map_err(StackError::at("open", &lock))?;
        let patience = Instant::now() + CLAIM_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Folder { path, _lock: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => sleep(POLL).await,
                Err(TryLockError::WouldBlock) => return Err(StackError::InUse { server, dir: path }),
                Err(TryLockError::Error(error)) => return Err(StackError::at("lock", &lock)(error)),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Waits until the server that `pid_file` names has gone, if it is one that works in `dir`.
///
/// A pid file that names some other live process is removed: after a restart of a machine or a container the old pid
/// often belongs to somebody else, and the new server would take that one for its predecessor.
pub(crate) async fn wait_for_previous(server: &'static str, pid_file: &Path, dir: &Path) -> Result<()> {
    let Some(pid) = named_pid(pid_file) else {
        return Ok(());
    };
    let patience = Instant::now() + PATIENCE;
    while works_in(pid, dir) {
        if Instant::now() > patience {
            let dir = dir.to_owned();
            return Err(StackError::StillRunning { server, dir, pid });
        }
        sleep(POLL).await;
    }
    if Path::new(&format!("/proc/{pid}")).exists() && named_pid(pid_file) == Some(pid) {
        remove_stale(pid_file)?;
    }
    Ok(())
}

/// The first line of a pid file, as Redis and PostgreSQL write it.
pub(crate) fn named_pid(pid_file: &Path) -> Option<u32> {
    let text = fs::read_to_string(pid_file).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Both servers make their data folder their working folder.
fn works_in(pid: u32, dir: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
}

fn remove_stale(pid_file: &Path) -> Result<()> {
    tracing::info!(file = %pid_file.display(), "stale pid file removed");
    match fs::remove_file(pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StackError::at("remove", pid_file)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
