//! What the disk can do.

use std::time::Duration;

use anyhow::Result;

use super::{Scale, Turns};
use crate::limits;
use crate::report::Report;

pub(super) const ABOUT: &str = "Syncs of the disk that holds the servers' data: 4 KiB appended and fdatasync, one after \
                                the other, while nothing else runs.";

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let mut turns = Turns::default();
    for _ in 0..scale.rounds {
        let found = limits::disk::measure(scale.turn.min(Duration::from_secs(2))).await?;
        turns.push("disk.sync.rate", "syncs", "/s", found.rate);
        turns.push("disk.sync.p50", "a sync, p50", "ms", found.p50_ms);
        turns.push("disk.sync.p99", "a sync, p99", "ms", found.p99_ms);
        turns.push("disk.sync.longest", "the longest sync", "ms", found.longest_ms);
        turns.push("disk.sync.stalled", "time in syncs of more than 1 ms", "%", found.stalled);
    }
    turns.write(report);
    Ok(())
}
