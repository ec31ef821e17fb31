//! What was looked at and not taken: counted by reason and minute, beside the queue.
//!
//! Nobody waits for it. What could not be counted yet is kept until Redis has it; a process that is killed loses what it has not
//! told Redis, which is what came in the last moments.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use weir_core::queue::Queue;
use weir_core::queue::tally::Tallies;
use weir_core::shutdown::Shutdown;

/// Pause between two attempts, and at least so long between two calls.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the last attempt may take at the end.
const LAST: Duration = Duration::from_secs(1);

/// Counts for all requests.
#[derive(Clone, Default)]
pub(crate) struct Ignored {
    waiting: Arc<Mutex<Tallies>>,
    more: Arc<Notify>,
    /// The partition that was told last did not take it.
    away: Arc<AtomicBool>,
}

impl Ignored {
    /// Counts one.
    pub(crate) fn note(&self, reason: &'static str) {
        metrics::counter!("weir_webhook_ignored_total", "reason" => reason).increment(1);
        let minute = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60);
        *self.lock().entry((reason.to_owned(), minute)).or_default() += 1;
        self.more.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tallies> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells Redis, until `ended` and then once more.
    pub(crate) async fn run(self, queue: Queue, ended: Shutdown) {
        while ended.run_until_cancelled(self.more.notified()).await.is_some() {
            self.tell(&queue).await;
            ended.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
        if tokio::time::timeout(LAST, self.tell(&queue)).await.is_err() || !self.lock().is_empty() {
            tracing::warn!("Redis did not take the last counts of ignored webhooks");
        }
    }

    async fn tell(&self, queue: &Queue) {
        let tallies = std::mem::take(&mut *self.lock());
        if tallies.is_empty() {
            return;
        }
        // Any partition will do. One for all that is counted in a minute keeps the counts few; another one if that one is away.
        let minute = tallies.keys().map(|(_, minute)| *minute).max().unwrap_or_default();
        let partition = match self.away.load(Ordering::Relaxed) {
            false => (minute % u64::from(queue.partitions())) as u16,
            true => rand::random_range(0..queue.partitions()),
        };
        let told = queue.tally(partition, &tallies).await;
        self.away.store(told.is_err(), Ordering::Relaxed);
        if let Err(error) = told {
            tracing::debug!(%error, "counts of ignored webhooks wait");
            let mut waiting = self.lock();
            for (what, n) in tallies {
                *waiting.entry(what).or_default() += n;
            }
            self.more.notify_one();
        }
    }
}
