//! Twice and five times as much as can be taken: what is still accepted, how soon, and in how much memory.
//!
//! The load must be able to offer five times what is taken, so it sends batches, which cost it little. Redis has a core
//! for itself, as it would have a machine for itself; the gateway shares the other one with the load and goes before it.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child as Tool, Command as Tools};
use tokio::task::JoinSet;
use weir_stack::testing::redis_with;

use crate::child::Child;
use crate::load;
use crate::report::{Report, say};
use crate::stage::start;

/// Messages in a batch.
const BATCH: u64 = 50;

/// Connections in the closed loops of which the fastest is the peak; all stay below the limit of messages in flight.
const CLOSED: [usize; 3] = [32, 64, 128];

/// Connections in the open loop.
const OPEN: usize = 512;

pub(crate) async fn measure(report: &mut Report, seconds: u64) -> Result<()> {
    // Who is started inherits the core, and has as many threads as it sees cores.
    pin(0)?;
    let redis = redis_with(&[("auto-aof-rewrite-percentage", "0")]).await;
    pin(1)?;
    let (child, address) = start(&["serve-gateway", "--durability", "disk"], &redis.url()).await?;
    after_others()?;
    let stand = Stand { address, child, length: Duration::from_secs(seconds) };
    let connections = stand.fastest().await?;
    for times in [2.0, 5.0] {
        // Redis has more to look through with every message: what is compared has to be measured side by side.
        let before = stand.drive(connections, None).await?;
        let calm = stand.drive(OPEN, Some(before.accepted / 4.0)).await?;
        let found = stand.drive(OPEN, Some(before.accepted * times)).await?;
        let after = stand.drive(connections, None).await?;
        let peak = f64::midpoint(before.accepted, after.accepted);
        let name = |what: &str| format!("{what}, {times}x the peak");
        report.add(format!("peak, batches of {BATCH}, {connections} connections in a closed loop"), peak, "/s", "");
        report.add("p99 of accepted batches at a quarter of it", calm.p99_ms, "ms", "");
        report.add(name("offered"), found.offered, "/s", "");
        report.add(name("accepted / peak"), found.accepted / peak, "", ">= 0.9");
        report.add(name("p99 of accepted batches / at a quarter"), found.p99_ms / calm.p99_ms, "", "<= 3");
        report.add(name("refused batches"), found.refused, "/s", "");
        report.add(name("gateway memory"), found.memory[1] / 1e6, "MB", "");
        report.add(name("gateway memory, second half / first"), found.memory[1] / found.memory[0], "", "<= 1.05");
    }
    stand.child.end().await;
    Ok(())
}

/// The gateway under load.
struct Stand {
    address: SocketAddr,
    child: Child,
    length: Duration,
}

impl Stand {
    /// Connections of the closed loop in which most is accepted.
    async fn fastest(&self) -> Result<usize> {
        let (mut most, mut best) = (0.0, CLOSED[0]);
        for connections in CLOSED {
            let found = self.drive(connections, None).await?;
            if found.accepted > most {
                (most, best) = (found.accepted, connections);
            }
        }
        Ok(best)
    }

    /// Loads the gateway, as fast as answers come or with so many messages a second, and watches it.
    async fn drive(&self, connections: usize, per_second: Option<f64>) -> Result<Found> {
        let probe = self.probe()?;
        let load = tokio::spawn(load(self.address, connections, per_second, self.length));
        let (mut memory, started) = ([0.0_f64; 2], Instant::now());
        while !load.is_finished() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let half = usize::from(started.elapsed() > self.length / 2);
            memory[half] = memory[half].max(self.child.memory()? as f64);
        }
        let (load, probe) = (load.await??, probe.wait_with_output().await?);
        ensure!(probe.status.success(), "the probe failed: {}", probe.status);
        let probe: Tally = serde_json::from_slice(&probe.stdout).context("what the probe found")?;
        Ok(Found {
            offered: load.offered + probe.offered,
            accepted: load.accepted + probe.accepted,
            refused: load.refused + probe.refused,
            p99_ms: probe.p99_ms,
            memory,
        })
    }

    /// Few senders in a process of their own, which is not behind with its clock however much the load is.
    fn probe(&self) -> Result<Tool> {
        let mut command = Tools::new("chrt");
        command.args(["--other", "0"]).arg(std::env::current_exe()?).arg("probe");
        command.arg(self.address.to_string()).arg(self.length.as_secs_f64().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command.spawn().context("chrt (util-linux) cannot be run")
    }
}

/// An overload is taken for a burst, which may wait, until it has lasted for two tenths of a second. Latencies count from
/// here on.
const WARM: Duration = Duration::from_secs(1);

/// Connections of the probe, and messages a second over all of them.
const PROBES: usize = 20;
const PROBED: f64 = 10_000.0;

pub(crate) async fn probe(address: SocketAddr, seconds: f64) -> Result<()> {
    let tally = load(address, PROBES, Some(PROBED), Duration::from_secs_f64(seconds)).await?;
    say(serde_json::to_string(&tally)?);
    Ok(())
}

/// Sends as fast as answers come, or by the clock.
async fn load(address: SocketAddr, connections: usize, per_second: Option<f64>, length: Duration) -> Result<Tally> {
    let counts = Arc::new(Counts::default());
    let every = per_second.map(|rate| Duration::from_secs_f64(connections as f64 * BATCH as f64 / rate));
    let mut senders = JoinSet::new();
    for number in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // Spread over the first interval, so that they do not come all at once.
        let first = every.map(|every| Instant::now() + every.mul_f64(number as f64 / connections as f64));
        senders.spawn(send(stream, Clock { every, next: first }, counts.clone()));
    }
    let started = Instant::now();
    tokio::time::sleep(length).await;
    counts.stop.store(true, Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let mut latencies = Vec::new();
    while let Some(sent) = senders.join_next().await {
        latencies.extend(sent??);
    }
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
    let rate = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64 / seconds;
    Ok(Tally {
        offered: rate(&counts.offered),
        accepted: rate(&counts.accepted),
        refused: rate(&counts.refused),
        p99_ms: p99.as_secs_f64() * 1e3,
    })
}

/// What senders found.
#[derive(Debug, Serialize, Deserialize)]
struct Tally {
    /// Messages a second.
    offered: f64,
    accepted: f64,
    /// Batches a second.
    refused: f64,
    /// Of accepted batches, from the moment at which one was to be sent to its answer; without the first second.
    p99_ms: f64,
}

/// Puts all threads of this process on one core.
fn pin(core: usize) -> Result<()> {
    let pid = std::process::id().to_string();
    tool("taskset", &["--all-tasks", "--cpu-list", "--pid", &core.to_string(), &pid])
}

/// This process only gets the time that nobody else wants.
fn after_others() -> Result<()> {
    tool("chrt", &["--all-tasks", "--idle", "--pid", "0", &std::process::id().to_string()])
}

/// Runs a tool of util-linux.
fn tool(name: &str, args: &[&str]) -> Result<()> {
    let output =
        Command::new(name).args(args).output().with_context(|| format!("{name} (util-linux) cannot be run"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What a run of load found.
struct Found {
    /// Messages a second.
    offered: f64,
    accepted: f64,
    /// Batches a second.
    refused: f64,
    /// As the probe found it.
    p99_ms: f64,
    /// Most that the gateway took in the first half of the run and in the second one, in bytes.
    memory: [f64; 2],
}

#[derive(Default)]
struct Counts {
    offered: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// When the next batch is to be sent.
struct Clock {
    every: Option<Duration>,
    next: Option<Instant>,
}

impl Clock {
    async fn tick(&mut self) -> Instant {
        let (Some(every), Some(next)) = (self.every, self.next) else { return Instant::now() };
        tokio::time::sleep_until(next.into()).await;
        self.next = Some(next + every);
        next
    }
}

async fn send(mut stream: TcpStream, mut clock: Clock, counts: Arc<Counts>) -> io::Result<Vec<Duration>> {
    let (mut latencies, warm) = (Vec::new(), Instant::now() + WARM);
    let (mut request, mut answer) = (Request::new(), vec![0; 64 << 10]);
    while !counts.stop.load(Ordering::Relaxed) {
        let due = clock.tick().await;
        stream.write_all(request.fresh()).await?;
        counts.offered.fetch_add(BATCH, Ordering::Relaxed);
        let length = load::read_whole(&mut stream, &mut answer).await?;
        let accepted = count(&answer[..length], b"\"accepted\"");
        if accepted > 0 {
            counts.accepted.fetch_add(accepted, Ordering::Relaxed);
            if due >= warm {
                latencies.push(due.elapsed());
            }
        } else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(latencies)
}

/// One batch as bytes, of which only the ids change.
struct Request {
    bytes: Vec<u8>,
    /// Where the digits of each id and of each client begin.
    ids: Vec<usize>,
}

const DIGITS: usize = 16;

impl Request {
    fn new() -> Self {
        let item = |_| {
            "{\"external_message_id\":\"################\",\"external_client_id\":\"################\",\
             \"client_phone\":\"+79190000000\",\"message_text\":\"Здравствуйте! Где мой заказ?\",\"send_at\":1760000000}"
        };
        let body = format!("[{}]", (0..BATCH).map(item).collect::<Vec<_>>().join(","));
        let head = format!(
            "POST /api/v1/webhook/batch HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let bytes = (head + &body).into_bytes();
        let gap = [b'#'; DIGITS];
        let mut ids = Vec::new();
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(DIGITS).position(|window| window == gap) {
            ids.push(at + found);
            at += found + DIGITS;
        }
        Self { bytes, ids }
    }

    /// The same batch with other ids and clients.
    fn fresh(&mut self) -> &[u8] {
        let mut random = rand::rng();
        for at in &self.ids {
            let number: u64 = random.random();
            for (place, digit) in self.bytes[*at..at + DIGITS].iter_mut().enumerate() {
                *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
            }
        }
        &self.bytes
    }
}

fn count<const N: usize>(bytes: &[u8], pattern: &[u8; N]) -> u64 {
    bytes.windows(N).filter(|window| *window == pattern).count() as u64
}
