//! What good clients notice of two thousand slow ones: errors, and the 99th percentile of their latency.
//!
//! slowhttptest keeps all processors busy by itself, whoever it is aimed at. So there are two comparisons: slow clients
//! of our own, which cost nothing, against none; and slowhttptest aimed at the gateway against slowhttptest aimed at
//! another gateway on the same machine.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child as Tool, Command};
use tokio::task::JoinSet;
use weir_stack::testing::redis_with;

use crate::child::Child;
use crate::load::{self, Paced};
use crate::report::{Report, median};
use crate::stage::start;

/// Turns that each figure is the median of.
const ROUNDS: usize = 3;

/// Good clients at a time, and the pause of each between an answer and its next request: far from saturation, where a
/// percentile would tell of queues and not of slow clients.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);

/// Until the slow ones are there.
const GATHER: Duration = Duration::from_secs(2);

const GATEWAY: &[&str] = &["serve-gateway", "--durability", "disk"];

/// What the turns found.
#[derive(Default)]
struct Found {
    alone: Vec<f64>,
    slow: Vec<f64>,
    tool_elsewhere: Vec<f64>,
    tool: Vec<f64>,
    processor: Vec<f64>,
    requests: usize,
    errors: u64,
}

impl Found {
    fn p99_ms(&mut self, paced: &Paced) -> f64 {
        self.requests += paced.latencies.len();
        self.errors += paced.errors;
        paced.p99().as_secs_f64() * 1e3
    }
}

fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| of / to).collect())
}

pub(crate) async fn measure(report: &mut Report, seconds: u64, connections: usize) -> Result<()> {
    let redis = redis_with(&[("auto-aof-rewrite-percentage", "0")]).await;
    let (child, address) = start(GATEWAY, &redis.url()).await?;
    let (bystander, elsewhere) = start(GATEWAY, &redis.url()).await?;
    let length = Duration::from_secs(seconds);
    let (mut found, mut open) = (Found::default(), usize::MAX);
    for _ in 0..ROUNDS {
        let alone = load::paced(address, CLIENTS, PAUSE, length).await?;

        let slow = slow_clients(address, connections);
        tokio::time::sleep(GATHER).await;
        open = open.min(descriptors(&child)?);
        let before = child.cpu()?;
        let beside = load::paced(address, CLIENTS, PAUSE, length).await?;
        found.processor.push((child.cpu()? - before).as_secs_f64() / length.as_secs_f64() * 100.0);
        drop(slow);
        nobody_left(&child).await?;

        let tool_elsewhere = beside_tool(elsewhere, address, connections, length).await?;
        nobody_left(&bystander).await?;
        let tool = beside_tool(address, address, connections, length).await?;
        nobody_left(&child).await?;

        let all = [&alone, &beside, &tool_elsewhere, &tool].map(|paced| found.p99_ms(paced));
        found.alone.push(all[0]);
        found.slow.push(all[1]);
        found.tool_elsewhere.push(all[2]);
        found.tool.push(all[3]);
    }
    report.add("slow connections, at the least", open as f64, "", "");
    report.add("requests of good clients", found.requests as f64, "", "");
    report.add("errors of good clients", found.errors as f64, "", "0");
    report.add("p99 of good clients alone", median(found.alone.clone()), "ms", "");
    report.add("p99 of good clients beside slow ones", median(found.slow.clone()), "ms", "");
    report.add("p99 beside slow ones / alone", ratio(&found.slow, &found.alone), "", "<= 2");
    report.add("processor time of the gateway beside slow ones", median(found.processor.clone()), "%", "");
    report.add("p99 with slowhttptest aimed elsewhere", median(found.tool_elsewhere.clone()), "ms", "");
    report.add("p99 with slowhttptest aimed at the gateway", median(found.tool.clone()), "ms", "");
    report.add("p99 with slowhttptest here / elsewhere", ratio(&found.tool, &found.tool_elsewhere), "", "<= 2");
    report.add("gateway memory after it", child.memory()? as f64 / 1e6, "MB", "");
    child.end().await;
    bystander.end().await;
    Ok(())
}

fn descriptors(child: &Child) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", child.pid()))?.count())
}

/// The next turn begins with a gateway that has nobody left.
async fn nobody_left(child: &Child) -> Result<()> {
    while descriptors(child)? > 100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// How a client is slow.
#[derive(Clone, Copy)]
enum Mode {
    Silent,
    Headers,
    Body,
    /// Asks, and reads no answer.
    Deaf,
}

/// Slow clients, of each kind as many, which come back when the gateway has had enough of them. They go when this is
/// dropped.
fn slow_clients(address: SocketAddr, connections: usize) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..connections {
        let mode = [Mode::Silent, Mode::Headers, Mode::Body, Mode::Deaf][number % 4];
        clients.spawn(async move {
            // Not all at the same moment.
            tokio::time::sleep(GATHER.mul_f64(number as f64 / connections as f64 / 2.0)).await;
            loop {
                // It ends with the gateway's patience.
                drop(be_slow(address, mode).await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    clients
}

async fn be_slow(address: SocketAddr, mode: Mode) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if matches!(mode, Mode::Deaf) {
        socket.set_recv_buffer_size(2048)?;
    }
    let mut stream = socket.connect(address).await?;
    let head = "POST /api/v1/webhook HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n";
    let (first, drop_by_drop) = match mode {
        Mode::Silent => return until_closed(&stream).await,
        Mode::Headers => (head.to_owned(), "X-A: b\r\n".to_owned()),
        Mode::Body => (format!("{head}Content-Length: 4096\r\n\r\n{{"), " ".to_owned()),
        Mode::Deaf => (String::new(), "GET /nowhere HTTP/1.1\r\nHost: bench\r\n\r\n".repeat(20)),
    };
    stream.write_all(first.as_bytes()).await?;
    loop {
        stream.write_all(drop_by_drop.as_bytes()).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn until_closed(stream: &TcpStream) -> io::Result<()> {
    stream.peek(&mut [0]).await.map(drop)
}

/// Good clients of `address` while slowhttptest is at `target`.
async fn beside_tool(target: SocketAddr, address: SocketAddr, connections: usize, length: Duration) -> Result<Paced> {
    let tools = slowhttptest(target, connections, GATHER + length + Duration::from_secs(1))?;
    tokio::time::sleep(GATHER).await;
    let paced = load::paced(address, CLIENTS, PAUSE, length).await?;
    for mut tool in tools {
        let status = tool.wait().await?;
        ensure!(status.success(), "slowhttptest: {status}");
    }
    Ok(paced)
}

/// Headers that do not end, bodies that do not, ranges that overlap, answers that nobody takes. On another machine they
/// would not take processor time from the gateway, so here they get what nobody else wants.
fn slowhttptest(target: SocketAddr, connections: usize, length: Duration) -> Result<Vec<Tool>> {
    let each = (connections / 4).to_string();
    let length = length.as_secs().to_string();
    let tool = |mode: &str| {
        let mut command = Command::new("chrt");
        command
            .args(["--idle", "0", "slowhttptest", mode])
            .args(["-c", &each, "-r", &each, "-l", &length, "-i", "1", "-p", "5", "-k", "10"]);
        command.args(["-w", "64", "-y", "128", "-f", "application/json"]);
        command.arg("-u").arg(format!("http://{target}/api/v1/webhook"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.spawn().context("slowhttptest does not start: apt-get install slowhttptest")
    };
    ["-H", "-B", "-R", "-X"].into_iter().map(tool).collect()
}
