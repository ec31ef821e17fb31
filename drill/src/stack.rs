//! The private stack of a run: servers, roles as processes, and proxies on all ways between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use secrecy::SecretString;
use tokio::sync::Mutex;
use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_stack::FaultProxy;
use weir_stack::{PostgresOptions, PostgresServer, RedisOptions, RedisServer, Signal, SmallDisk};
use weir_store::{Store, StoreOptions};

use crate::roles::{Place, Role};

/// How long a worker's lease lasts in a drill: short, so that a vanished worker is taken over soon.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

const PARTITIONS: u16 = 4;

/// Megabytes of the disk that can be filled: enough for what a long run leaves in Redis' log, and only taken as used.
const SMALL: u32 = 4096;

/// No limits of clients: the load is more than a client may send. Retries are few and quick, so that attempts that are
/// burnt in an outage show as dead letters within the run.
const SETTINGS: &str = r#"
[[source]]
name = "messenger"
per_client = "off"

[worker]
lease = "3s"

[retry.timeout]
attempts = 4
base = "200ms"
factor = 2.0
[retry.internal]
attempts = 4
base = "200ms"
factor = 2.0
[retry.constraint]
attempts = 4
base = "200ms"
factor = 2.0
"#;

/// What to start.
pub(crate) struct StackOptions<'o> {
    /// The `weir` binary.
    pub(crate) binary: &'o Path,
    pub(crate) folder: &'o Path,
    pub(crate) gateways: usize,
    pub(crate) workers: usize,
    /// Redis' data on a small file system of its own, which can be filled.
    pub(crate) small_disk: bool,
    /// More variables for the roles.
    pub(crate) env: &'o BTreeMap<String, String>,
    /// A 2xx promises what Redis syncs once a second.
    pub(crate) everysec: bool,
}

/// Everything that runs.
pub(crate) struct Stack {
    pub(crate) gateways: Vec<Place>,
    pub(crate) workers: Vec<Place>,
    pub(crate) gateway_role: Role,
    pub(crate) worker_role: Role,
    pub(crate) redis: Mutex<RedisServer>,
    pub(crate) postgres: Mutex<PostgresServer>,
    pub(crate) proxies: Proxies,
    pub(crate) disk: Option<SmallDisk>,
    /// Straight to Redis, past the proxies.
    pub(crate) queue: Queue,
    /// Straight to PostgreSQL.
    pub(crate) store: Store,
}

/// The ways between the parts.
pub(crate) struct Proxies {
    /// From the senders to each gateway.
    pub(crate) clients: Vec<FaultProxy>,
    pub(crate) gateways_to_redis: FaultProxy,
    pub(crate) workers_to_redis: FaultProxy,
    pub(crate) workers_to_postgres: FaultProxy,
}

impl Stack {
    pub(crate) async fn start(options: StackOptions<'_>) -> Result<Self> {
        let folder = options.folder;
        std::fs::write(folder.join("weir.toml"), SETTINGS).context("the drill's folder cannot be written")?;
        let redis_folder = folder.join("redis");
        let disk = match options.small_disk {
            true => Some(SmallDisk::mount(&redis_folder, SMALL).context("no small disk can be mounted")?),
            false => None,
        };
        let redis = start_redis(redis_folder, options.everysec).await?;
        let postgres = PostgresServer::start(PostgresOptions::new(folder.join("postgres"))).await?;
        let database = postgres.url("weir");
        let store = Store::connect(&StoreOptions::new(SecretString::from(database.clone()))).await?;
        store.migrate_up().await.context("the schema cannot be made")?;
        store.plant_poison().await.context("the poison cannot be planted")?;
        let queue = Queue::new(&SecretUrl::new(redis.url()), PARTITIONS)?;
        let (redis_address, postgres_address) = (local(redis.port()), local(postgres.port()));
        let gateways_to_redis = FaultProxy::start(redis_address).await;
        let workers_to_redis = FaultProxy::start(redis_address).await;
        let workers_to_postgres = FaultProxy::start(postgres_address).await;
        let role = |name, redis_proxy: &FaultProxy| {
            let mut env = options.env.clone();
            let level = if options.everysec { "memory" } else { "disk" };
            env.insert("WEIR_GATEWAY_DURABILITY".into(), level.into());
            env.insert("WEIR_REDIS_URL".into(), through(&redis.url(), redis.port(), redis_proxy));
            env.insert("WEIR_DATABASE_URL".into(), through(&database, postgres.port(), &workers_to_postgres));
            Role { name, binary: options.binary.to_owned(), folder: folder.to_owned(), env }
        };
        let gateway_role = role("gateway", &gateways_to_redis);
        let worker_role = role("worker", &workers_to_redis);
        let gateways = (0..options.gateways).map(|n| gateway_role.place(n)).collect::<Result<Vec<_>>>()?;
        let workers = (0..options.workers).map(|n| worker_role.place(n)).collect::<Result<Vec<_>>>()?;
        let mut clients = Vec::new();
        for address in gateways.iter().filter_map(Place::listen) {
            clients.push(FaultProxy::start(address).await);
        }
        let proxies = Proxies { clients, gateways_to_redis, workers_to_redis, workers_to_postgres };
        let (redis, postgres) = (Mutex::new(redis), Mutex::new(postgres));
        Ok(Self { gateways, workers, gateway_role, worker_role, redis, postgres, proxies, disk, queue, store })
    }

    /// Where senders connect: one address for each gateway.
    pub(crate) fn entrances(&self) -> Vec<SocketAddr> {
        self.proxies.clients.iter().map(FaultProxy::addr).collect()
    }

    /// Ends everything.
    pub(crate) async fn stop(self) {
        for place in self.gateways.iter().chain(&self.workers) {
            place.held().await.process.stop(Signal::TERM, Duration::from_secs(20)).await;
        }
        self.store.close().await;
        self.postgres.lock().await.stop().await;
        self.redis.lock().await.stop().await;
    }
}

async fn start_redis(folder: PathBuf, everysec: bool) -> Result<RedisServer> {
    let mut options = RedisOptions::new(folder);
    if everysec {
        options.settings.push(("appendfsync".to_owned(), "everysec".to_owned()));
    }
    Ok(RedisServer::start(options).await?)
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The URL of a local server by way of a proxy.
fn through(url: &str, port: u16, proxy: &FaultProxy) -> String {
    url.replacen(&format!("127.0.0.1:{port}"), &proxy.addr().to_string(), 1)
}
