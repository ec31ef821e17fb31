//! Stored a second from a backlog.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_core::queue::Queue;
use weir_store::testing;

use super::{Rivals, Scale, Turns};
use crate::child::Watched;
use crate::limits;
use crate::peers::{self, Peer};
use crate::report::{Report, Series};
use crate::stage::{self, PARTITIONS, Postgres, Redis};

pub(super) const ABOUT: &str = "Stored a second from a backlog, without any load beside it: one worker process of Weir, binary COPY of \
                                the same rows into the same tables (as many connections as the worker uses, transactions \
                                of 1,000), and the other systems with a backlog that they can drain in a while. Each into \
                                an empty database.";

pub(super) async fn measure(report: &mut Report, scale: &Scale, rivals: &mut Rivals) -> Result<()> {
    let postgres = Postgres::start().await?;
    let mut turns = Turns::default();
    let result = take_turns(report, scale, rivals, &postgres, &mut turns).await;
    turns.write(report);
    plot(report);
    result
}

async fn take_turns(
    report: &mut Report,
    scale: &Scale,
    rivals: &mut Rivals,
    postgres: &Postgres,
    turns: &mut Turns,
) -> Result<()> {
    for round in 1..=scale.long_rounds {
        report.step(format_args!("turn {round}: Weir"));
        weir(report, scale, postgres, turns).await?;
        report.step(format_args!("turn {round}: COPY"));
        let database = postgres.database().await?;
        let copied = limits::copy::measure(&database, postgres.pid(), scale.backlog).await?;
        postgres.drop(&database).await?;
        let title = format!("COPY over {} connections", limits::copy::CONNECTIONS);
        turns.push("drain.copy.rate", format!("{title}: rows of messages"), "/s", copied.rate);
        turns.push("drain.copy.postgres_cpu", format!("{title}: CPU of PostgreSQL"), "us", copied.postgres_micros);
        for peer in rivals.all() {
            report.step(format_args!("turn {round}: {}", peer.name));
            if let Err(error) = rival(peer, scale, postgres, turns).await {
                rivals.failed(report, "drain", peer, &error);
            }
        }
    }
    Ok(())
}

async fn weir(report: &Report, scale: &Scale, postgres: &Postgres, turns: &mut Turns) -> Result<()> {
    let redis = Redis::on_disk().await?;
    let queue = redis.queue(PARTITIONS).await?;
    stage::fill(&queue, scale.backlog, |done| report.step(format_args!("filling, {done} of {}", scale.backlog)))
        .await?;
    let database = postgres.database().await?;
    let drained = drain(report, &redis, &queue, postgres, &database, 1, scale.backlog).await?;
    let rows = testing::number(&database, "SELECT count(*) FROM messages").await?;
    ensure!(rows as usize == scale.backlog, "{rows} rows of {} messages", scale.backlog);
    turns.push("drain.weir.rate", "Weir, one worker: stored", "/s", drained.rate);
    turns.push("drain.weir.worker_cpu", "Weir: CPU of the worker per message", "us", drained.worker_micros);
    turns.push("drain.weir.redis_cpu", "Weir: CPU of Redis per message", "us", drained.redis_micros);
    turns.push("drain.weir.postgres_cpu", "Weir: CPU of PostgreSQL per message", "us", drained.postgres_micros);
    let left = streams(&queue).await? as f64 / scale.backlog as f64;
    turns.push("drain.weir.left", "Weir: bytes of the streams after the drain per message", "bytes", left);
    postgres.drop(&database).await
}

/// Bytes of Redis that the streams take.
async fn streams(queue: &Queue) -> Result<u64> {
    let mut bytes = 0;
    for partition in 0..queue.partitions() {
        let mut ask = redis::cmd("MEMORY");
        ask.arg("USAGE").arg(&queue.keys(partition).ingest).arg("SAMPLES").arg(0);
        bytes += queue.command::<Option<u64>>(&ask).await?.unwrap_or(0);
    }
    Ok(bytes)
}

pub(super) struct Drained {
    pub(super) rate: f64,
    pub(super) worker_micros: f64,
    redis_micros: f64,
    pub(super) postgres_micros: f64,
}

/// Longest time without any progress.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets workers store a backlog that is there. The rate counts from the first message that is stored.
pub(super) async fn drain(
    report: &Report,
    redis: &Redis,
    queue: &Queue,
    postgres: &Postgres,
    database: &str,
    workers: usize,
    backlog: usize,
) -> Result<Drained> {
    let before = queue.balance().await?.stored;
    let cpu = |watched: Watched<'_>| watched.cpu();
    let servers = [cpu(Watched::One(redis.pid()))?, cpu(Watched::Tree(postgres.pid()))?];
    let children = (0..workers)
        .map(|_| stage::worker(&redis.url(), database, queue.partitions(), None))
        .collect::<Result<Vec<_>>>()?;
    let (mut first, mut last, mut moved) = (None, 0, Instant::now());
    while last < backlog {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let balance = queue.balance().await?;
        let stored = (balance.stored - before) as usize;
        if stored > last {
            (last, moved) = (stored, Instant::now());
            first.get_or_insert((moved, stored));
            report.step(format_args!("{workers} worker(s), {stored} of {backlog} stored"));
        }
        ensure!(moved.elapsed() < PATIENCE, "nothing was stored for a minute: {last} of {backlog} are, {balance:?}");
    }
    let worker = children.iter().map(|child| child.cpu()).sum::<Result<Duration>>()?;
    let [redis_cpu, postgres_cpu] =
        [cpu(Watched::One(redis.pid()))? - servers[0], cpu(Watched::Tree(postgres.pid()))?.saturating_sub(servers[1])];
    for child in children {
        child.end().await;
    }
    let (since, stored) = first.unwrap_or((moved, 0));
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / backlog as f64;
    Ok(Drained {
        rate: (last - stored) as f64 / (moved - since).as_secs_f64(),
        worker_micros: micros(worker),
        redis_micros: micros(redis_cpu),
        postgres_micros: micros(postgres_cpu),
    })
}

async fn rival(peer: Peer, scale: &Scale, postgres: &Postgres, turns: &mut Turns) -> Result<()> {
    let (redis, database) = (Redis::on_disk().await?, postgres.database().await?);
    let serving = peer.serve(&redis.url(), &database).await?;
    let filled = peers::fill(serving.address(), scale.peer_backlog).await;
    serving.stop().await?;
    filled?;
    let before = Watched::Tree(postgres.pid()).cpu()?;
    let workers = peer.work(&redis.url(), &database)?;
    let drained = peers::drained(&workers, &database, scale.peer_backlog).await;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / scale.peer_backlog as f64;
    let (own, server) = (workers.cpu()?, Watched::Tree(postgres.pid()).cpu()?.saturating_sub(before));
    workers.stop().await?;
    let rate = drained?;
    peers::check(&database, scale.peer_backlog).await?;
    let id = |what: &str| format!("drain.{}.{what}", peer.folder);
    turns.push(id("rate"), format!("{}: stored", peer.name), "/s", rate);
    turns.push(id("worker_cpu"), format!("{}: CPU of the workers per message", peer.name), "us", micros(own));
    turns.push(id("postgres_cpu"), format!("{}: CPU of PostgreSQL per message", peer.name), "us", micros(server));
    postgres.drop(&database).await
}

fn plot(report: &mut Report) {
    let sides = [
        ("copy", "COPY"),
        ("weir", "Weir"),
        ("axum-apalis", "axum + apalis"),
        ("fastify-bullmq", "Fastify + BullMQ"),
        ("fastapi-arq", "FastAPI + arq"),
    ];
    let value = |id: String| report.found(&id).map_or(f64::NAN, |figure| figure.value);
    let bars = sides.map(|(side, title)| (title, value(format!("drain.{side}.rate"))));
    report.plot("Stored a second from a backlog", ["", "messages/s"], vec![Series::bars("stored/s", &bars)]);
}
