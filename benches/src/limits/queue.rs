//! The limit of the queue: raw calls of the enqueue function with entries made before, two batches in flight, without
//! any gateway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use weir_core::queue::enqueue::{Enqueuer, NewEntry};

use crate::child::cpu_of;
use crate::stage::{self, PARTITIONS};

/// Batches in flight: as many as a gateway has.
const WRITERS: usize = 2;

/// Entries that are made at a time: making them is not what is measured.
const PREPARED: usize = 40_000;

pub(crate) struct Raw {
    pub(crate) rate: f64,
    /// Microseconds per message of the caller and of Redis.
    pub(crate) caller_micros: f64,
    pub(crate) redis_micros: f64,
}

/// Calls for about so long, with batches of this size.
pub(crate) async fn measure(redis: &str, redis_pid: u32, batch: usize, length: Duration) -> Result<Raw> {
    let queue = stage::queue(redis, PARTITIONS).await?;
    let enqueuer = Arc::new(stage::enqueuer(queue));
    let (mut took, mut caller, mut server, mut sent) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
    write(enqueuer.clone(), prepared(batch, 10 * batch)).await?;
    while took < length {
        let shares: Vec<_> = (0..WRITERS).map(|_| prepared(batch, PREPARED / WRITERS)).collect();
        sent += shares.iter().flatten().map(Vec::len).sum::<usize>();
        let before = (Instant::now(), cpu_of(std::process::id())?, cpu_of(redis_pid)?);
        let writers: Vec<_> = shares.into_iter().map(|share| tokio::spawn(write(enqueuer.clone(), share))).collect();
        for writer in writers {
            writer.await??;
        }
        took += before.0.elapsed();
        caller += cpu_of(std::process::id())?.saturating_sub(before.1);
        server += cpu_of(redis_pid)?.saturating_sub(before.2);
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / sent as f64;
    Ok(Raw { rate: sent as f64 / took.as_secs_f64(), caller_micros: micros(caller), redis_micros: micros(server) })
}

fn prepared(batch: usize, messages: usize) -> Vec<Vec<NewEntry>> {
    let run = rand::random();
    let batch = batch.max(1);
    let batches = messages.div_ceil(batch);
    (0..batches).map(|n| (n * batch..(n + 1) * batch).map(|number| stage::entry(run, number)).collect()).collect()
}

async fn write(enqueuer: Arc<Enqueuer>, batches: Vec<Vec<NewEntry>>) -> Result<()> {
    for batch in batches {
        for result in enqueuer.enqueue(&batch).await {
            result?;
        }
    }
    Ok(())
}
