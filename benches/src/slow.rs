//! What good clients notice of two thousand slow ones: errors, and the 99th percentile of their latency, against the
//! same clients a moment before.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::net::TcpStream;
use tokio::process::{Child as Tool, Command};
use tokio::task::JoinSet;
use weir_stack::testing::redis_with;

use crate::accept::{median, start};
use crate::load;
use crate::report::Report;

/// Pairs of phases that each figure is the median of.
const ROUNDS: usize = 3;

/// Good clients at a time, and the pause of each between an answer and its next request: far from saturation, where a
/// percentile would tell of queues and not of slow clients.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);

/// Headers that do not end, bodies that do not, ranges that overlap, answers that nobody takes.
const MODES: [&str; 4] = ["-H", "-B", "-R", "-X"];

pub(crate) async fn measure(report: &mut Report, seconds: u64, connections: usize) -> Result<()> {
    let redis = redis_with(&[("auto-aof-rewrite-percentage", "0")]).await;
    let (child, address) = start(&["serve-gateway", "--durability", "disk"], &redis.url()).await?;
    let length = Duration::from_secs(seconds);
    let (mut quiet, mut slow, mut ratios, mut open, mut requests, mut errors) =
        (Vec::new(), Vec::new(), Vec::new(), usize::MAX, 0, 0);
    for _ in 0..ROUNDS {
        let before = load::paced(address, CLIENTS, PAUSE, length).await?;
        let attack = Attack::start(address, connections, seconds)?;
        // Until the slow ones are there.
        tokio::time::sleep(Duration::from_secs(2)).await;
        open = open.min(descriptors(child.pid())?);
        let during = load::paced(address, CLIENTS, PAUSE, length).await?;
        attack.end().await?;
        quiet.push(before.p99().as_secs_f64() * 1e3);
        slow.push(during.p99().as_secs_f64() * 1e3);
        ratios.push(during.p99().as_secs_f64() / before.p99().as_secs_f64());
        requests += during.latencies.len();
        errors += before.errors + during.errors;
        // The next round begins with a gateway that has nobody left.
        while descriptors(child.pid())? > 100 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    report.add("slow connections, at the least", open as f64, "", "");
    report.add("requests of good clients beside them", requests as f64, "", "");
    report.add("errors of good clients", errors as f64, "", "0");
    report.add("p99 of good clients alone", median(quiet), "ms", "");
    report.add("p99 of good clients beside slow ones", median(slow), "ms", "");
    report.add("p99 beside slow ones / alone", median(ratios), "", "<= 2");
    report.add("gateway memory after it", child.memory()? as f64 / 1e6, "MB", "");
    child.end().await;
    Ok(())
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Slow clients: a quarter of them for each mode of slowhttptest, of which the one with ranges is answered at once and
/// does not count, and a quarter that connects and says nothing. On another machine they would not take processor time
/// from the gateway, so here they get what is left.
struct Attack {
    tools: Vec<Tool>,
    silent: JoinSet<()>,
}

impl Attack {
    fn start(address: SocketAddr, connections: usize, seconds: u64) -> Result<Self> {
        let each = (connections / 4).to_string();
        // Two seconds until they are there, one until the last good client has its answer.
        let length = (seconds + 3).to_string();
        let tool = |mode: &&str| {
            let mut command = Command::new("nice");
            command
                .args(["-n", "19", "slowhttptest", mode])
                .args(["-c", &each, "-r", &each, "-l", &length, "-i", "1", "-p", "5", "-k", "10"]);
            command.args(["-w", "64", "-y", "128", "-f", "application/json"]);
            command.arg("-u").arg(format!("http://{address}/api/v1/webhook"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
            command.spawn().context("slowhttptest does not start: apt-get install slowhttptest")
        };
        let mut silent = JoinSet::new();
        for _ in 0..connections / 4 {
            silent.spawn(async move {
                while let Ok(stream) = TcpStream::connect(address).await {
                    // Until the gateway has had enough of it.
                    drop(stream.peek(&mut [0]).await);
                }
            });
        }
        Ok(Self { tools: MODES.iter().map(tool).collect::<Result<_>>()?, silent })
    }

    async fn end(self) -> Result<()> {
        drop(self.silent);
        for mut tool in self.tools {
            let status = tool.wait().await?;
            ensure!(status.success(), "slowhttptest: {status}");
        }
        Ok(())
    }
}
