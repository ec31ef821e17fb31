//! A server under load as a process of its own, and what it used.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use weir_stack::{Process, tied_command};

/// A child that serves on a known port.
pub(crate) struct Child {
    process: Process,
}

impl Child {
    /// Starts this program with other arguments.
    pub(crate) fn start(args: &[&str], env: &[(&str, String)]) -> Result<Self> {
        let exe = std::env::current_exe()?;
        let mut command = tied_command(&exe, "KILL")?;
        command.args(args).envs(env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        Ok(Self { process: Process::spawn(command)? })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Processor time used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(self.process.pid())
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    pub(crate) async fn end(self) {
        self.process.kill().await;
    }
}

/// User and system time of a process, in the kernel's ticks of 10 ms.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("no stat")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
