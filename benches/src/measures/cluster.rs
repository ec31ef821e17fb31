//! What more primaries add.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use weir_core::queue::Queue;
use weir_core::queue::enqueue::Enqueuer;
use weir_stack::testing::{Clustered, ClusteredRedis};

use super::{Scale, Turns};
use crate::child::{Watched, cpu_of};
use crate::load::{Aim, drive};
use crate::report::{Report, Series, median};
use crate::share;
use crate::stage::{self, Gateway};

pub(super) const ABOUT: &str = "Several primaries: a Redis Cluster of one and one of three, each with twelve partitions, filled by raw \
                                calls of the enqueue function and through gateways. All share the cores of one machine, on \
                                which three servers are no faster than one; therefore the kernel's deadline scheduler gives \
                                the main thread of each primary the same tenth of a core (2 ms in every 20, before everybody \
                                else and no longer), and a rate tells what so many tenths can do. Where the kernel does not \
                                allow that there are no rates, and processor time and shares stand alone.";

/// As many for each of three primaries as one server of its own has.
const PARTITIONS: u16 = 12;
const ALL_PRIMARIES: [usize; 2] = [1, 3];

/// Batches at the primaries at once: two gateways' worth.
const WRITERS: usize = 4;
const BATCH: usize = 256;
/// As many as a gateway takes however slow its Redis is.
const CONNECTIONS: usize = 512;
const WARM_UP: Duration = Duration::from_secs(1);

/// Who fills which cluster.
#[derive(Clone, Copy)]
struct Side {
    id: &'static str,
    title: &'static str,
    primaries: usize,
    by: By,
}

#[derive(Clone, Copy)]
enum By {
    /// Raw calls of so many messages.
    Calls(usize),
    /// So many gateways.
    Gateways(usize),
}

const SIDES: [Side; 6] = [
    Side { id: "calls.1", title: "1 primary, calls of 256", primaries: 1, by: By::Calls(BATCH) },
    Side { id: "calls.3", title: "3 primaries, calls of 3 x 256", primaries: 3, by: By::Calls(3 * BATCH) },
    Side { id: "calls.3.small", title: "3 primaries, calls of 256", primaries: 3, by: By::Calls(BATCH) },
    Side { id: "gateway.1", title: "1 primary, 1 gateway", primaries: 1, by: By::Gateways(1) },
    Side { id: "gateway.3", title: "3 primaries, 3 gateways", primaries: 3, by: By::Gateways(3) },
    Side { id: "gateway.3.alone", title: "3 primaries, 1 gateway", primaries: 3, by: By::Gateways(1) },
];

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let mut clusters = Vec::new();
    for primaries in ALL_PRIMARIES {
        report.step(format_args!("starting {primaries} primaries"));
        clusters.push(Cluster::start(primaries).await?);
    }
    for cluster in &clusters {
        note_partitions(report, cluster);
    }
    let refusal = hold(&clusters).await.err();
    let mut turns = Turns::default();
    let result = take_turns(report, scale, &clusters, refusal.is_none(), &mut turns).await;
    turns.write(report);
    if let Some(refusal) = refusal {
        for side in SIDES {
            report.beside(&format!("cluster.{}.redis_cpu", side.id), format_args!("no rates: {refusal:#}"));
        }
    }
    plot(report);
    result
}

/// Gives every primary its share of a core.
async fn hold(clusters: &[Cluster]) -> Result<()> {
    for pid in clusters.iter().flat_map(Cluster::pids) {
        share::hold(pid).await?;
    }
    Ok(())
}

async fn take_turns(
    report: &Report,
    scale: &Scale,
    clusters: &[Cluster],
    is_held: bool,
    turns: &mut Turns,
) -> Result<()> {
    for round in 1..=scale.rounds {
        for side in SIDES {
            report.step(format_args!("turn {round}: {}", side.title));
            let cluster = clusters.iter().find(|cluster| cluster.pids().len() == side.primaries);
            let Some(cluster) = cluster else { continue };
            cluster.empty().await?;
            let filled = side.fill(cluster, scale.turn).await?;
            let shares = cluster.shares().await?;
            note(turns, side, &filled, &shares, is_held);
        }
    }
    Ok(())
}

fn note(turns: &mut Turns, side: Side, filled: &Filled, shares: &[f64], is_held: bool) {
    let id = |what: &str| format!("cluster.{}.{what}", side.id);
    let name = |what: &str| format!("{}: {what}", side.title);
    if is_held {
        turns.push(id("rate"), name("messages"), "/s", filled.messages / filled.seconds);
    }
    let all: Duration = filled.redis.iter().sum();
    turns.push(id("redis_cpu"), name("CPU of Redis per message"), "us", micros(all, filled.messages));
    for (number, (cpu, share)) in filled.redis.iter().zip(shares).enumerate() {
        let each = micros(*cpu, filled.messages * share);
        let title = name(&format!("CPU of primary {} per own message", number + 1));
        turns.push(id(&format!("redis_cpu.{}", number + 1)), title, "us", each);
    }
    turns.push(id("busiest"), name("messages of the busiest primary"), "%", 100.0 * busiest(shares));
    if let Some(gateway) = filled.gateway {
        turns.push(id("cpu"), name("CPU of the gateways per message"), "us", micros(gateway, filled.messages));
    }
}

fn micros(time: Duration, messages: f64) -> f64 {
    time.as_secs_f64() * 1e6 / messages
}

fn busiest(shares: &[f64]) -> f64 {
    shares.iter().copied().fold(0.0, f64::max)
}

fn note_partitions(report: &mut Report, cluster: &Cluster) {
    let primaries = cluster.pids().len();
    let counts: Vec<f64> =
        (0..primaries).map(|primary| cluster.owners.iter().filter(|owner| **owner == primary).count() as f64).collect();
    let (least, most) = (counts.iter().copied().fold(f64::MAX, f64::min), counts.iter().copied().fold(0.0, f64::max));
    for (what, value) in [("least", least), ("most", most)] {
        let title = format!("of {primaries}: partitions of a primary, {what}");
        report.put(format!("cluster.{primaries}.partitions.{what}"), title, "", vec![value]);
    }
}

/// What was done between two moments.
struct Filled {
    messages: f64,
    seconds: f64,
    /// Processor time of each primary.
    redis: Vec<Duration>,
    /// Of all gateways.
    gateway: Option<Duration>,
}

impl Side {
    async fn fill(self, cluster: &Cluster, length: Duration) -> Result<Filled> {
        match self.by {
            By::Calls(batch) => calls(cluster, batch, length).await,
            By::Gateways(count) => through_gateways(cluster, count, length).await,
        }
    }
}

async fn calls(cluster: &Cluster, batch: usize, length: Duration) -> Result<Filled> {
    let enqueuer = Arc::new(stage::enqueuer(cluster.queue.on_own_link(Duration::from_secs(10))));
    let appended = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + WARM_UP + length;
    let write = |_| tokio::spawn(write(enqueuer.clone(), batch, until, appended.clone()));
    let writers: Vec<_> = (0..WRITERS).map(write).collect();
    tokio::time::sleep(WARM_UP).await;
    let before = (Instant::now(), appended.load(Ordering::Relaxed), cluster.cpu()?);
    tokio::time::sleep(length).await;
    let (took, messages) = (before.0.elapsed(), appended.load(Ordering::Relaxed) - before.1);
    let redis = cluster.cpu()?.iter().zip(before.2).map(|(after, before)| after.saturating_sub(before)).collect();
    for writer in writers {
        writer.await??;
    }
    Ok(Filled { messages: messages as f64, seconds: took.as_secs_f64(), redis, gateway: None })
}

async fn write(enqueuer: Arc<Enqueuer>, batch: usize, until: Instant, appended: Arc<AtomicU64>) -> Result<()> {
    let run = rand::random();
    let mut next = 0;
    while Instant::now() < until {
        let entries: Vec<_> = (next..next + batch).map(|number| stage::entry(run, number)).collect();
        next += batch;
        for result in enqueuer.enqueue(&entries).await {
            result?;
        }
        appended.fetch_add(batch as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Each gateway has as many connections, however many there are.
async fn through_gateways(cluster: &Cluster, count: usize, length: Duration) -> Result<Filled> {
    let mut gateways = Vec::new();
    for _ in 0..count {
        gateways.push(Gateway { partitions: PARTITIONS, ..Gateway::DISK }.start(&cluster.servers.url()).await?);
    }
    let mut loads = JoinSet::new();
    for gateway in &gateways[1..] {
        let aim = Aim::closed(gateway.address, CONNECTIONS, length);
        loads.spawn(async move { drive(&aim, &[]).await });
    }
    let pids = gateways.iter().map(|gateway| gateway.child.pid()).chain(cluster.pids());
    let watched: Vec<_> = pids.map(Watched::One).collect();
    let found = drive(&Aim::closed(gateways[0].address, CONNECTIONS, length), &watched).await?.sound()?;
    let mut messages = found.tally.accepted;
    while let Some(other) = loads.join_next().await {
        messages += other??.sound()?.tally.accepted;
    }
    for gateway in gateways {
        gateway.child.end().await;
    }
    let (gateways, redis) = found.cpu.split_at(count);
    let gateway = Some(gateways.iter().sum());
    Ok(Filled { messages: messages as f64, seconds: found.seconds, redis: redis.to_vec(), gateway })
}

/// A Redis Cluster and where its partitions are.
struct Cluster {
    servers: ClusteredRedis,
    queue: Queue,
    /// The primary of each partition.
    owners: Vec<usize>,
}

impl Cluster {
    async fn start(primaries: usize) -> Result<Self> {
        // Nobody is taken to be away for being slow; and who is held to a share may not fork.
        let settings = vec![("auto-aof-rewrite-percentage", "0".to_owned())];
        let servers = Clustered { primaries, node_timeout: Duration::from_secs(60), settings, ..Clustered::default() }
            .start()
            .await;
        let queue = stage::queue(&servers.url(), PARTITIONS).await?;
        let mut owners = Vec::new();
        for partition in 0..PARTITIONS {
            let slot = servers.slot(&queue.keys(partition).ingest).await;
            owners.extend(servers.holder(slot).await);
        }
        ensure!(owners.len() == usize::from(PARTITIONS), "some partition has no primary");
        Ok(Self { servers, queue, owners })
    }

    fn pids(&self) -> Vec<u32> {
        self.servers.nodes.iter().map(|node| node.pid()).collect()
    }

    fn cpu(&self) -> Result<Vec<Duration>> {
        self.pids().into_iter().map(cpu_of).collect()
    }

    /// Forgets everything but the functions.
    async fn empty(&self) -> Result<()> {
        for node in 0..self.servers.nodes.len() {
            let reply = self.servers.ask(node, &["FLUSHALL", "SYNC"]).await;
            ensure!(reply.ends_with("+OK\r\n+OK\r\n"), "FLUSHALL: {reply}");
        }
        self.queue.prepare().await?;
        Ok(())
    }

    /// Each primary's part of the messages that were accepted since it was empty.
    async fn shares(&self) -> Result<Vec<f64>> {
        let mut accepted = vec![0.0; self.servers.nodes.len()];
        for (owner, balance) in self.owners.iter().zip(self.queue.balances().await?) {
            accepted[*owner] += balance.accepted as f64;
        }
        let all: f64 = accepted.iter().sum();
        Ok(accepted.into_iter().map(|accepted| accepted / all).collect())
    }
}

fn plot(report: &mut Report) {
    let bars = SIDES.map(|side| {
        let rate = report.found(&format!("cluster.{}.rate", side.id));
        (side.title, rate.map_or(f64::NAN, |figure| median(figure.turns.clone())))
    });
    report.plot("Primaries with a tenth of a core each", ["", "messages/s"], vec![Series::bars("messages/s", &bars)]);
}
