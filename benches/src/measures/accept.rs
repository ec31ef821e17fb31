//! Accepted a second at saturation, and what it costs.

use anyhow::Result;

use super::{Rivals, Scale, Turns};
use crate::child::Watched;
use crate::limits;
use crate::load::{Aim, Found, Mix, drive};
use crate::peers::Peer;
use crate::report::{Report, Series, shown};
use crate::stage::{self, Gateway, PARTITIONS, Redis};

pub(super) const ABOUT: &str = "Accepted a second at saturation: every connection sends its next message as soon as the last \
                                one is answered. Load, gateway and Redis share all cores. Weir at level disk (every 2xx is \
                                on disk) and memory, a bare hyper server that reads and answers, raw calls of the enqueue \
                                function, and the other systems, whose Redis syncs every write too.";

/// Who is measured.
#[derive(Clone, Copy)]
enum Side {
    Bare,
    Disk,
    Memory,
    /// Raw calls of the function, with batches as large as the gateway's were a moment before.
    Raw,
    Http2,
    Batches,
    Mixed,
    Peer(Peer),
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::Raw => "raw",
            Self::Http2 => "http2",
            Self::Batches => "batches",
            Self::Mixed => "mixed",
            Self::Peer(peer) => peer.folder,
        }
    }

    /// With what is special about its load.
    fn under(self, connections: usize) -> String {
        match self {
            Self::Http2 => "Weir, HTTP/2, 8 connections of 32 streams".into(),
            Self::Batches => "Weir, batches of 100, 16 connections".into(),
            Self::Mixed => format!("Weir, {connections} connections, clients by Zipf's law, 2 % repeats, 1 % bad"),
            Self::Raw => "raw calls, batches as large as the gateway's".into(),
            Self::Bare | Self::Disk | Self::Memory | Self::Peer(_) => {
                format!("{}, {connections} connections", self.title())
            }
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper",
            Self::Disk => "Weir, disk",
            Self::Memory => "Weir, memory",
            Self::Raw => "raw calls",
            Self::Http2 => "Weir, HTTP/2",
            Self::Batches => "Weir, batches",
            Self::Mixed => "Weir, mixed",
            Self::Peer(peer) => peer.name,
        }
    }
}

struct Servers {
    disk: Redis,
    memory: Redis,
}

pub(super) async fn measure(report: &mut Report, scale: &Scale, rivals: &mut Rivals) -> Result<()> {
    report.put("accept.cores", "cores", "", vec![crate::report::cores() as f64]);
    let servers = Servers { disk: Redis::on_disk().await?, memory: Redis::in_memory().await? };
    let mut turns = Turns::default();
    let result = take_turns(report, scale, rivals, &servers, &mut turns).await;
    turns.write(report);
    read_together(report, scale);
    plot(report);
    result
}

async fn take_turns(
    report: &mut Report,
    scale: &Scale,
    rivals: &mut Rivals,
    servers: &Servers,
    turns: &mut Turns,
) -> Result<()> {
    for round in 1..=scale.rounds {
        for connections in scale.connections.iter().copied() {
            let mut sides = vec![Side::Bare, Side::Disk, Side::Memory];
            if connections == 256 {
                sides.extend([Side::Raw, Side::Http2, Side::Batches, Side::Mixed]);
            }
            sides.extend(rivals.all().into_iter().map(Side::Peer));
            for side in sides {
                report.step(format_args!("turn {round}: {}", side.under(connections)));
                let result = turn(scale, servers, turns, side, connections).await;
                match (result, side) {
                    (Err(error), Side::Peer(peer)) => rivals.failed(report, "accept", peer, &error),
                    (result, _) => result?,
                }
            }
        }
    }
    Ok(())
}

async fn turn(scale: &Scale, servers: &Servers, turns: &mut Turns, side: Side, connections: usize) -> Result<()> {
    let id = |what: &str| format!("accept.{connections}.{}.{what}", side.name());
    let name = |what: &str| format!("{}: {what}", side.under(connections));
    if matches!(side, Side::Raw) {
        let batch = turns.last(&format!("accept.{connections}.disk.batch")).unwrap_or(128.0);
        servers.disk.flush().await?;
        let redis = (servers.disk.url(), servers.disk.pid());
        let found = limits::queue::measure(&redis.0, redis.1, batch.round() as usize, scale.turn).await?;
        turns.push(id("rate"), name("messages"), "/s", found.rate);
        turns.push(id("cpu"), name("CPU of the caller per message"), "us", found.caller_micros);
        turns.push(id("redis_cpu"), name("CPU of Redis per message"), "us", found.redis_micros);
        return Ok(());
    }
    let ran = run(scale, servers, side, connections).await?;
    turns.push(id("rate"), name("accepted"), "/s", ran.found.rate());
    turns.push(id("cpu"), name("CPU of the server per message"), "us", ran.found.micros(0));
    turns.push(id("load_cpu"), name("CPU of the load per message"), "us", ran.found.own_micros());
    if ran.found.cpu.len() > 1 {
        turns.push(id("redis_cpu"), name("CPU of Redis per message"), "us", ran.found.micros(1));
    }
    if let Some(batch) = ran.batch {
        turns.push(id("batch"), name("messages in a call of Redis"), "", batch);
    }
    Ok(())
}

struct Ran {
    found: Found,
    /// Messages in one transaction of Redis.
    batch: Option<f64>,
}

async fn run(scale: &Scale, servers: &Servers, side: Side, connections: usize) -> Result<Ran> {
    let aim = |address| Aim::closed(address, connections, scale.turn);
    let weir = async |gateway: Gateway, redis: &Redis, shape: &dyn Fn(Aim) -> Aim| {
        redis.flush().await?;
        let served = gateway.start(&redis.url()).await?;
        let ran = loaded(redis, &shape(aim(served.address)), served.child.pid()).await;
        served.child.end().await;
        ran
    };
    match side {
        Side::Bare | Side::Raw => {
            let served = stage::bare().await?;
            let found = drive(&aim(served.address), &[Watched::One(served.child.pid())]).await?.sound()?;
            served.child.end().await;
            Ok(Ran { found, batch: None })
        }
        Side::Disk => weir(Gateway::DISK, &servers.disk, &|aim| aim).await,
        Side::Memory => weir(Gateway::MEMORY, &servers.memory, &|aim| aim).await,
        Side::Http2 => weir(Gateway::DISK, &servers.disk, &|aim| Aim { connections: 8, ..aim }.over_http2(32)).await,
        Side::Batches => {
            let mix = || Mix { batch: 100, ..Mix::default() };
            weir(Gateway::DISK, &servers.disk, &|aim| Aim { connections: 16, ..aim }.with_mix(mix())).await
        }
        Side::Mixed => {
            let mix = || Mix { zipf: 1.0, duplicates: 0.02, bad: 0.01, ..Mix::default() };
            let gateway = Gateway { clients_unlimited: true, ..Gateway::DISK };
            weir(gateway, &servers.disk, &|aim| aim.with_mix(mix())).await
        }
        Side::Peer(peer) => {
            let redis = Redis::on_disk().await?;
            let running = peer.serve(&redis.url(), "").await?;
            let watched = [Watched::Peer(&running), Watched::One(redis.pid())];
            let found = drive(&aim(running.address()), &watched).await;
            running.stop().await?;
            Ok(Ran { found: found?.sound()?, batch: None })
        }
    }
}

async fn loaded(redis: &Redis, aim: &Aim, gateway: u32) -> Result<Ran> {
    let queue = redis.queue(PARTITIONS).await?;
    let before = (redis.batches().await?, queue.balance().await?.accepted);
    let found = drive(aim, &[Watched::One(gateway), Watched::One(redis.pid())]).await?.sound()?;
    let after = (redis.batches().await?, queue.balance().await?.accepted);
    let batch = (after.1 - before.1) as f64 / (after.0 - before.0).max(1) as f64;
    Ok(Ran { found, batch: Some(batch) })
}

/// What durability costs stands beside every figure of accept.
fn read_together(report: &mut Report, scale: &Scale) {
    for connections in scale.connections {
        let rate = |side: &str| report.found(&format!("accept.{connections}.{side}.rate")).map(|figure| figure.value);
        let (Some(disk), Some(memory)) = (rate("disk"), rate("memory")) else { continue };
        let text = format!("durable ÷ memory {}", shown(disk / memory));
        for side in ["disk", "memory", "http2", "batches", "mixed"] {
            for what in ["rate", "cpu", "redis_cpu", "batch", "load_cpu"] {
                report.beside(&format!("accept.{connections}.{side}.{what}"), &text);
            }
        }
    }
}

fn plot(report: &mut Report) {
    let value = |id: String| report.found(&id).map_or(f64::NAN, |figure| figure.value);
    let sides = [
        ("bare", "bare hyper"),
        ("disk", "Weir, disk"),
        ("memory", "Weir, memory"),
        ("raw", "raw calls"),
        ("axum-apalis", "axum + apalis"),
        ("fastify-bullmq", "Fastify + BullMQ"),
        ("fastapi-arq", "FastAPI + arq"),
    ];
    let bars = |what: &str| sides.map(|(side, title)| (title, value(format!("accept.256.{side}.{what}"))));
    let rates = Series::bars("accepted/s", &bars("rate"));
    let costs = [("cpu", "server"), ("redis_cpu", "Redis"), ("load_cpu", "load")];
    let costs = costs.map(|(what, title)| Series::bars(title, &bars(what)));
    report.plot("Accepted a second, 256 connections", ["", "messages/s"], vec![rates]);
    report.plot("Processor time per message, 256 connections", ["", "us"], costs.into());
}
