//! What becomes of the rates when there is much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinHandle;
use weir_store::testing::Session;

use super::drain::drain;
use super::turns::read_with_durability;
use super::{Scale, Turns};
use crate::load::{Aim, drive};
use crate::report::{Report, Series};
use crate::stage::{self, Gateway, PARTITIONS, Postgres, Redis};

pub(super) const ABOUT: &str = "Growth: accepting while more and more messages wait (the last step with the table full too), \
                                storing into an empty and a full table, and both with more partitions and workers. The full \
                                table is made by SQL with random keys; its indexes grew row by row.";

const CONNECTIONS: usize = 256;

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let postgres = Postgres::start().await?;
    let full = postgres.database().await?;
    grow(report, &full, scale.rows).await?;
    let mut turns = Turns::default();
    let result = take_turns(report, scale, &postgres, &full, &mut turns).await;
    let backlogs: Vec<(f64, f64)> = scale
        .backlogs
        .into_iter()
        .filter_map(|waiting| Some((waiting as f64, turns.last(&format!("growth.accept.backlog.{waiting}"))?)))
        .collect();
    turns.write(report);
    read_with_durability(report, accepts(scale));
    report.plot(
        "Accepted a second while messages wait",
        ["messages that wait", "messages/s"],
        vec![Series::line("accepted/s", backlogs)],
    );
    result
}

async fn take_turns(report: &Report, scale: &Scale, postgres: &Postgres, full: &str, turns: &mut Turns) -> Result<()> {
    accept_beside_backlogs(report, scale, turns).await?;
    drain_into_full(report, scale, postgres, full, turns).await?;
    partitions(report, scale, postgres, turns).await?;
    workers(report, scale, postgres, turns).await
}

async fn accept_beside_backlogs(report: &Report, scale: &Scale, turns: &mut Turns) -> Result<()> {
    let (empty, waiting) = (Redis::on_disk().await?, Redis::on_disk().await?);
    let queue = waiting.queue(PARTITIONS).await?;
    for backlog in scale.backlogs {
        let there = queue.balance().await?.backlog() as usize;
        let step = |done| report.step(format_args!("{} of {backlog} messages wait", there + done));
        stage::fill(&queue, backlog.saturating_sub(there), step).await?;
        let last = backlog == scale.backlogs[scale.backlogs.len() - 1];
        for round in 1..=if last { scale.rounds } else { 1 } {
            report.step(format_args!("turn {round}: accept, {backlog} wait"));
            empty.flush().await?;
            // The one that comes first must not always be the same: the machine gets slower or faster meanwhile.
            let (alone, beside) = if round % 2 == 1 {
                let alone = accepted(scale, &empty, PARTITIONS).await?;
                (alone, accepted(scale, &waiting, PARTITIONS).await?)
            } else {
                let beside = accepted(scale, &waiting, PARTITIONS).await?;
                (accepted(scale, &empty, PARTITIONS).await?, beside)
            };
            turns.push(
                format!("growth.accept.backlog.{backlog}"),
                format!("accepted while {backlog} wait"),
                "/s",
                beside,
            );
            if last {
                turns.push("growth.accept.full", "accepted, longest backlog and full table", "/s", beside);
                turns.push("growth.accept.empty", "accepted, nothing waits, the same minutes", "/s", alone);
            }
        }
    }
    Ok(())
}

async fn accepted(scale: &Scale, redis: &Redis, partitions: u16) -> Result<f64> {
    let gateway = Gateway { partitions, ..Gateway::DISK }.start(&redis.url()).await?;
    let found = drive(&Aim::closed(gateway.address, CONNECTIONS, scale.turn), &[]).await?.sound();
    gateway.child.end().await;
    Ok(found?.rate())
}

async fn drain_into_full(
    report: &Report,
    scale: &Scale,
    postgres: &Postgres,
    full: &str,
    turns: &mut Turns,
) -> Result<()> {
    for _ in 0..scale.long_rounds {
        let empty = postgres.database().await?;
        let rate = stored(report, scale, postgres, &empty, PARTITIONS, 1).await?;
        turns.push("growth.drain.empty", "stored into an empty table", "/s", rate);
        postgres.drop(&empty).await?;
        let rate = stored(report, scale, postgres, full, PARTITIONS, 1).await?;
        turns.push("growth.drain.full", format!("stored into a table of {} rows", scale.rows), "/s", rate);
    }
    Ok(())
}

/// Drains a small backlog of a Redis of its own.
async fn stored(
    report: &Report,
    scale: &Scale,
    postgres: &Postgres,
    database: &str,
    partitions: u16,
    workers: usize,
) -> Result<f64> {
    let redis = Redis::on_disk().await?;
    let queue = redis.queue(partitions).await?;
    stage::fill(&queue, scale.small_backlog, |_| ()).await?;
    Ok(drain(report, &redis, &queue, postgres, database, workers, scale.small_backlog).await?.rate)
}

async fn partitions(report: &Report, scale: &Scale, postgres: &Postgres, turns: &mut Turns) -> Result<()> {
    for partitions in [1, 4, 16] {
        report.step(format_args!("{partitions} partition(s)"));
        let redis = Redis::on_disk().await?;
        let rate = accepted(scale, &redis, partitions).await?;
        let id = |what: &str| format!("growth.partitions.{partitions}.{what}");
        turns.push(id("accept"), format!("accepted, {partitions} partition(s)"), "/s", rate);
        drop(redis);
        let database = postgres.database().await?;
        let rate = stored(report, scale, postgres, &database, partitions, 1).await?;
        turns.push(id("drain"), format!("stored, {partitions} partition(s)"), "/s", rate);
        postgres.drop(&database).await?;
    }
    Ok(())
}

async fn workers(report: &Report, scale: &Scale, postgres: &Postgres, turns: &mut Turns) -> Result<()> {
    for workers in [1, 4] {
        let database = postgres.database().await?;
        let rate = stored(report, scale, postgres, &database, PARTITIONS, workers).await?;
        turns.push(format!("growth.workers.{workers}.drain"), format!("stored, {workers} worker(s)"), "/s", rate);
        postgres.drop(&database).await?;
    }
    Ok(())
}

/// The figures of accept.
fn accepts(scale: &Scale) -> impl Iterator<Item = String> {
    let backlogs = scale.backlogs.map(|waiting| format!("growth.accept.backlog.{waiting}"));
    let partitions = [1, 4, 16].map(|partitions| format!("growth.partitions.{partitions}.accept"));
    let others = ["growth.accept.full", "growth.accept.empty"].map(str::to_owned);
    backlogs.into_iter().chain(partitions).chain(others)
}

/// Rows in one statement, and writers at once.
const CHUNK: usize = 250_000;
const WRITERS: usize = 2;
/// Who wrote them.
const PEOPLE: usize = 200_000;

/// Fills the tables: clients, dialogs, and messages with their keys, which are as random as real ones.
async fn grow(report: &Report, database: &str, rows: usize) -> Result<()> {
    let mut session = Session::open(database).await?;
    let clients = format!(
        "INSERT INTO clients (source, external_client_id, phone, phone_at, first_seen_at, last_seen_at) \
         SELECT 'old', md5(n::text), '+7918' || lpad(n::text, 7, '0'), now(), now(), now() \
         FROM generate_series(1, {PEOPLE}) n; \
         INSERT INTO dialogs (client_id) SELECT id FROM clients"
    );
    session.run(&clients).await?;
    let chunks = rows.div_ceil(CHUNK);
    let done = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let share = (writer..chunks).step_by(WRITERS).map(|chunk| CHUNK.min(rows - chunk * CHUNK)).collect();
            tokio::spawn(write(database.to_owned(), share, done.clone()))
        })
        .collect();
    while !writers.iter().all(JoinHandle::is_finished) {
        report.step(format_args!("{} of {rows} rows", done.load(Ordering::Relaxed)));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for writer in writers {
        writer.await??;
    }
    session.run("ANALYZE").await?;
    session.run("CHECKPOINT").await.map_err(Into::into)
}

async fn write(database: String, chunks: Vec<usize>, done: Arc<AtomicUsize>) -> Result<()> {
    let mut session = Session::open(&database).await?;
    for rows in chunks {
        let statement = format!(
            "WITH keys AS ( \
                 INSERT INTO event_keys (id, send_at, fingerprint, entry_ms, entry_seq, partition) \
                 SELECT gen_random_uuid(), '2025-02-01'::timestamptz + random() * interval '200 days', \
                        (random() * 7e16)::bigint, 1738368000000 + n / 50, n % 50, n % 4 \
                 FROM generate_series(1, {rows}) n \
                 RETURNING id, message_id, send_at, entry_ms \
             ) \
             INSERT INTO messages (id, send_at, dialog_id, external_message_id, text, trace_id, accepted_at) \
             SELECT message_id, send_at, 1 + floor(random() * {PEOPLE})::bigint, replace(id::text, '-', ''), \
                    'Здравствуйте! Где мой заказ?', id, to_timestamp(entry_ms / 1000.0) FROM keys"
        );
        session.run(&statement).await?;
        done.fetch_add(rows, Ordering::Relaxed);
    }
    Ok(())
}
