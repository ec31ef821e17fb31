//! Weir's job done by axum and apalis: `serve` is the gateway, `work` the workers.

mod message;
mod serve;
mod work;

use apalis_redis::{Config, RedisStorage};
use message::Message;
use std::error::Error;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome {
    let role = std::env::args().nth(1);
    // One process with a thread for each core, as tokio means it.
    let threads = std::env::var("PROCESSES").map_or(Ok(2), |count| count.parse())?;
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    match role.as_deref() {
        Some("serve") => runtime.block_on(serve::run()),
        Some("work") => runtime.block_on(work::run()),
        _ => Err("usage: weir-peer-axum-apalis serve|work".into()),
    }
}

async fn storage() -> Outcome<RedisStorage<Message>> {
    let connection = apalis_redis::connect(std::env::var("REDIS_URL")?).await?;
    let config = Config::default()
        .queue("messages")
        .batch_size(100)
        // Jobs last milliseconds, far less than a heartbeat.
        .lock_tasks(false)
        .emit_events(false)
        .heartbeat_interval(Duration::from_secs(5))
        .missed_heartbeats(3);
    Ok(RedisStorage::new(connection).with_config(config))
}

async fn terminated() -> std::io::Result<()> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}
