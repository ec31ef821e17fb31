//! The limit of the queue: raw calls of the enqueue function, two batches in flight, without any gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use weir_core::queue::Queue;
use weir_core::queue::enqueue::{Bounds, Enqueuer};
use weir_core::secret::SecretUrl;
use weir_stack::testing::redis_with;

use crate::accept::PARTITIONS;
use crate::child::cpu_of;
use crate::drain::entry;
use crate::report::Report;

/// Messages in one round trip, over all partitions.
const BATCHES: [usize; 3] = [32, 128, 512];

pub(crate) async fn measure(report: &mut Report, seconds: u64) -> Result<()> {
    for partitions in [1, PARTITIONS] {
        for batch in BATCHES {
            let redis = redis_with(&[("auto-aof-rewrite-percentage", "0")]).await;
            let queue = Queue::new(&SecretUrl::new(redis.url()), partitions)?;
            queue.prepare().await?;
            let bounds = Bounds {
                backlog: 1 << 40,
                window: Duration::from_secs(86_400),
                remembered: 20_000_000,
                replicas: None,
            };
            let enqueuer = Arc::new(Enqueuer::new(queue, bounds));
            let (cpu, started) = (cpu_of(redis.pid())?, Instant::now());
            let sent = Arc::new(AtomicU64::new(0));
            let deadline = started + Duration::from_secs(seconds);
            let writers: Vec<_> =
                (0..2).map(|_| tokio::spawn(write(enqueuer.clone(), batch, deadline, sent.clone()))).collect();
            for writer in writers {
                writer.await??;
            }
            let sent = sent.load(Ordering::Relaxed) as f64;
            let name = format!("enqueue function, batch {batch}, {partitions} partition(s)");
            report.add(
                format!("{name}: Redis CPU per message"),
                (cpu_of(redis.pid())? - cpu).as_secs_f64() * 1e6 / sent,
                "us",
                "",
            );
            report.add(name, sent / started.elapsed().as_secs_f64(), "/s", "");
        }
    }
    Ok(())
}

async fn write(enqueuer: Arc<Enqueuer>, batch: usize, deadline: Instant, sent: Arc<AtomicU64>) -> Result<()> {
    let run: u32 = rand::random();
    let mut first = 0;
    while Instant::now() < deadline {
        let entries: Vec<_> = (first..first + batch).map(|number| entry(run, number)).collect();
        for result in enqueuer.enqueue(&entries).await {
            result?;
        }
        first += batch;
        sent.fetch_add(batch as u64, Ordering::Relaxed);
    }
    Ok(())
}
