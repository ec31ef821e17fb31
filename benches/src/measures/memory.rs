//! What messages, ids and connections take.

use std::time::Duration;

use anyhow::Result;
use weir_core::queue::Queue;

use super::{Scale, Turns};
use crate::load::{self, Aim, drive};
use crate::report::Report;
use crate::stage::{self, Gateway, PARTITIONS, Redis, Served};

pub(super) const ABOUT: &str = "Memory: of Redis per queued message above its payload (the envelope) and per id that it remembers \
                                (32 hex digits), and resident memory of the gateway with connections that are idle since \
                                some seconds (after a message, over TLS too, and without one) and connections that are busy.";

/// How long connections are idle before their memory is read: they are at rest by then, and the allocator keeps what is
/// free for a second.
const IDLE: Duration = Duration::from_secs(3);

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let redis = Redis::in_memory().await?;
    of_messages(report, scale, &redis).await?;
    redis.flush().await?;
    of_connections(report, scale, &redis).await
}

async fn of_messages(report: &mut Report, scale: &Scale, redis: &Redis) -> Result<()> {
    let queue = redis.queue(PARTITIONS).await?;
    let before = used(&queue).await?;
    stage::fill(&queue, scale.ids, |done| report.step(format_args!("{done} of {} messages", scale.ids))).await?;
    let full = used(&queue).await?;
    // As a drain leaves it, without the time that one takes.
    for partition in 0..PARTITIONS {
        let mut trim = redis::cmd("XTRIM");
        trim.arg(&queue.keys(partition).ingest).arg("MAXLEN").arg(0);
        queue.command::<i64>(&trim).await?;
    }
    let trimmed = used(&queue).await?;
    let each = |bytes: u64| bytes as f64 / scale.ids as f64;
    let payload = stage::entry(0, 0).envelope.len() as f64;
    report.put("memory.payload", "payload of a queued message", "bytes", vec![payload]);
    report.put(
        "memory.queued",
        "Redis per queued message above its payload",
        "bytes",
        vec![each(full.saturating_sub(trimmed)) - payload],
    );
    report.put("memory.dedupe", "Redis per remembered id", "bytes", vec![each(trimmed.saturating_sub(before))]);
    Ok(())
}

async fn used(queue: &Queue) -> Result<u64> {
    Ok(queue.server_state().await?.used_memory())
}

async fn of_connections(report: &mut Report, scale: &Scale, redis: &Redis) -> Result<()> {
    let gateway = Gateway::MEMORY.start(&redis.url()).await?;
    let mut turns = Turns::default();
    let before = gateway.child.memory()?;
    turns.push("memory.rest", "gateway at rest", "MB", before as f64 / 1e6);
    report.step(format_args!("{} idle connections", scale.idle));
    let open = load::idle(gateway.address, scale.idle).await?;
    tokio::time::sleep(IDLE).await;
    let idle = gateway.child.memory()?;
    turns.push("memory.idle.all", format!("gateway, {} idle connections", open.len()), "MB", idle as f64 / 1e6);
    let each = idle.saturating_sub(before) as f64 / open.len() as f64 / 1e3;
    turns.push("memory.idle", "gateway per idle connection", "KB", each);
    drop(open);
    gateway.child.end().await;
    let (gateway, authority, _folder) = stage::with_tls(&redis.url()).await?;
    let first = load::idle_over_tls(gateway.address, &authority, 10).await?;
    let each = of_each(&gateway, scale.idle, load::idle_over_tls(gateway.address, &authority, scale.idle)).await?;
    turns.push("memory.idle.tls", "gateway per idle connection over TLS", "KB", each);
    drop(first);
    gateway.child.end().await;
    let gateway = Gateway::MEMORY.start(&redis.url()).await?;
    let each = of_each(&gateway, scale.idle, load::silent(gateway.address, scale.idle)).await?;
    turns.push("memory.silent", "gateway per connection that has said nothing", "KB", each);
    gateway.child.end().await;
    let gateway = Gateway::MEMORY.start(&redis.url()).await?;
    report.step("1000 busy connections");
    drive(&Aim::closed(gateway.address, 1000, scale.turn), &[]).await?.sound()?;
    turns.push("memory.busy", "gateway, 1000 busy connections", "MB", gateway.child.memory()? as f64 / 1e6);
    gateway.child.end().await;
    turns.write(report);
    Ok(())
}

/// KB of resident memory for each of so many connections.
async fn of_each<C>(gateway: &Served, connections: usize, open: impl Future<Output = Result<Vec<C>>>) -> Result<f64> {
    let before = gateway.child.memory()?;
    let open = open.await?;
    tokio::time::sleep(IDLE).await;
    let after = gateway.child.memory()?;
    drop(open);
    Ok(after.saturating_sub(before) as f64 / connections as f64 / 1e3)
}
