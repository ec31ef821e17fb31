//! What the figures depend on: the machine, the servers' versions, the commit.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub(super) struct Machine {
    cores: usize,
    memory_gb: f64,
    processor: String,
    kernel: String,
    /// File system and device of the folder that holds the servers' data.
    disk: String,
    redis: String,
    postgres: String,
    /// When the run began: what else was running.
    load_average: String,
}

impl Machine {
    pub(super) fn here() -> Self {
        Self {
            cores: cores(),
            memory_gb: value_of("/proc/meminfo", "MemTotal:").parse::<f64>().unwrap_or(0.0) / 1e6,
            processor: value_of("/proc/cpuinfo", "model name"),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            disk: disk(&std::env::temp_dir()),
            redis: said("redis-server", &["--version"], "v="),
            postgres: said("psql", &["--version"], "(PostgreSQL)"),
            load_average: first_line("/proc/loadavg"),
        }
    }

    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Machine", format!("{} cores, {:.1} GB, {}", self.cores, self.memory_gb, self.processor)),
            ("Kernel", self.kernel.clone()),
            ("Disk", self.disk.clone()),
            ("Servers", format!("Redis {}, PostgreSQL {}", self.redis, self.postgres)),
            ("Load before", self.load_average.clone()),
        ]
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Of the source that is here; `WEIR_COMMIT` wins.
pub(super) fn commit() -> Option<String> {
    if let Ok(commit) = std::env::var("WEIR_COMMIT") {
        return Some(commit).filter(|commit| !commit.is_empty());
    }
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let commit = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn value_of(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    value.trim().trim_start_matches(':').trim_end_matches("kB").trim().to_owned()
}

/// The word behind `mark` in what a program says of itself.
fn said(program: &str, arguments: &[&str], mark: &str) -> String {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    let word = text.split(mark).nth(1).and_then(|rest| rest.split_whitespace().next());
    word.unwrap_or("?").to_owned()
}

fn disk(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    match fields.filter(|(_, place, _)| folder.starts_with(place)).max_by_key(|(_, place, _)| place.len()) {
        Some((_, _, "tmpfs")) => format!("{}: tmpfs, so a sync costs nothing here; set TMPDIR", folder.display()),
        Some((device, _, system)) => format!("{}: {system} on {device}", folder.display()),
        None => "?".into(),
    }
}
