//! Tests with real servers. They leave no process and no folder behind.

mod held;
mod postgres;
mod process;
mod proxy;
mod redis;

use std::fs;
use std::path::Path;
use std::time::Duration;

/// For what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(60);

/// Whether a process runs; one that has ended and was not waited for yet does not.
fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

/// The processes that work in this folder or below it.
fn inhabitants(dir: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)))
        .collect()
}
