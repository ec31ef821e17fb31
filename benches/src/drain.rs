//! Stored a second: a worker in a process of its own drains a backlog.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;
use weir_core::config::{DatabaseConfig, Reader};
use weir_core::message::Message;
use weir_core::queue::Queue;
use weir_core::queue::enqueue::{Bounds, Enqueuer, NewEntry};
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_stack::testing::{redis_with, scratch, unique_name};
use weir_stack::{PostgresOptions, PostgresServer};
use weir_store::{Store, StoreOptions, testing};
use weir_worker::WorkerConfig;

use crate::accept::{PARTITIONS, REDIS};
use crate::child::Child;
use crate::report::Report;

/// Environment variable with the URL of PostgreSQL.
const DATABASE: &str = "BENCH_DATABASE";

pub(crate) async fn serve_worker() -> Result<()> {
    let mut reader = Reader::new(BTreeMap::new(), BTreeMap::new(), Path::new("/nonexistent"), false);
    let database = DatabaseConfig::read(&mut reader);
    let config = WorkerConfig::read(&mut reader, database);
    let queue = Queue::new(&SecretUrl::new(std::env::var(REDIS)?), PARTITIONS)?;
    let store = Store::connect_lazy(&StoreOptions::new(std::env::var(DATABASE)?.into()))?;
    weir_worker::build(config, &queue, store).run(Shutdown::new()).await;
    Ok(())
}

pub(crate) async fn measure(report: &mut Report, backlog: usize) -> Result<()> {
    let redis = redis_with(&[]).await;
    let folder = scratch();
    // Settings as `weir up` uses them, not those of tests.
    let postgres = PostgresServer::start(PostgresOptions::new(folder.path().join("postgres"))).await?;
    let database = testing::migrated_database(|name| postgres.url(name), &unique_name()).await?;
    let queue = Queue::new(&SecretUrl::new(redis.url()), PARTITIONS)?;
    queue.prepare().await?;
    let base = queue.server_state().await?.used_memory();
    fill(&queue, backlog).await?;
    let full = queue.server_state().await?.used_memory();
    report.add("Redis memory per queued message, dedupe included", (full - base) as f64 / backlog as f64, "bytes", "");
    for workers in [1, 2] {
        if workers > 1 {
            fill(&queue, backlog).await?;
        }
        drain(report, &queue, &redis.url(), &database, workers, backlog).await?;
    }
    let rows = testing::number(&database, "SELECT count(*) FROM messages").await?;
    anyhow::ensure!(rows as usize == 2 * backlog, "{rows} rows");
    let after = queue.server_state().await?.used_memory();
    report.add(
        "Redis memory after the drains, dedupe included",
        (after - base) as f64 / (2 * backlog) as f64,
        "bytes/id",
        "",
    );
    postgres.stop().await;
    Ok(())
}

async fn drain(
    report: &mut Report,
    queue: &Queue,
    redis: &str,
    database: &str,
    workers: usize,
    backlog: usize,
) -> Result<()> {
    let before = queue.balance().await?.stored;
    let env = [(REDIS, redis.to_owned()), (DATABASE, database.to_owned())];
    let children = (0..workers).map(|_| Child::start(&["serve-worker"], &env)).collect::<Result<Vec<_>>>()?;
    let bar = ProgressBar::new(backlog as u64);
    let mut started = None;
    let cpu = |children: &[Child]| children.iter().map(Child::cpu).sum::<Result<Duration>>();
    loop {
        let stored = queue.balance().await?.stored - before;
        bar.set_position(stored);
        if started.is_none() && stored > 0 {
            started = Some((Instant::now(), stored));
        }
        if stored as usize >= backlog {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bar.finish_and_clear();
    let used = cpu(&children)?.as_secs_f64() * 1e6 / backlog as f64;
    let (since, first) = started.unwrap_or((Instant::now(), 0));
    let rate = (backlog as u64 - first) as f64 / since.elapsed().as_secs_f64();
    let goal = if workers == 1 { ">= 35000" } else { "" };
    report.add(format!("stored, {workers} worker process(es), backlog of {backlog}"), rate, "/s", goal);
    report.add(format!("worker CPU per message, {workers} worker process(es)"), used, "us", "");
    for child in children {
        child.end().await;
    }
    Ok(())
}

async fn fill(queue: &Queue, backlog: usize) -> Result<()> {
    let bounds =
        Bounds { backlog: 1 << 40, window: Duration::from_secs(86_400), remembered: 20_000_000, replicas: None };
    let enqueuer = Enqueuer::new(queue.clone(), bounds);
    let bar = ProgressBar::new(backlog as u64);
    let run: u32 = rand::random();
    for chunk in 0..backlog.div_ceil(1000) {
        let entries: Vec<_> =
            (chunk * 1000..backlog.min(chunk * 1000 + 1000)).map(|number| entry(run, number)).collect();
        for result in enqueuer.enqueue(&entries).await {
            result?;
        }
        bar.inc(entries.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

pub(crate) fn entry(run: u32, number: usize) -> NewEntry {
    let message = Message {
        source: "messenger".into(),
        external_message_id: format!("{run:08x}{number:024x}").into(),
        external_client_id: format!("fedcba0987654321abcdef12{:08x}", number % 50_000).into(),
        client_phone: format!("+7919{:07}", number % 50_000).into(),
        message_text: "Здравствуйте! Где мой заказ?".into(),
        send_at: 1_760_000_000 + (number % 86_400) as i64,
        extra: None,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
    };
    NewEntry { key: message.key(), fingerprint: message.fingerprint(), envelope: message.encode() }
}
