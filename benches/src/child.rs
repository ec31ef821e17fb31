//! A server under load as a process of its own, and what it used.

use std::collections::HashMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use weir_stack::{Process, tied_command};

use crate::peers::Running;

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

/// A process whose processor time is of interest.
#[derive(Clone, Copy)]
pub(crate) enum Watched<'r> {
    /// It alone.
    One(u32),
    /// With all that it started, also those that have ended.
    Tree(u32),
    /// All processes of another system.
    Peer(&'r Running),
}

impl Watched<'_> {
    pub(crate) fn cpu(&self) -> Result<Duration> {
        match *self {
            Self::One(pid) => cpu_of(pid),
            Self::Tree(pid) => cpu_of_tree(pid),
            Self::Peer(running) => running.cpu(),
        }
    }
}

/// The kernel counts in ticks of 10 ms.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = Stat::read(pid).with_context(|| format!("process {pid} is gone"))?;
    Ok(TICK * stat.own as u32)
}

/// The same of a process with all its descendants. Those that ended are in the time of who waited for them.
fn cpu_of_tree(root: u32) -> Result<Duration> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let stats: HashMap<u32, Stat> = pids.filter_map(|pid| Some((pid, Stat::read(pid)?))).collect();
    anyhow::ensure!(stats.contains_key(&root), "process {root} is gone");
    let belongs = |mut pid: u32| {
        while pid != root {
            match stats.get(&pid) {
                Some(stat) if stat.parent > 1 => pid = stat.parent,
                _ => return false,
            }
        }
        true
    };
    let ticks: u64 = stats.iter().filter(|(pid, _)| belongs(**pid)).map(|(_, stat)| stat.own + stat.children).sum();
    Ok(TICK * ticks as u32)
}

/// What `/proc/PID/stat` says: times in ticks.
#[derive(Debug)]
struct Stat {
    parent: u32,
    own: u64,
    /// Of children that were waited for.
    children: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self { parent: number(1)? as u32, own: number(11)? + number(12)?, children: number(13)? + number(14)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_confuse() {
        let stat = Stat::parse("12 (a b) c) S 7 12 12 0 -1 4194560 1 2 3 4 100 50 30 20 20 0 1 0 5").unwrap();
        assert_eq!((stat.parent, stat.own, stat.children), (7, 150, 50));
    }

    #[test]
    fn a_tree_has_the_time_of_children_that_ended() {
        let id = std::process::id();
        let before = (cpu_of(id).unwrap(), cpu_of_tree(id).unwrap());
        let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";
        while cpu_of_tree(id).unwrap() < before.1 + TICK * 5 {
            assert!(std::process::Command::new("sh").args(["-c", busy]).status().unwrap().success());
        }
        assert!(cpu_of(id).unwrap() - before.0 < cpu_of_tree(id).unwrap() - before.1);
    }
}
