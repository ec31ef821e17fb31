//! Accepted a second, processor time and memory of the gateway, against a bare hyper server under the same load.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::net::TcpStream;
use weir_core::config::Reader;
use weir_core::queue::Queue;
use weir_core::queue::server::Durability;
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_gateway::GatewayConfig;
use weir_stack::free_port;
use weir_stack::testing::redis_with;

use crate::bare::PORT;
use crate::child::{Child, cpu_of};
use crate::load;
use crate::report::Report;

/// Environment variable with the URL of Redis.
pub(crate) const REDIS: &str = "BENCH_REDIS";

/// Partitions of every queue here.
pub(crate) const PARTITIONS: u16 = 4;

pub(crate) async fn serve_gateway(durability: Durability) -> Result<()> {
    let mut reader = Reader::new(BTreeMap::new(), BTreeMap::new(), Path::new("/nonexistent"), false);
    let port: u16 = std::env::var(PORT)?.parse()?;
    let listen = vec![([127, 0, 0, 1], port).into()];
    let mut config = GatewayConfig { listen, durability, ..GatewayConfig::read(&mut reader) };
    // Nobody drains what these runs leave behind.
    config.bounds.backlog = 1 << 40;
    let queue = Queue::new(&SecretUrl::new(std::env::var(REDIS)?), PARTITIONS)?;
    weir_gateway::build(config, &queue)?.run(Shutdown::new()).await;
    Ok(())
}

/// Turns of both servers that a figure is the median of.
const ROUNDS: u32 = 5;

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One server's figures at one number of connections.
struct Side {
    rate: f64,
    cpu_micros: f64,
    redis_micros: f64,
}

pub(crate) async fn measure(report: &mut Report, seconds: u64) -> Result<()> {
    let length = Duration::from_secs(seconds);
    let redis = redis_with(&[("auto-aof-rewrite-percentage", "0")]).await;
    let redis_pid = redis.pid();
    let url = redis.url();
    for connections in [64, 256] {
        let (mut bare, mut disk) = (Vec::new(), Vec::new());
        // Turn by turn: the speed of a shared machine drifts, and a ratio has to come from the same minutes.
        for _ in 0..ROUNDS {
            bare.push(side(&["serve-bare"], &url, redis_pid, connections, length / ROUNDS).await?);
            disk.push(
                side(&["serve-gateway", "--durability", "disk"], &url, redis_pid, connections, length / ROUNDS).await?,
            );
        }
        let of = |pick: fn(&Side) -> f64, sides: &[Side]| median(sides.iter().map(pick).collect());
        let ratio = |pick: fn(&Side) -> f64| {
            median(disk.iter().zip(&bare).map(|(disk, bare)| pick(disk) / pick(bare)).collect())
        };
        report.add(format!("bare hyper, {connections} connections"), of(|side| side.rate, &bare), "/s", "");
        report.add(format!("gateway (disk), {connections} connections"), of(|side| side.rate, &disk), "/s", "");
        let goal = if connections == 64 { ">= 0.35" } else { ">= 0.45" };
        report.add(format!("gateway / bare, {connections} connections"), ratio(|side| side.rate), "", goal);
        report.add(
            format!("bare hyper CPU per request, {connections} connections"),
            of(|side| side.cpu_micros, &bare),
            "us",
            "",
        );
        report.add(
            format!("gateway CPU per request, {connections} connections"),
            of(|side| side.cpu_micros, &disk),
            "us",
            "",
        );
        report.add(
            format!("gateway CPU / bare CPU, {connections} connections"),
            ratio(|side| side.cpu_micros),
            "",
            "<= 1.6",
        );
        report.add(
            format!("Redis CPU per message, {connections} connections"),
            of(|side| side.redis_micros, &disk),
            "us",
            "",
        );
    }
    memory(report, &url, length).await?;
    drop(redis);
    memory_level(report, length).await
}

/// The same gateway with a Redis that writes nothing to disk: what durability costs.
async fn memory_level(report: &mut Report, length: Duration) -> Result<()> {
    let redis = redis_with(&[("appendonly", "no")]).await;
    let url = redis.url();
    let memory = side(&["serve-gateway", "--durability", "memory"], &url, redis.pid(), 256, length).await?;
    report.add("gateway (memory), 256 connections", memory.rate, "/s", "");
    Ok(())
}

pub(crate) async fn start(args: &[&str], redis: &str) -> Result<(Child, SocketAddr)> {
    let port = free_port()?;
    let child = Child::start(args, &[(PORT, port.to_string()), (REDIS, redis.to_owned())])?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    for _ in 0..500 {
        if TcpStream::connect(address).await.is_ok() && load::idle(address, 1).await.is_ok() {
            // A gateway answers 503 until its first look at Redis.
            tokio::time::sleep(Duration::from_millis(500)).await;
            return Ok((child, address));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{args:?} does not serve")
}

async fn side(args: &[&str], redis: &str, redis_pid: u32, connections: usize, length: Duration) -> Result<Side> {
    let (child, address) = start(args, redis).await?;
    let (cpu, redis_cpu) = (child.cpu()?, cpu_of(redis_pid)?);
    let found = load::run(address, connections, length).await?;
    // Warm-up and tail are in the processor time: scale by the whole run.
    let whole = length.as_secs_f64() + 1.0;
    let requests = found.rate() * whole;
    let side = Side {
        rate: found.rate(),
        cpu_micros: (child.cpu()? - cpu).as_secs_f64() * 1e6 / requests,
        redis_micros: (cpu_of(redis_pid)? - redis_cpu).as_secs_f64() * 1e6 / requests,
    };
    child.end().await;
    Ok(side)
}

/// Resident memory of a gateway with a thousand busy connections, and with ten thousand idle ones.
async fn memory(report: &mut Report, redis: &str, length: Duration) -> Result<()> {
    let (child, address) = start(&["serve-gateway", "--durability", "disk"], redis).await?;
    let before = child.memory()?;
    report.add("gateway memory at rest", before as f64 / 1e6, "MB", "");
    let idle = load::idle(address, 5000).await?;
    let bytes = (child.memory()? - before) as f64 / idle.len() as f64;
    report.add("gateway memory per idle connection", bytes / 1024.0, "KiB", "");
    drop(idle);
    child.end().await;
    let (child, address) = start(&["serve-gateway", "--durability", "disk"], redis).await?;
    load::run(address, 1000, length).await?;
    report.add("gateway memory at 1000 busy connections", child.memory()? as f64 / 1e6, "MB", "< 60");
    child.end().await;
    Ok(())
}
