//! End to end: accepting and storing at once on the same cores.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use uuid::Uuid;
use weir_core::message::MessageKey;
use weir_core::queue::Queue;
use weir_store::testing::{self, Session};

use super::{Rivals, Scale};
use crate::child::{Child, Watched};
use crate::load::{Aim, Found, Http1, Maker, Mix, Target, drive};
use crate::peers::{Peer, Running};
use crate::report::{Report, Series};
use crate::stage::{self, Gateway, PARTITIONS, Postgres, Redis, Served};

pub(super) const ABOUT: &str = "End to end, with load, accepting, queue, storing and database on the same cores. Sustained is the \
                                highest rate of an open loop at which 98 of 100 messages are accepted, 99 of 100 answers \
                                come within a quarter of a second, and no more than a quarter of a second's messages wait \
                                at the end of a step; found by doubling and halving. \
                                Visible is the time from a sampled message's answer until a query by its key finds its \
                                row; asked about once a millisecond over two connections of their own.";

const CONNECTIONS: usize = 256;

/// The rates with which the search begins.
const WEIR_FIRST: f64 = 4000.0;
const PEER_FIRST: f64 = 500.0;

/// How far accepting and storing may lag behind.
const LAG: Duration = Duration::from_millis(250);

/// Longest time that a backlog may take after a step.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn measure(report: &mut Report, scale: &Scale, rivals: &mut Rivals) -> Result<()> {
    let postgres = Postgres::start().await?;
    weir(report, scale, &postgres).await?;
    for peer in rivals.all() {
        if let Err(error) = rival(report, scale, &postgres, peer).await {
            rivals.failed(report, "whole", peer, &error);
        }
    }
    let bars = [
        ("weir", "Weir"),
        ("axum-apalis", "axum + apalis"),
        ("fastify-bullmq", "Fastify + BullMQ"),
        ("fastapi-arq", "FastAPI + arq"),
    ]
    .map(|(id, title)| (title, report.found(&format!("whole.{id}.rate")).map_or(f64::NAN, |figure| figure.value)));
    report.plot("Sustained end to end", ["", "messages/s"], vec![Series::bars("sustained/s", &bars)]);
    Ok(())
}

/// A system that accepts and stores.
struct System<'s> {
    title: &'s str,
    address: SocketAddr,
    database: &'s str,
    redis: u32,
    postgres: u32,
    parts: Parts<'s>,
}

enum Parts<'s> {
    Weir { gateway: &'s Served, worker: &'s Child, queue: &'s Queue },
    Peer { serving: &'s Running, working: &'s Running },
}

impl System<'_> {
    /// Messages that are in the database.
    async fn stored(&self) -> Result<u64> {
        match &self.parts {
            Parts::Weir { queue, .. } => Ok(queue.balance().await?.stored),
            Parts::Peer { .. } => {
                Ok(testing::number(self.database, "SELECT count(*) FROM event_keys").await?.unsigned_abs())
            }
        }
    }

    /// Accepting, storing, Redis, PostgreSQL.
    fn watched(&self) -> [Watched<'_>; 4] {
        let (accepting, storing) = match &self.parts {
            Parts::Weir { gateway, worker, .. } => (Watched::One(gateway.child.pid()), Watched::One(worker.pid())),
            Parts::Peer { serving, working } => (Watched::Peer(serving), Watched::Peer(working)),
        };
        [accepting, storing, Watched::One(self.redis), Watched::Tree(self.postgres)]
    }
}

async fn weir(report: &mut Report, scale: &Scale, postgres: &Postgres) -> Result<()> {
    let (redis, database) = (Redis::on_disk().await?, postgres.database().await?);
    let queue = redis.queue(PARTITIONS).await?;
    let gateway = Gateway::DISK.start(&redis.url()).await?;
    let worker = stage::worker(&redis.url(), &database, PARTITIONS, None)?;
    let system = System {
        title: "Weir",
        address: gateway.address,
        database: &database,
        redis: redis.pid(),
        postgres: postgres.pid(),
        parts: Parts::Weir { gateway: &gateway, worker: &worker, queue: &queue },
    };
    let best = sustained(report, scale, &system, WEIR_FIRST).await?;
    note(report, "weir", &system, &best);
    visible(report, scale, &system, best.rate / 4.0).await?;
    gateway.child.end().await;
    worker.end().await;
    postgres.drop(&database).await
}

async fn rival(report: &mut Report, scale: &Scale, postgres: &Postgres, peer: Peer) -> Result<()> {
    let (redis, database) = (Redis::on_disk().await?, postgres.database().await?);
    let serving = peer.serve(&redis.url(), &database).await?;
    let working = peer.work(&redis.url(), &database)?;
    let system = System {
        title: peer.name,
        address: serving.address(),
        database: &database,
        redis: redis.pid(),
        postgres: postgres.pid(),
        parts: Parts::Peer { serving: &serving, working: &working },
    };
    let best = sustained(report, scale, &system, PEER_FIRST).await;
    if let Ok(best) = &best {
        note(report, peer.folder, &system, best);
    }
    serving.stop().await?;
    working.stop().await?;
    best?;
    postgres.drop(&database).await
}

/// A rate that held.
struct Held {
    rate: f64,
    found: Found,
}

fn note(report: &mut Report, id: &str, system: &System<'_>, held: &Held) {
    let title = system.title;
    report.put(format!("whole.{id}.rate"), format!("{title}: sustained"), "/s", vec![held.rate]);
    let p99 = held.found.tally.quantile_ms(0.99);
    report.put(format!("whole.{id}.p99"), format!("{title}: p99 of accept at that rate"), "ms", vec![p99]);
    for (at, part) in ["gateway", "worker", "redis", "postgres"].into_iter().enumerate() {
        let name = format!("{title}: CPU of {part} per message at that rate");
        report.put(format!("whole.{id}.cpu.{part}"), name, "us", vec![held.found.micros(at)]);
    }
    report.put(
        format!("whole.{id}.cpu.load"),
        format!("{title}: CPU of the load per message"),
        "us",
        vec![held.found.own_micros()],
    );
}

/// Doubles the rate until it does not hold, or halves it until it does, and then halves the interval.
async fn sustained(report: &Report, scale: &Scale, system: &System<'_>, first: f64) -> Result<Held> {
    // Pools, caches and plans are made before anything counts.
    step(report, scale, system, first / 4.0).await?;
    let (mut rate, mut best, mut failed) = (first, None, None);
    while best.is_none() || failed.is_none() {
        match step(report, scale, system, rate).await? {
            Some(held) => {
                best = Some(held);
                rate *= 2.0;
            }
            None => {
                failed = Some(rate);
                rate /= 2.0;
            }
        }
        ensure!(rate > 10.0, "{} does not sustain 10 messages a second", system.title);
        ensure!(rate < 1e6, "{} sustains more than can be sent", system.title);
    }
    let (Some(mut best), Some(mut failed)) = (best, failed) else { unreachable!("the loop ends with both") };
    for _ in 0..scale.halvings {
        let middle = (best.rate * failed).sqrt();
        match step(report, scale, system, middle).await? {
            Some(held) => best = held,
            None => failed = middle,
        }
    }
    Ok(best)
}

/// One try of a rate; `None` if it does not hold. Ends with nothing left to store.
async fn step(report: &Report, scale: &Scale, system: &System<'_>, rate: f64) -> Result<Option<Held>> {
    report.step(format_args!("{} at {rate:.0}/s", system.title));
    let before = system.stored().await?;
    // Everything that is sent counts: what waits is the difference between two sums.
    let aim = Aim { warm_up: Duration::ZERO, ..Aim::open(system.address, CONNECTIONS, rate, scale.step) };
    let found = drive(&aim, &system.watched()).await?;
    let accepted = found.tally.accepted;
    let waiting = accepted.saturating_sub(system.stored().await?.saturating_sub(before));
    let holds = accepted as f64 >= 0.98 * rate * scale.step.as_secs_f64()
        && found.tally.quantile_ms(0.99) <= LAG.as_secs_f64() * 1e3
        && (waiting as f64) <= (rate * LAG.as_secs_f64()).max(20.0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stored = system.stored().await? - before;
        if stored >= accepted {
            return Ok(holds.then_some(Held { rate, found }));
        }
        report.step(format_args!("{} had {rate:.0}/s, {} wait", system.title, accepted - stored));
        ensure!(Instant::now() < deadline, "{}: {} were not stored", system.title, accepted - stored);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How long after its answer a message is a row that others see.
async fn visible(report: &mut Report, scale: &Scale, system: &System<'_>, rate: f64) -> Result<()> {
    report.step(format_args!("visible rows at {rate:.0}/s"));
    let aim = Aim::open(system.address, CONNECTIONS, rate, scale.visible);
    let end = Instant::now() + scale.visible;
    let samplers: Vec<_> =
        (0..2).map(|_| tokio::spawn(sample(system.address, system.database.to_owned(), end))).collect();
    let found = drive(&aim, &[]).await?.sound()?;
    let mut all = Vec::new();
    for sampler in samplers {
        all.extend(sampler.await??);
    }
    all.sort_unstable();
    ensure!(all.len() >= 50, "only {} messages were followed", all.len());
    let at = |share: usize| all[(all.len() * share / 100).min(all.len() - 1)].as_secs_f64() * 1e3;
    report.put("whole.visible.rate", "rate while rows were awaited", "/s", vec![found.rate()]);
    report.put("whole.visible.p50", "from answer to visible row, p50", "ms", vec![at(50)]);
    report.put("whole.visible.p99", "from answer to visible row, p99", "ms", vec![at(99)]);
    report.put("whole.visible.of", "messages that were followed", "", vec![all.len() as f64]);
    Ok(())
}

/// Sends one message at a time and asks until its row is there.
async fn sample(address: SocketAddr, database: String, end: Instant) -> Result<Vec<Duration>> {
    let mut connection = Http1::connect(address).await?;
    let mut session = Session::open(&database).await?;
    let mut maker = Maker::new(&Mix::default(), &Target::webhook(1), rand::random(), 0);
    let mut took = Vec::new();
    // The first seconds are the load's warm-up.
    tokio::time::sleep(Duration::from_secs(1)).await;
    while Instant::now() < end {
        maker.turn();
        let status = connection.exchange(maker.request()).await?.status;
        let answered = Instant::now();
        ensure!((200..300).contains(&status), "a sampled message was answered with {status}");
        let key = Uuid::from_bytes(MessageKey::new("messenger", &maker.last_id()).0);
        while !session.is_stored(key).await? {
            ensure!(answered.elapsed() < PATIENCE, "a sampled message does not become a row");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        took.push(answered.elapsed());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    Ok(took)
}
