//! How soon a dead worker is made up for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use weir_core::queue::{GROUP, Queue};

use super::{Scale, Turns};
use crate::child::Child;
use crate::load::{Aim, drive};
use crate::report::Report;
use crate::stage::{self, Gateway, PARTITIONS, Postgres, Redis};

pub(super) const ABOUT: &str = "Recovery: one of two workers is killed under load. The time until everything that was accepted \
                                before its death is stored: when a supervisor saw it end and starts another one (as `weir \
                                up` does), and when nobody did and its lease of 15 s has to run out.";

/// Messages a second meanwhile: far from saturation.
const RATE: f64 = 4000.0;
/// Before the kill: the worker is in the middle of its work.
const BEFORE: Duration = Duration::from_secs(2);
/// Messages that come at once just before it, and how often a death is tried that leaves nothing behind.
const BURST: usize = 10_000;
const TRIES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let postgres = Postgres::start().await?;
    let mut turns = Turns::default();
    for round in 1..=scale.long_rounds {
        for (id, name, seen) in [
            ("recovery.seen", "until all is stored, its supervisor saw it", true),
            ("recovery.unseen", "until all is stored, its lease had to run out", false),
        ] {
            report.step(format_args!("turn {round}: {name}"));
            let death = a_death_that_matters(&postgres, seen).await?;
            turns.push(id, name, "s", death.took.as_secs_f64());
            turns.push(format!("{id}.held"), "entries that the dead worker held", "", death.held as f64);
        }
    }
    turns.write(report);
    Ok(())
}

/// A worker's end.
struct Death {
    /// Entries that it had read and not settled.
    held: u64,
    took: Duration,
}

/// A worker that is killed between two batches leaves nothing behind: then another one is killed.
async fn a_death_that_matters(postgres: &Postgres, seen: bool) -> Result<Death> {
    for _ in 0..TRIES {
        let death = once(postgres, seen).await?;
        if death.held > 0 {
            return Ok(death);
        }
    }
    bail!("none of {TRIES} workers held anything when it was killed")
}

async fn once(postgres: &Postgres, seen: bool) -> Result<Death> {
    let (redis, database) = (Redis::on_disk().await?, postgres.database().await?);
    let queue = redis.queue(PARTITIONS).await?;
    let gateway = Gateway::DISK.start(&redis.url()).await?;
    let start = |name| stage::worker(&redis.url(), &database, PARTITIONS, Some(name));
    let (one, other) = (start("one")?, start("two")?);
    let aim = Aim::open(gateway.address, 64, RATE, PATIENCE + BEFORE);
    let load = tokio::spawn(async move { drive(&aim, &[]).await });
    until_both_work(&queue).await?;
    tokio::time::sleep(BEFORE).await;
    // Both have their hands full.
    stage::fill(&queue, BURST, |_| ()).await?;
    one.end().await;
    let killed = Instant::now();
    let held = held(&queue, "one").await?;
    let mut third = None;
    if seen {
        for partition in 0..PARTITIONS {
            queue.declare_dead(partition, "one").await?;
        }
        third = Some(start("three")?);
    }
    let took = until_made_up_for(&queue, killed).await;
    load.abort();
    let workers: Vec<Child> = [Some(other), third].into_iter().flatten().collect();
    for worker in workers {
        worker.end().await;
    }
    gateway.child.end().await;
    postgres.drop(&database).await?;
    Ok(Death { held, took: took? })
}

/// Entries that consumers of this name have not settled.
async fn held(queue: &Queue, name: &str) -> Result<u64> {
    type Summary = (u64, Option<String>, Option<String>, Option<Vec<(String, u64)>>);
    let mut held = 0;
    for partition in 0..queue.partitions() {
        let mut ask = redis::cmd("XPENDING");
        ask.arg(&queue.keys(partition).ingest).arg(GROUP);
        let (.., consumers) = queue.command::<Summary>(&ask).await?;
        let of_name = consumers.into_iter().flatten().filter(|(consumer, _)| consumer.split('.').next() == Some(name));
        held += of_name.map(|(_, entries)| entries).sum::<u64>();
    }
    Ok(held)
}

async fn until_both_work(queue: &Queue) -> Result<()> {
    let since = Instant::now();
    loop {
        let balance = queue.balance().await?;
        if balance.workers >= 2 && balance.stored > 0 {
            return Ok(());
        }
        ensure!(since.elapsed() < PATIENCE, "the workers do not begin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until nothing is left that was accepted before: what is oldest in any stream came later, and nothing waits among the
/// entries of the dead.
async fn until_made_up_for(queue: &Queue, killed: Instant) -> Result<Duration> {
    loop {
        let elapsed = killed.elapsed();
        let balance = queue.balance().await?;
        if balance.suspect == 0 && balance.due == 0 && u128::from(balance.oldest_age_ms) < elapsed.as_millis() {
            return Ok(elapsed);
        }
        ensure!(elapsed < PATIENCE, "after {elapsed:?} {} entries are still those of a dead worker", balance.suspect);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
