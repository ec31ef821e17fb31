//! The limit of the disk: 4 KiB appended and synced, again and again, where the servers have their data.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use weir_stack::testing::scratch;

pub(crate) struct Syncs {
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) longest_ms: f64,
    /// Per cent of all time in syncs of more than a millisecond: so many messages meet one, however few syncs they are.
    pub(crate) stalled: f64,
}

const STALL: Duration = Duration::from_millis(1);

pub(crate) async fn measure(length: Duration) -> Result<Syncs> {
    tokio::task::spawn_blocking(move || syncs(length)).await?
}

fn syncs(length: Duration) -> Result<Syncs> {
    let folder = scratch();
    let mut file = File::create(folder.path().join("log"))?;
    let block = [b'w'; 4096];
    let mut took = Vec::new();
    let started = Instant::now();
    while started.elapsed() < length {
        let since = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(since.elapsed());
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = took.len() as f64 / seconds;
    let stalls: Duration = took.iter().filter(|took| **took > STALL).sum();
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    let stalled = 100.0 * stalls.as_secs_f64() / seconds;
    Ok(Syncs { rate, p50_ms: at(50), p99_ms: at(99), longest_ms: at(100), stalled })
}
