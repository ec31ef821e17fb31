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
use rand::RngExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weir_stack::testing::redis_with;

use crate::child::Child;
use crate::load;
use crate::report::Report;
use crate::stage::start;

/// Messages in a batch.
const BATCH: u64 = 50;

/// Connections in the closed loops of which the fastest is the peak; all stay below the limit of messages in flight.
const CLOSED: [usize; 3] = [32, 64, 128];

/// Connections in the open loop.
const OPEN: usize = 512;

pub(crate) async fn measure(report: &mut Report, seconds: u64) -> Result<()> {
    // Who is started inherits the core, and has as many threads as it sees cores.
    pin(std::process::id(), 0)?;
    let redis = redis_with(&[("auto-aof-rewrite-percentage", "0")]).await;
    let (child, address) = start(&["serve-gateway", "--durability", "disk"], &redis.url()).await?;
    pin(std::process::id(), 1)?;
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

    /// Loads the gateway: as fast as answers come, or by the clock.
    async fn drive(&self, connections: usize, per_second: Option<f64>) -> Result<Found> {
        let Self { address, child, length } = self;
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
        let mut memory = [0.0_f64; 2];
        let started = Instant::now();
        while started.elapsed() < *length {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let half = usize::from(started.elapsed() > *length / 2);
            memory[half] = memory[half].max(child.memory()? as f64);
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
            memory,
        })
    }
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
