//! A fixed share of a core for a server, however many there are and whatever else runs: the kernel's deadline scheduler
//! (`SCHED_DEADLINE`) lets its main thread run for so long in every period, before everybody else, and no longer.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

/// Of a core.
pub(crate) const SHARE: f64 = 0.1;

const PERIOD_NS: u64 = 20_000_000;
const RUNTIME_NS: u64 = (PERIOD_NS as f64 * SHARE) as u64;

/// Holds the main thread of a process to its share for the rest of its life. It may not fork meanwhile.
///
/// There is no way back on purpose: a kernel (6.18) that was asked to and fro lost shares for good, and at last refused to
/// give any. Those of servers that are killed while they are held come back.
///
/// # Errors
/// Where the kernel does not allow it.
pub(crate) async fn hold(pid: u32) -> Result<()> {
    let (runtime, period) = (RUNTIME_NS.to_string(), PERIOD_NS.to_string());
    let times = ["--sched-runtime", &runtime, "--sched-deadline", &period, "--sched-period", &period];
    let held = chrt(&[&["--deadline"], &times[..]].concat(), pid).await;
    held.context("SCHED_DEADLINE takes root (CAP_SYS_NICE) and all cores of the machine")
}

async fn chrt(policy: &[&str], pid: u32) -> Result<()> {
    let mut command = Command::new("chrt");
    command.args(policy).args(["--pid", "0", &pid.to_string()]).stdin(Stdio::null());
    let output = command.output().await.context("chrt does not start: apt-get install util-linux")?;
    if !output.status.success() {
        bail!("chrt: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The scheduling policy of a process, as the kernel numbers them.
    fn policy(pid: u32) -> String {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(38).unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_process_is_held_or_the_reason_is_told() {
        let mut child = Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        match hold(pid).await {
            Ok(()) => assert_eq!(policy(pid), "6"),
            Err(error) => {
                assert!(error.to_string().contains("takes root"), "{error:#}");
                assert_eq!(policy(pid), "0");
            }
        }
        child.kill().await.unwrap();
        assert!(format!("{:#}", hold(pid).await.unwrap_err()).contains("chrt"));
    }
}
