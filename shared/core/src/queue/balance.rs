//! Where every accepted message is.

use std::collections::HashMap;
use std::ops::AddAssign;

use serde::Serialize;

use super::{Queue, QueueError};

/// Counters and lengths of one partition at one instant, or the sum over partitions.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Balance {
    /// Appended since this data set began.
    pub accepted: u64,
    /// Dead letters imported.
    pub imported: u64,
    /// Committed as rows.
    pub stored: u64,
    /// Found to be stored already.
    pub duplicate: u64,
    /// Dead letters now.
    pub dead: u64,
    /// Times an entry became a dead letter.
    pub dead_total: u64,
    /// Times an entry was sent to retry.
    pub retried: u64,
    /// Purged by operators.
    pub purged: u64,
    /// Pending entries whose content was gone: always 0 unless somebody deletes by hand.
    pub lost: u64,
    /// In ingest or retry, not read by a worker yet.
    pub undelivered: u64,
    /// Read by a worker, not settled yet.
    pub pending: u64,
    /// Retries that wait for their time.
    pub due: u64,
    /// Entries of dead workers, not settled yet.
    pub suspect: u64,
    /// Set aside.
    pub parked: u64,
    /// Entries that the ingest streams hold in memory.
    pub ingest_length: u64,
    /// Age of the oldest entry in ingest that is not settled, in milliseconds; the oldest of all partitions.
    pub oldest_age_ms: u64,
    /// Ids remembered in the current dedupe epoch.
    pub remembered: u64,
    /// How far the dedupe memory reaches back, in milliseconds; the shortest of all partitions.
    pub window_ms: u64,
    /// Workers with a lease; the most of all partitions.
    pub workers: u64,
}

/// A dedupe epoch that can be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Partition.
    pub partition: u16,
    /// Epoch.
    pub epoch: u64,
    /// Its buckets.
    pub buckets: u64,
}

impl Balance {
    /// Accepted and not finished: undelivered, pending, due, suspect and parked.
    pub fn in_flight(&self) -> u64 {
        self.undelivered + self.pending + self.due + self.suspect + self.parked
    }

    /// What workers still have to do: everything in flight but what is parked.
    pub fn backlog(&self) -> u64 {
        self.in_flight() - self.parked
    }

    /// What came in less what can be accounted for: 0 at every instant.
    pub fn drift(&self) -> i64 {
        let entered = self.accepted + self.imported;
        let accounted = self.stored + self.duplicate + self.dead + self.purged + self.in_flight();
        entered as i64 - accounted as i64
    }
}

impl AddAssign for Balance {
    fn add_assign(&mut self, other: Self) {
        let window_ms = if self.window_ms == 0 { other.window_ms } else { self.window_ms.min(other.window_ms) };
        *self = Self {
            accepted: self.accepted + other.accepted,
            imported: self.imported + other.imported,
            stored: self.stored + other.stored,
            duplicate: self.duplicate + other.duplicate,
            dead: self.dead + other.dead,
            dead_total: self.dead_total + other.dead_total,
            retried: self.retried + other.retried,
            purged: self.purged + other.purged,
            lost: self.lost + other.lost,
            undelivered: self.undelivered + other.undelivered,
            pending: self.pending + other.pending,
            due: self.due + other.due,
            suspect: self.suspect + other.suspect,
            parked: self.parked + other.parked,
            ingest_length: self.ingest_length + other.ingest_length,
            oldest_age_ms: self.oldest_age_ms.max(other.oldest_age_ms),
            remembered: self.remembered + other.remembered,
            window_ms,
            workers: self.workers.max(other.workers),
        };
    }
}

impl Queue {
    /// The balance of one partition, and the epoch it can forget, if any.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn partition_balance(&self, partition: u16) -> Result<(Balance, Option<Sweep>), QueueError> {
        let keys = self.keys(partition);
        let names = [
            &*keys.count,
            &keys.ingest,
            &keys.retry,
            &keys.suspect,
            &keys.parked,
            &keys.dead,
            &keys.due,
            &keys.seen_meta,
            &keys.alive,
        ];
        let found: HashMap<String, i64> = self.call("balance", &names, &[]).await?;
        let get = |name: &str| found.get(name).copied().unwrap_or_default().max(0) as u64;
        let since = |name: &str| if get(name) == 0 { 0 } else { get("now_ms").saturating_sub(get(name)) };
        let balance = Balance {
            accepted: get("accepted"),
            imported: get("imported"),
            stored: get("stored"),
            duplicate: get("duplicate"),
            dead: get("dead_length"),
            dead_total: get("dead_total"),
            retried: get("retried"),
            purged: get("purged"),
            lost: get("lost"),
            undelivered: get("ingest_undelivered") + get("retry_undelivered"),
            pending: get("ingest_pending") + get("retry_pending"),
            due: get("due"),
            suspect: get("suspect_undelivered") + get("suspect_pending"),
            parked: get("parked"),
            ingest_length: get("ingest_length"),
            oldest_age_ms: since("oldest_ms"),
            remembered: get("seen_count"),
            window_ms: since("seen_since_ms"),
            workers: get("workers"),
        };
        let sweep = Sweep { partition, epoch: get("sweep_epoch"), buckets: get("sweep_buckets") };
        Ok((balance, (sweep.epoch > 0).then_some(sweep)))
    }

    /// The balance of every partition.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn balances(&self) -> Result<Vec<Balance>, QueueError> {
        let mut all = Vec::with_capacity(usize::from(self.partitions()));
        for partition in 0..self.partitions() {
            all.push(self.partition_balance(partition).await?.0);
        }
        Ok(all)
    }

    /// The sum over all partitions. Each is exact at its own instant, so the drift of the sum is 0 too.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn balance(&self) -> Result<Balance, QueueError> {
        let mut sum = Balance::default();
        for balance in self.balances().await? {
            sum += balance;
        }
        Ok(sum)
    }
}
