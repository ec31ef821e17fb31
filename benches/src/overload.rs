//! Twice and five times as much as can be taken: what is still accepted, how soon, and in how much memory.
//!
//! The load must be able to offer five times what the gateway takes. So it sends batches, which cost it little, and has
//! one core for itself while gateway and Redis share the other.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weir_stack::testing::redis_with;

use crate::accept::start;
use crate::child::Child;
use crate::load;
use crate::report::Report;

/// Messages in a batch.
const BATCH: u64 = 50;

/// Connections in the closed loop that finds the peak, which together stay below the limit of messages in flight, and in
/// the open loop.
const CLOSED: usize = 128;
const OPEN: usize = 512;

pub(crate) async fn measure(report: &mut Report, seconds: u64) -> Result<()> {
    let redis = redis_with(&[("auto-aof-rewrite-percentage", "0")]).await;
    let (child, address) = start(&["serve-gateway", "--durability", "disk"], &redis.url()).await?;
    pin(child.pid(), 0)?;
    pin(redis.pid(), 0)?;
    pin(std::process::id(), 1)?;
    let length = Duration::from_secs(seconds);
    let peak = drive(address, &child, CLOSED, None, length).await?;
    let calm = drive(address, &child, OPEN, Some(peak.accepted / 4.0), length).await?;
    report.add("peak, batches of 50 in a closed loop", peak.accepted, "/s", "");
    report.add("p99 of accepted batches at a quarter of the peak", calm.p99_ms, "ms", "");
    for times in [2.0, 5.0] {
        let found = drive(address, &child, OPEN, Some(peak.accepted * times), length).await?;
        let name = |what: &str| format!("{what}, {times}x the peak");
        report.add(name("offered"), found.offered, "/s", "");
        report.add(name("accepted / peak"), found.accepted / peak.accepted, "", ">= 0.9");
        report.add(name("p99 of accepted batches / at a quarter"), found.p99_ms / calm.p99_ms, "", "<= 3");
        report.add(name("refused batches"), found.refused, "/s", "");
        report.add(name("gateway memory / at the peak"), found.memory / peak.memory, "", "");
    }
    child.end().await;
    Ok(())
}

/// All threads of a process on one core.
fn pin(pid: u32, core: usize) -> Result<()> {
    let (core, pid) = (core.to_string(), pid.to_string());
    let output = Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", &core, &pid]).output();
    let output = output.context("taskset (util-linux) cannot be run")?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What a run of load found.
struct Found {
    /// Messages a second.
    offered: f64,
    accepted: f64,
    /// Batches a second.
    refused: f64,
    /// From the moment at which a batch was to be sent to its answer.
    p99_ms: f64,
    /// Most that the gateway took, in bytes.
    memory: f64,
}

#[derive(Default)]
struct Counts {
    offered: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// Loads the gateway: as fast as answers come, or by the clock.
async fn drive(
    address: SocketAddr,
    child: &Child,
    connections: usize,
    per_second: Option<f64>,
    length: Duration,
) -> Result<Found> {
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
    let mut memory = 0;
    let started = Instant::now();
    while started.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(100)).await;
        memory = memory.max(child.memory()?);
    }
    counts.stop.store(true, Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let mut latencies = Vec::new();
    while let Some(sent) = senders.join_next().await {
        latencies.extend(sent??);
    }
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
    let rate = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64 / seconds;
    Ok(Found {
        offered: rate(&counts.offered),
        accepted: rate(&counts.accepted),
        refused: rate(&counts.refused),
        p99_ms: p99.as_secs_f64() * 1e3,
        memory: memory as f64,
    })
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
    let mut latencies = Vec::new();
    let (mut request, mut answer) = (Request::new(), vec![0; 64 << 10]);
    while !counts.stop.load(Ordering::Relaxed) {
        let due = clock.tick().await;
        stream.write_all(request.fresh()).await?;
        counts.offered.fetch_add(BATCH, Ordering::Relaxed);
        let length = load::read_whole(&mut stream, &mut answer).await?;
        let accepted = count(&answer[..length], b"\"accepted\"");
        if accepted > 0 {
            counts.accepted.fetch_add(accepted, Ordering::Relaxed);
            latencies.push(due.elapsed());
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
        for at in &self.ids {
            let digits = format!("{:016x}", rand::random::<u64>());
            self.bytes[*at..at + DIGITS].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }
}

fn count(bytes: &[u8], pattern: &[u8]) -> u64 {
    bytes.windows(pattern.len()).filter(|window| *window == pattern).count() as u64
}
