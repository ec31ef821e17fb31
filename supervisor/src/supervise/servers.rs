//! The private servers: started with progress, started again when they end, stopped last.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use weir_core::shutdown::Shutdown;
use weir_stack::{PostgresOptions, PostgresServer, RedisOptions, RedisServer};

use crate::context::Context;
use crate::stack_file::Server;
use crate::supervise::board::Board;

/// Pause before a server that ended is started again.
const PAUSE: Duration = Duration::from_millis(500);

/// The servers that were started; none where one was configured.
pub(crate) struct Servers {
    redis: Option<RedisServer>,
    postgres: Option<PostgresServer>,
}

/// Memory of the machine in bytes.
fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

impl Servers {
    /// Starts Redis unless one is configured.
    pub(crate) async fn start_redis(&mut self, context: &Context) -> Result<Server> {
        if let Some(url) = &context.settings.redis.url {
            return Ok(Server { url: url.expose().to_owned(), pid: None });
        }
        let options =
            RedisOptions { maxmemory: Some(machine_memory() / 2), ..RedisOptions::new(context.data.join("redis")) };
        let server = RedisServer::start(options).await.context("Redis did not start")?;
        let found = Server { url: server.url(), pid: Some(server.pid()) };
        self.redis = Some(server);
        Ok(found)
    }

    /// Starts PostgreSQL unless one is configured.
    pub(crate) async fn start_postgres(&mut self, context: &Context) -> Result<Server> {
        if let Some(url) = &context.settings.database.url {
            return Ok(Server { url: url.expose().to_owned(), pid: None });
        }
        let options = PostgresOptions::new(context.data.join("postgres"));
        let server = PostgresServer::start(options).await.context("PostgreSQL did not start")?;
        let found = Server { url: server.url("weir"), pid: Some(server.pid()) };
        self.postgres = Some(server);
        Ok(found)
    }

    pub(crate) fn new() -> Self {
        Self { redis: None, postgres: None }
    }

    /// Starts again whichever server ends, until `stop`; then stops PostgreSQL and Redis.
    pub(crate) async fn run(self, board: Arc<Board>, stop: Shutdown) {
        let Self { redis, postgres } = self;
        let redis = keep_redis(redis, board.clone(), stop.clone());
        let postgres = keep_postgres(postgres, board, stop);
        tokio::join!(redis, postgres);
    }
}

async fn keep_redis(server: Option<RedisServer>, board: Arc<Board>, stop: Shutdown) {
    let Some(mut server) = server else { return };
    loop {
        let process = server.process();
        let Some(status) = stop.run_until_cancelled(process.wait()).await else { break };
        tracing::error!(%status, "Redis ended; starting it again");
        while let Err(error) = server.restart().await {
            tracing::error!(%error, "Redis does not start");
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
        board.server(|file| &mut file.redis, server.pid());
    }
    server.stop().await;
}

async fn keep_postgres(server: Option<PostgresServer>, board: Arc<Board>, stop: Shutdown) {
    let Some(mut server) = server else { return };
    loop {
        let process = server.process();
        let Some(status) = stop.run_until_cancelled(process.wait()).await else { break };
        tracing::error!(%status, "PostgreSQL ended; starting it again");
        while let Err(error) = server.restart().await {
            tracing::error!(%error, "PostgreSQL does not start");
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
        board.server(|file| &mut file.database, server.pid());
    }
    server.stop().await;
}
