//! Deletes a server's data.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{Result, StackError, postgres};

/// A server whose parent died a moment ago still writes out its data.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Deletes everything of the server whose folder is `dir`, wherever its data lives; nothing there is no error. A server
/// that is shutting down there is waited for.
///
/// The caller makes sure that nobody starts a server there meanwhile.
pub async fn erase(dir: &Path) -> Result<()> {
    let Ok(dir) = fs::canonicalize(dir) else { return Ok(()) };
    for place in postgres::elsewhere_of(&dir).into_iter().chain([dir]) {
        wait_until_idle(&place).await?;
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StackError::at("delete", &place)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn wait_until_idle(dir: &Path) -> Result<()> {
    let patience = Instant::now() + PATIENCE;
    while let Some(pid) = works_below(dir) {
        if Instant::now() > patience {
            return Err(StackError::StillRunning { server: "a server", dir: dir.to_owned(), pid });
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// A process whose working folder is `dir` or below it, as that of both servers is.
fn works_below(dir: &Path) -> Option<u32> {
    let cwd = |entry: &fs::DirEntry| -> Option<PathBuf> { fs::read_link(entry.path().join("cwd")).ok() };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut below = processes.filter(|entry| cwd(entry).is_some_and(|cwd| cwd.starts_with(dir)));
    below.find_map(|entry| entry.file_name().to_str()?.parse().ok())
}
