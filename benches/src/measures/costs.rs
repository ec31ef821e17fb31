//! What one message costs each part.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use weir_core::queue::Queue;
use weir_store::testing;

use super::{Scale, Turns};
use crate::child::{Child, Watched};
use crate::load::{Aim, Http1, Maker, Mix, Target, drive};
use crate::report::Report;
use crate::stage::{self, Gateway, PARTITIONS, Postgres, Redis, Served};

pub(super) const ABOUT: &str = "What one message costs gateway, Redis, worker and PostgreSQL: processor time, bytes on the wire \
                                (of the protocols, without TCP and IP) and on disk, and syncs, from answer to row, in an \
                                open loop at nine tenths (busy) and two tenths (quiet) of the rate that end to end sustains. For reckoning with other rates: \
                                docs/SCALING.md.";

const CONNECTIONS: usize = 64;

/// How much of the rate that holds end to end: the less there is to do, the smaller are all batches and the more a message
/// costs.
struct Pace {
    id: &'static str,
    title: &'static str,
    share: f64,
}

const PACES: [Pace; 2] =
    [Pace { id: "costs", title: "busy", share: 0.9 }, Pace { id: "costs.quiet", title: "quiet", share: 0.2 }];

/// The rate that holds if the part `whole` was not measured.
const RATE: f64 = 8000.0;

/// Longest time that the last message may take to become a row.
const PATIENCE: Duration = Duration::from_secs(60);

/// An idle session of PostgreSQL tells its statistics ten seconds late.
const STATISTICS: Duration = Duration::from_secs(11);

/// What is read before and after a turn, in the order of [`Stand::read`].
const COSTS: [(&str, &str, &str); 18] = [
    ("gateway.cpu", "gateway: processor time", "us"),
    ("worker.cpu", "worker: processor time", "us"),
    ("redis.cpu", "Redis: processor time", "us"),
    ("postgres.cpu", "PostgreSQL: processor time", "us"),
    ("redis.in", "Redis: wire, to it", "bytes"),
    ("redis.out", "Redis: wire, from it", "bytes"),
    ("redis.log", "Redis: append-only file", "bytes"),
    ("redis.disk", "Redis: written to disk, in whole pages", "bytes"),
    ("redis.batches", "Redis: batches of the gateway", ""),
    ("redis.reads", "Redis: reads of the worker", ""),
    ("redis.settles", "Redis: settled batches of the worker", ""),
    ("postgres.in", "PostgreSQL: wire, to it", "bytes"),
    ("postgres.out", "PostgreSQL: wire, from it", "bytes"),
    ("postgres.wal", "PostgreSQL: WAL", "bytes"),
    ("postgres.tables", "PostgreSQL: tables and indexes", "bytes"),
    ("postgres.keys", "PostgreSQL: table of the keys alone", "bytes"),
    ("postgres.keys_index", "PostgreSQL: index of the keys alone", "bytes"),
    ("postgres.syncs", "PostgreSQL: syncs of the WAL", ""),
];

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let sustained = report.found("whole.weir.rate").map_or(RATE, |figure| figure.value);
    let stand = Stand::start().await?;
    let mut turns = Turns::default();
    of_http(&stand, &mut turns).await?;
    // Pools, caches and plans are made before anything counts.
    report.step("warming up");
    stand.load(0.5 * sustained, scale.step).await?;
    let mut syncs = stand.syncs().await?;
    for round in 1..=scale.long_rounds {
        for pace in &PACES {
            report.step(format_args!("turn {round}: {}", pace.title));
            syncs = turn(&stand, pace, sustained, scale.step, syncs, &mut turns).await?;
        }
    }
    turns.write(report);
    stand.end().await
}

/// All parts, at work.
struct Stand {
    redis: Redis,
    queue: Queue,
    postgres: Postgres,
    database: String,
    gateway: Served,
    worker: Child,
}

impl Stand {
    async fn start() -> Result<Self> {
        let (redis, postgres) = (Redis::on_disk().await?, Postgres::start().await?);
        let (queue, database) = (redis.queue(PARTITIONS).await?, postgres.database().await?);
        let gateway = Gateway::DISK.start(&redis.url()).await?;
        let worker = stage::worker(&redis.url(), &database, PARTITIONS, None)?;
        Ok(Self { redis, queue, postgres, database, gateway, worker })
    }

    /// Sends for so long and waits until everything is stored; gives how many messages that were.
    async fn load(&self, rate: f64, length: Duration) -> Result<f64> {
        let before = self.queue.balance().await?.accepted;
        let aim = Aim { warm_up: Duration::ZERO, ..Aim::open(self.gateway.address, CONNECTIONS, rate, length) };
        drive(&aim, &[]).await?.sound()?;
        let end = Instant::now() + PATIENCE;
        loop {
            let balance = self.queue.balance().await?;
            if balance.stored == balance.accepted {
                return Ok((balance.accepted - before) as f64);
            }
            ensure!(Instant::now() < end, "messages do not become rows: {balance:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything since the servers began but the last.
    async fn read(&self) -> Result<[f64; COSTS.len() - 1]> {
        let micros = |watched: Watched<'_>| anyhow::Ok(watched.cpu()?.as_secs_f64() * 1e6);
        let state = self.queue.server_state().await?;
        let info = |name: &str| state.info(name).parse::<f64>().with_context(|| format!("Redis tells no {name}"));
        let commands: String = self.queue.command(redis::cmd("INFO").arg("commandstats")).await?;
        let (sent, received) = wire(self.postgres.port()).await?;
        Ok([
            micros(Watched::One(self.gateway.child.pid()))?,
            micros(Watched::One(self.worker.pid()))?,
            micros(Watched::One(self.redis.pid()))?,
            micros(Watched::Tree(self.postgres.pid()))?,
            info("total_net_input_bytes")?,
            info("total_net_output_bytes")?,
            info("aof_current_size")?,
            written(self.redis.pid())?,
            calls(&commands, "exec"),
            calls(&commands, "xreadgroup"),
            calls(&commands, "xack"),
            sent,
            received,
            self.number("SELECT (pg_current_wal_lsn() - '0/0')::bigint").await?,
            self.number("SELECT pg_database_size(current_database())").await?,
            self.number("SELECT pg_relation_size('event_keys')").await?,
            self.number("SELECT pg_relation_size('event_keys_pkey')").await?,
        ])
    }

    async fn syncs(&self) -> Result<f64> {
        tokio::time::sleep(STATISTICS).await;
        self.number("SELECT wal_sync FROM pg_stat_wal").await
    }

    async fn number(&self, sql: &str) -> Result<f64> {
        Ok(testing::number(&self.database, sql).await? as f64)
    }

    async fn end(self) -> Result<()> {
        self.gateway.child.end().await;
        self.worker.end().await;
        self.postgres.drop(&self.database).await
    }
}

/// One turn; takes and gives the syncs of PostgreSQL so far.
async fn turn(
    stand: &Stand,
    pace: &Pace,
    sustained: f64,
    length: Duration,
    syncs_before: f64,
    turns: &mut Turns,
) -> Result<f64> {
    let Pace { id: of, title: how, share } = pace;
    let before = stand.read().await?;
    let messages = stand.load(share * sustained, length).await?;
    let (after, syncs) = (stand.read().await?, stand.syncs().await?);
    let spent = after.iter().zip(before).map(|(after, before)| after - before).chain([syncs - syncs_before]);
    let rate = messages / length.as_secs_f64();
    turns.push(format!("{of}.rate"), format!("{how}: accepted and stored"), "/s", rate);
    for ((id, title, unit), spent) in COSTS.into_iter().zip(spent) {
        turns.push(format!("{of}.{id}"), format!("{how}: {title}, per message"), unit, spent / messages);
    }
    for (part, child) in [("gateway", &stand.gateway.child), ("worker", &stand.worker)] {
        let megabytes = child.memory()? as f64 / 1e6;
        turns.push(format!("{of}.{part}.memory"), format!("{how}: {part}: resident memory"), "MB", megabytes);
    }
    Ok(syncs)
}

/// A request of the usual load and its answer, as they are on the wire over HTTP/1.1.
async fn of_http(stand: &Stand, turns: &mut Turns) -> Result<()> {
    let mut maker = Maker::new(&Mix::default(), &Target::webhook(1), rand::random(), 0);
    maker.turn();
    let mut connection = Http1::connect(stand.gateway.address).await?;
    let status = connection.exchange(maker.request()).await?.status;
    ensure!(status == 202, "a message was answered with {status}");
    turns.push("costs.gateway.in", "gateway: wire, to it, per message", "bytes", maker.request().len() as f64);
    turns.push("costs.gateway.out", "gateway: wire, from it, per message", "bytes", connection.answered() as f64);
    Ok(())
}

/// Bytes that a process has caused to be written to disk.
fn written(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).context("what Redis writes to disk cannot be read")?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse().ok());
    bytes.context("/proc tells no write_bytes")
}

/// How often a command was executed, as `INFO commandstats` says.
fn calls(commands: &str, name: &str) -> f64 {
    let start = format!("cmdstat_{name}:calls=");
    let line = commands.lines().find_map(|line| line.strip_prefix(&start));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0.0)
}

/// Bytes that went to and came from whoever listens on this port, over the connections that are open.
async fn wire(port: u16) -> Result<(f64, f64)> {
    let mut command = Command::new("ss");
    command.args(["--tcp", "--numeric", "--info", "--no-header", "dport", "=", &format!(":{port}")]);
    let output = command.stdin(Stdio::null()).output().await.context("ss does not start: apt-get install iproute2")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
    Ok((sum(&text, "bytes_sent:"), sum(&text, "bytes_received:")))
}

fn sum(text: &str, name: &str) -> f64 {
    text.split_whitespace().filter_map(|word| word.strip_prefix(name)?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_command_are_read() {
        let text = "# Commandstats\r\ncmdstat_xread:calls=5,usec=1\r\ncmdstat_xreadgroup:calls=12,usec=7\r\n";
        assert_eq!((calls(text, "xreadgroup"), calls(text, "exec")), (12.0, 0.0));
    }

    #[test]
    fn bytes_of_all_connections_are_added() {
        let text = "ESTAB 0 0 a:1 b:2\n\t cubic bytes_sent:20 bytes_acked:21 bytes_received:5 segs_out:3\n\
                    ESTAB 0 0 a:3 b:2\n\t cubic bytes_sent:1 bytes_received:2\n";
        assert_eq!((sum(text, "bytes_sent:"), sum(text, "bytes_received:")), (21.0, 7.0));
    }
}
