//! Whether our own load tells the truth: the same closed loop by wrk.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use weir_stack::testing::scratch;

use super::turns::read_with_durability;
use super::{Scale, Turns};
use crate::load::{Aim, drive};
use crate::report::Report;
use crate::stage::{self, Gateway, Redis};

pub(super) const ABOUT: &str = "The same closed loop by two generators, ours and wrk (which makes every message by a script), \
                                against the bare server and the gateway, 256 connections. What wrk spends more on its \
                                script, the servers do not have.";

const CONNECTIONS: usize = 256;
const SCRIPT: &str = include_str!("wrk.lua");

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let redis = Redis::on_disk().await?;
    let mut turns = Turns::default();
    for round in 1..=scale.rounds {
        for (id, title) in [("bare", "bare hyper"), ("gateway", "Weir, disk")] {
            redis.flush().await?;
            let served = if id == "bare" { stage::bare().await? } else { Gateway::DISK.start(&redis.url()).await? };
            report.step(format_args!("turn {round}: {title}, own load"));
            let own = drive(&Aim::closed(served.address, CONNECTIONS, scale.turn), &[]).await?.sound()?;
            turns.push(format!("generators.{id}.own"), format!("{title} by our own load"), "/s", own.rate());
            report.step(format_args!("turn {round}: {title}, wrk"));
            let rate = wrk(served.address, scale.turn).await?;
            turns.push(format!("generators.{id}.wrk"), format!("{title} by wrk"), "/s", rate);
            served.child.end().await;
        }
    }
    turns.write(report);
    read_with_durability(report, ["own", "wrk"].map(|by| format!("generators.gateway.{by}")));
    Ok(())
}

async fn wrk(address: SocketAddr, length: Duration) -> Result<f64> {
    let folder = scratch();
    let script = folder.path().join("wrk.lua");
    std::fs::write(&script, SCRIPT)?;
    let mut command = Command::new("wrk");
    command.arg("--threads").arg(crate::report::cores().min(CONNECTIONS).to_string());
    command
        .arg("--connections")
        .arg(CONNECTIONS.to_string())
        .arg("--duration")
        .arg(format!("{}s", length.as_secs() + 1));
    command.arg("--script").arg(&script).arg(format!("http://{address}/api/v1/webhook")).arg("--");
    command.arg(format!("{:08x}", rand::random::<u32>()));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.context("wrk does not start: apt-get install wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {}", String::from_utf8_lossy(&output.stderr));
    read(&text)
}

/// Requests a second, of what wrk prints.
fn read(text: &str) -> Result<f64> {
    for wrong in ["Non-2xx", "Socket errors"] {
        let line = text.lines().find(|line| line.contains(wrong));
        ensure!(line.is_none(), "wrk: {}", line.unwrap_or_default().trim());
    }
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    rate.with_context(|| format!("wrk printed no rate: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_wrk_is_read() {
        assert_eq!(read("  26 requests in 1.1s\nRequests/sec:  51234.56\nTransfer/sec: 1MB\n").unwrap(), 51234.56);
    }

    #[test]
    fn errors_of_wrk_are_errors() {
        assert!(read("  Non-2xx or 3xx responses: 12\nRequests/sec: 5.0\n").is_err());
        assert!(read("  Socket errors: connect 0, read 1, write 0, timeout 0\nRequests/sec: 5.0\n").is_err());
        assert!(read("").is_err());
    }
}
