//! PostgreSQL's settings, scaled to the machine.

use std::fs;
use std::path::Path;

const MB: u64 = 1024 * 1024;
const GB: u64 = 1024 * MB;

/// What the settings depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// Memory that this process tree may use, in bytes.
    pub(super) memory: u64,
    /// Free space where the data lives, in bytes.
    pub(super) disk: u64,
}

impl Machine {
    /// This machine, as seen from the folder of the data.
    pub(super) fn here(home: &Path) -> Machine {
        Machine {
            memory: physical_memory().min(cgroup_limit().unwrap_or(u64::MAX)),
            disk: rustix::fs::statvfs(home).map_or(4 * GB, |fs| fs.f_bavail * fs.f_frsize),
        }
    }
}

fn physical_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit.max(1))
}

/// A container's own limit; the file says `max` where there is none.
fn cgroup_limit() -> Option<u64> {
    let text = fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?;
    text.trim().parse().ok()
}

/// The settings for a write-heavy queue's database, in the order of the file.
pub(super) fn scaled(machine: Machine, wal_compression: &str) -> Vec<(&'static str, String)> {
    let text = |value: &str| value.to_owned();
    let megabytes = |bytes: u64| format!("{}MB", bytes / MB);
    vec![
        ("max_connections", text("200")),
        ("unix_socket_directories", text("")),
        // Random keys touch most pages of their index; kept in memory they cost one write per checkpoint.
        ("shared_buffers", megabytes((machine.memory / 8).clamp(128 * MB, 2 * GB))),
        ("effective_cache_size", megabytes((machine.memory / 2).max(128 * MB))),
        // The first change of a page after a checkpoint logs the whole page: rare checkpoints halve what is written.
        // A quarter of the free disk at most, or the log itself fills it.
        ("max_wal_size", megabytes((machine.disk / 4).clamp(64 * MB, 16 * GB))),
        ("checkpoint_timeout", text("30min")),
        ("checkpoint_completion_target", text("0.9")),
        ("wal_compression", text(wal_compression)),
        // A commit means on disk.
        ("fsync", text("on")),
        ("synchronous_commit", text("on")),
        ("password_encryption", text("scram-sha-256")),
        ("timezone", text("UTC")),
        ("log_timezone", text("UTC")),
        ("lc_messages", text("C")),
        ("log_line_prefix", text("%m [%p] ")),
        // Rows and parameters hold personal data. Errors of statements go to the client, which knows what may be
        // shown, and not to this log (`log` ranks above `error`); details ("Key (phone)=(…)") are cut off.
        ("log_min_messages", text("log")),
        ("log_min_error_statement", text("panic")),
        ("log_parameter_max_length_on_error", text("0")),
        ("log_error_verbosity", text("terse")),
    ]
}

/// A line of postgresql.conf.
pub(super) fn line(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('\'', "''");
    format!("{name} = '{value}'\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(machine: Machine, name: &str) -> String {
        let settings = scaled(machine, "on");
        let found = settings.into_iter().find(|(known, _)| *known == name);
        found.expect("a setting").1
    }

    #[test]
    fn a_small_machine_gets_little_and_a_large_one_is_capped() {
        let small = Machine { memory: 512 * MB, disk: 2 * GB };
        assert_eq!(value(small, "shared_buffers"), "128MB");
        assert_eq!(value(small, "max_wal_size"), "512MB");
        let large = Machine { memory: 256 * GB, disk: 4096 * GB };
        assert_eq!(value(large, "shared_buffers"), "2048MB");
        assert_eq!(value(large, "max_wal_size"), "16384MB");
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        assert_eq!(line("search_path", r"it's\"), "search_path = 'it''s\\\\'\n");
    }
}
