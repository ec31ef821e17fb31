//! Load in a closed loop: so many kept-alive connections, each with one request at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a run of load found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) answers: u64,
    /// Answers that were no 2xx.
    pub(crate) refused: u64,
    pub(crate) seconds: f64,
}

impl Found {
    pub(crate) fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds
    }
}

#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// One request with a new id. Clients are spread so that no client's limit is met.
fn request(run: u32, id: u64) -> Vec<u8> {
    let body = format!(
        "{{\"external_message_id\":\"{run:08x}{:024x}\",\"external_client_id\":\"fedcba0987654321abcdef12{:08x}\",\
         \"client_phone\":\"+7919{:07}\",\"message_text\":\"Здравствуйте! Где мой заказ?\",\"send_at\":1760000000}}",
        id,
        id % 100_000,
        id % 100_000
    );
    format!(
        "POST /api/v1/webhook HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Loads `address` for a while, after a second to warm up.
pub(crate) async fn run(address: SocketAddr, connections: usize, length: Duration) -> Result<Found> {
    let counts = Arc::new(Counts::default());
    let run: u32 = rand::random();
    let mut tasks = Vec::new();
    for connection in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        tasks.push(tokio::spawn(drive(stream, run, (connection as u64) << 32, counts.clone())));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let read = || (counts.answers.load(Ordering::Relaxed), counts.refused.load(Ordering::Relaxed), Instant::now());
    let (answers, refused, started) = read();
    tokio::time::sleep(length).await;
    let (answers_end, refused_end, ended) = read();
    counts.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    let found = Found {
        answers: answers_end - answers,
        refused: refused_end - refused,
        seconds: (ended - started).as_secs_f64(),
    };
    if found.refused > found.answers / 100 {
        bail!("{} of {} answers were no 2xx", found.refused, found.answers);
    }
    Ok(found)
}

async fn drive(mut stream: TcpStream, run: u32, first: u64, counts: Arc<Counts>) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    let mut id = first;
    while !counts.stop.load(Ordering::Relaxed) {
        stream.write_all(&request(run, id)).await?;
        let good = read_answer(&mut stream, &mut buffer).await?;
        counts.answers.fetch_add(1, Ordering::Relaxed);
        if !good {
            counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        id += 1;
    }
    Ok(())
}

/// What clients met that do not hurry.
#[derive(Default)]
pub(crate) struct Paced {
    /// Of each 2xx, in order.
    pub(crate) latencies: Vec<Duration>,
    /// Answers that were no 2xx, and connections that failed.
    pub(crate) errors: u64,
}

impl Paced {
    pub(crate) fn p99(&self) -> Duration {
        self.latencies.get(self.latencies.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// Clients that wait a while between their requests, and connect anew now and then.
pub(crate) async fn paced(address: SocketAddr, clients: usize, pause: Duration, length: Duration) -> Result<Paced> {
    let (run, end) = (rand::random(), Instant::now() + length);
    let tasks: Vec<_> =
        (0..clients).map(|client| tokio::spawn(pace(address, run, (client as u64) << 32, pause, end))).collect();
    let mut all = Paced::default();
    for task in tasks {
        let one = task.await?;
        all.latencies.extend(one.latencies);
        all.errors += one.errors;
    }
    all.latencies.sort_unstable();
    Ok(all)
}

async fn pace(address: SocketAddr, run: u32, first: u64, pause: Duration, end: Instant) -> Paced {
    let (mut found, mut id) = (Paced::default(), first);
    while Instant::now() < end {
        if hundred(&mut found, address, run, &mut id, pause, end).await.is_err() {
            found.errors += 1;
        }
    }
    found
}

/// A hundred requests over a new connection, whose opening counts with the first of them.
async fn hundred(
    found: &mut Paced,
    address: SocketAddr,
    run: u32,
    id: &mut u64,
    pause: Duration,
    end: Instant,
) -> io::Result<()> {
    let mut started = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 4096];
    for _ in 0..100 {
        *id += 1;
        stream.write_all(&request(run, *id)).await?;
        match read_answer(&mut stream, &mut buffer).await? {
            true => found.latencies.push(started.elapsed()),
            false => found.errors += 1,
        }
        tokio::time::sleep(pause).await;
        started = Instant::now();
        if started >= end {
            break;
        }
    }
    Ok(())
}

/// Reads one answer; gives whether it is a 2xx.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
    read_whole(stream, buffer).await?;
    Ok(buffer.get(9) == Some(&b'2'))
}

/// Reads one answer with a Content-Length; gives its length.
pub(crate) async fn read_whole(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += n;
        if is_whole(&buffer[..filled]) {
            return Ok(filled);
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length =
        head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}

/// Connections that only stay open.
pub(crate) async fn idle(address: SocketAddr, connections: usize) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(connections);
    for id in 0..connections {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&request(u32::MAX, id as u64)).await?;
        read_answer(&mut stream, &mut [0; 4096]).await?;
        streams.push(stream);
    }
    Ok(streams)
}
