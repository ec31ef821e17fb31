//! The workers: apalis hands out jobs, each becomes its rows in one transaction.

use std::io;
use std::time::Duration;

use apalis::prelude::*;
use redis::Script;
use redis::aio::ConnectionManager;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{MissedTickBehavior, interval};

use crate::message::Message;
use crate::{Outcome, storage, terminated};

const STORE: &str = include_str!("../../store.sql");

/// Workers of the process, and jobs of each at a time.
const WORKERS: usize = 4;
const CONCURRENCY: usize = 25;

pub async fn run() -> Outcome {
    let pool = PgPoolOptions::new().max_connections(80).connect(&std::env::var("DATABASE_URL")?).await?;
    let storage = storage().await?;
    let connection = storage.clone().get_connection().clone();
    // Before the first worker looks.
    promote(&mut connection.clone()).await?;
    tokio::spawn(promote_for_ever(connection));
    let process = std::process::id();
    Monitor::new()
        .register_n(WORKERS, move |index, restarts| {
            WorkerBuilder::new(format!("{process}-{index}-{restarts}"))
                .backend(storage.clone().poll_with_interval(Duration::from_millis(20)))
                .concurrency(CONCURRENCY)
                .parallelize(tokio::spawn)
                .data(pool.clone())
                .build(store)
        })
        .should_restart(|_, error| {
            eprintln!("work: {error}");
            true
        })
        .shutdown_timeout(Duration::from_secs(10))
        .run_with_signal(terminated())
        .await?;
    Ok(())
}

async fn store(message: Message, pool: Data<PgPool>) -> Result<(), BoxDynError> {
    let extra = (!message.extra.is_empty()).then(|| serde_json::to_string(&message.extra)).transpose()?;
    // sqlx prepares it once a connection by itself.
    sqlx::query(STORE)
        .bind(message.key())
        .bind(message.send_at)
        .bind(message.fingerprint())
        .bind(message.accepted_ms)
        .bind(&message.external_client_id)
        .bind(&message.client_phone)
        .bind(&message.external_message_id)
        .bind(&message.message_text)
        .bind(extra)
        .execute(&*pool)
        .await
        .inspect_err(|error| eprintln!("work: {error}"))?;
    Ok(())
}

/// apalis-redis 1.0.0 puts every job into the scheduled set first, and a fetch moves all that are due at once by `unpack`,
/// for which Lua has room for 8,000: a larger backlog would stop it for good. This moves them in pieces, as it means to.
const PROMOTE: &str = r"
    local ids = redis.call('zrange', KEYS[1], '-inf', ARGV[1], 'byscore', 'limit', 0, 1000)
    if #ids > 0 then
        redis.call('rpush', KEYS[2], unpack(ids))
        redis.call('zrem', KEYS[1], unpack(ids))
    end
    return #ids";

async fn promote(connection: &mut ConnectionManager) -> Result<(), redis::RedisError> {
    let script = Script::new(PROMOTE);
    let now = crate::message::now_ms() / 1000;
    while script.key("messages:scheduled").key("messages:active").arg(now).invoke_async::<usize>(connection).await? > 0
    {
    }
    Ok(())
}

async fn promote_for_ever(mut connection: ConnectionManager) -> io::Result<()> {
    let mut ticks = interval(Duration::from_millis(50));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = promote(&mut connection).await {
            eprintln!("work: {error}");
        }
    }
}
