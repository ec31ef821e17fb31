//! Removes the folders of a test process when that ends, in whatever way.

use std::io::{self, PipeWriter, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Collects one folder per line until the pipe closes, which the end of our process does. The servers in the folders
/// are dying then: they get ten seconds to go, the ones that do not are killed. A server is known by its working folder.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
while IFS= read -r dir; do set -- "$@" "$dir"; done
inhabitants() {
    for process in /proc/[0-9]*; do
        case "$(readlink "$process/cwd" 2>/dev/null)/" in "$1"/*) echo "${process#/proc/}" ;; esac
    done
}
for dir; do
    test -d "$dir" || continue
    tries=100
    while test -n "$(inhabitants "$dir")" && test "$tries" -gt 0; do sleep 0.1; tries=$((tries - 1)); done
    for pid in $(inhabitants "$dir"); do kill -9 "$pid"; done
    awk -v dir="$dir" '$2 == dir { print $2 }' /proc/mounts | while read -r mount; do umount -l "$mount"; done
    rm -rf "$dir" || { sleep 1; rm -rf "$dir"; }
done
"#;

/// Has this folder removed after the end of this process, if it still exists then.
pub(super) fn announce(dir: &Path) -> io::Result<()> {
    let mut pipe = cleaner().lock().unwrap_or_else(PoisonError::into_inner);
    match pipe.as_mut() {
        Some(pipe) => writeln!(pipe, "{}", dir.display()),
        None => Err(io::Error::other("the cleaner process was not started")),
    }
}

fn cleaner() -> &'static Mutex<Option<PipeWriter>> {
    static CLEANER: OnceLock<Mutex<Option<PipeWriter>>> = OnceLock::new();
    CLEANER.get_or_init(|| Mutex::new(start().ok()))
}

/// In a process group of its own, so that Ctrl-C ends the tests but not their cleaner.
fn start() -> io::Result<PipeWriter> {
    let (lines, pipe) = io::pipe()?;
    Command::new("sh")
        .args(["-c", SCRIPT, "weir-test-cleaner"])
        .current_dir("/")
        .stdin(lines)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(pipe)
}
