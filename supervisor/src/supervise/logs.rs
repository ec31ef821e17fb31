//! Keeps the logs of the roles from filling the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_core::shutdown::Shutdown;

/// A log that is longer becomes `….log.1`, in place of the one before.
const LONGEST: u64 = 16 << 20;

const EVERY: Duration = Duration::from_secs(5);

/// Looks at the logs in a folder until shutdown.
pub(crate) async fn run(folder: PathBuf, shutdown: Shutdown) {
    let mut tick = tokio::time::interval(EVERY);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let folder = folder.clone();
        let looked = tokio::task::spawn_blocking(move || bound_all(&folder, LONGEST)).await;
        if let Ok(Err(error)) = looked {
            tracing::warn!(%error, "the logs cannot be looked after");
        }
    }
}

fn bound_all(folder: &Path, longest: u64) -> io::Result<()> {
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if is_log && let Err(error) = bound(&path, longest) {
            tracing::warn!(path = %path.display(), %error, "a log cannot be kept short");
        }
    }
    Ok(())
}

/// Copies a log that is too long and empties it. Its process writes at its end wherever that is, and need not know. What
/// it writes between the two is lost, and so is everything when there is no room for a copy.
fn bound(path: &Path, longest: u64) -> io::Result<()> {
    let length = fs::metadata(path)?.len();
    if length <= longest {
        return Ok(());
    }
    let copy = path.with_extension("log.1");
    if let Err(error) = fs::copy(path, &copy) {
        tracing::warn!(path = %path.display(), %error, "a log is emptied without a copy");
        // It would take room and be of no use.
        let _ = fs::remove_file(&copy);
    }
    File::options().write(true).open(path)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_long_log_is_set_aside_while_its_process_writes_on() {
        let folder = weir_stack::testing::scratch();
        let path = folder.path().join("worker-1.log");
        let mut log = File::options().create(true).append(true).open(&path).unwrap();
        fs::write(folder.path().join("worker-1.log.1"), "older").unwrap();
        for number in 0..5 {
            writeln!(log, "line {number}").unwrap();
            bound_all(folder.path(), 14).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 3\nline 4\n");
        let aside = fs::read_to_string(folder.path().join("worker-1.log.1")).unwrap();
        assert_eq!(aside, "line 0\nline 1\nline 2\n");
    }

    #[test]
    fn a_log_without_room_for_a_copy_is_emptied() {
        let folder = weir_stack::testing::scratch();
        let path = folder.path().join("gateway.log");
        fs::write(&path, "a line\n").unwrap();
        std::os::unix::fs::symlink("/dev/full", folder.path().join("gateway.log.1")).unwrap();
        bound(&path, 1).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
