//! The servers on the stand: Redis and PostgreSQL of their own, a gateway and workers as processes of their own, and what
//! they work on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpStream;
use weir_core::config::{DatabaseConfig, Reader};
use weir_core::message::Message;
use weir_core::queue::Queue;
use weir_core::queue::enqueue::{Bounds, Enqueuer, NewEntry};
use weir_core::queue::server::Durability;
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_gateway::GatewayConfig;
use weir_gateway::config::{Rate, TlsFiles};
use weir_stack::testing::{Authority, Scratch, scratch, unique_name};
use weir_stack::{PostgresOptions, PostgresServer, RedisOptions, RedisServer, free_port};
use weir_store::{Store, StoreOptions, testing};
use weir_worker::WorkerConfig;

use crate::bare::PORT;
use crate::child::Child;
use crate::load;

/// Environment variable with the URL of Redis.
const REDIS: &str = "BENCH_REDIS";
/// Environment variable with the URL of PostgreSQL.
const DATABASE: &str = "BENCH_DATABASE";
/// Environment variable with the number of partitions, unless there are [`PARTITIONS`].
const SPLIT: &str = "BENCH_PARTITIONS";
/// Environment variable with the name of a worker.
const NAME: &str = "BENCH_WORKER";
/// Environment variable that lifts the limit of each client: the busiest of a mix would meet it.
const LIFTED: &str = "BENCH_CLIENTS_UNLIMITED";

/// Environment variable with the folder of a certificate; without it the gateway speaks without TLS.
const TLS: &str = "BENCH_TLS";

/// Partitions of a queue, unless their number is what is measured.
pub(crate) const PARTITIONS: u16 = 4;

/// Nobody may be refused for what runs leave behind.
const NO_BOUNDS: Bounds =
    Bounds { backlog: 1 << 40, window: Duration::from_secs(86_400), remembered: 20_000_000, replicas: None };

/// The defaults of everything.
pub(crate) fn reader() -> Reader {
    Reader::new(BTreeMap::new(), BTreeMap::new(), Path::new("/nonexistent"), false)
}

fn queue_of_environment() -> Result<Queue> {
    let partitions = std::env::var(SPLIT).map_or(Ok(PARTITIONS), |text| text.parse())?;
    Ok(Queue::new(&SecretUrl::new(std::env::var(REDIS)?), partitions)?)
}

/// What `weir-bench serve-gateway` does.
pub(crate) async fn serve_gateway(durability: Durability) -> Result<()> {
    let port: u16 = std::env::var(PORT)?.parse()?;
    let listen = vec![([127, 0, 0, 1], port).into()];
    let mut config = GatewayConfig { listen, durability, ..GatewayConfig::read(&mut reader()) };
    config.bounds.backlog = NO_BOUNDS.backlog;
    // Room for ten thousand idle connections and one that asks.
    config.http.connections = 11_000;
    // And time for those that say nothing at all.
    config.http.header_timeout = Duration::from_secs(120);
    config.tls = std::env::var_os(TLS).map(|folder| {
        let folder = Path::new(&folder);
        TlsFiles { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") }
    });
    if std::env::var(LIFTED).is_ok() {
        let many = NonZeroU32::new(1_000_000);
        for source in &mut config.sources {
            source.per_client = many.map(|many| Rate { per_second: many, burst: many });
        }
    }
    weir_gateway::build(config, &queue_of_environment()?)?.run(Shutdown::new()).await;
    Ok(())
}

/// What `weir-bench serve-worker` does.
pub(crate) async fn serve_worker() -> Result<()> {
    let mut reader = reader();
    let database = DatabaseConfig::read(&mut reader);
    let mut config = WorkerConfig::read(&mut reader, database);
    config.name = std::env::var(NAME).ok();
    let store = Store::connect_lazy(&StoreOptions::new(std::env::var(DATABASE)?.into()))?;
    weir_worker::build(config, &queue_of_environment()?, store).run(Shutdown::new()).await;
    Ok(())
}

/// A server that answers on a port of its own.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

/// Which gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gateway {
    pub(crate) durability: &'static str,
    pub(crate) partitions: u16,
    pub(crate) clients_unlimited: bool,
}

impl Gateway {
    pub(crate) const DISK: Self = Self { durability: "disk", partitions: PARTITIONS, clients_unlimited: false };
    pub(crate) const MEMORY: Self = Self { durability: "memory", ..Self::DISK };

    pub(crate) async fn start(self, redis: &str) -> Result<Served> {
        let mut env = vec![(SPLIT, self.partitions.to_string())];
        if self.clients_unlimited {
            env.push((LIFTED, "1".to_owned()));
        }
        serve(&["serve-gateway", "--durability", self.durability], redis, env).await
    }
}

/// A gateway that speaks TLS, once it listens, and the authority that its clients have to believe.
pub(crate) async fn with_tls(redis: &str) -> Result<(Served, Authority, Scratch)> {
    let (authority, folder) = (Authority::new("Weir's stand"), scratch());
    authority.issue(&["localhost"]).write(folder.path());
    let port = free_port()?;
    let env = [(PORT, port.to_string()), (REDIS, redis.to_owned()), (TLS, folder.path().display().to_string())];
    let child = Child::start(&["serve-gateway", "--durability", Gateway::MEMORY.durability], &env)?;
    let served = Served { child, address: ([127, 0, 0, 1], port).into() };
    for _ in 0..500 {
        if TcpStream::connect(served.address).await.is_ok() {
            return Ok((served, authority, folder));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the gateway with TLS does not listen within ten seconds")
}

/// A bare hyper server.
pub(crate) async fn bare() -> Result<Served> {
    serve(&["serve-bare"], "", Vec::new()).await
}

async fn serve(args: &[&str], redis: &str, mut env: Vec<(&'static str, String)>) -> Result<Served> {
    let port = free_port()?;
    env.extend([(PORT, port.to_string()), (REDIS, redis.to_owned())]);
    let child = Child::start(args, &env)?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    for _ in 0..500 {
        if TcpStream::connect(address).await.is_ok() && load::accepts(address).await {
            return Ok(Served { child, address });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{args:?} does not serve within ten seconds")
}

/// Starts this program as a server, and gives where it serves.
pub(crate) async fn start(args: &[&str], redis: &str) -> Result<(Child, SocketAddr)> {
    let served = serve(args, redis, Vec::new()).await?;
    Ok((served.child, served.address))
}

/// Starts a worker.
pub(crate) fn worker(redis: &str, database: &str, partitions: u16, name: Option<&str>) -> Result<Child> {
    let mut env = vec![(REDIS, redis.to_owned()), (DATABASE, database.to_owned()), (SPLIT, partitions.to_string())];
    env.extend(name.map(|name| (NAME, name.to_owned())));
    Child::start(&["serve-worker"], &env)
}

/// A Redis with its folder.
pub(crate) struct Redis {
    // In this order: the server goes before its folder.
    server: RedisServer,
    _folder: Scratch,
}

impl Redis {
    /// It syncs every write, as in production, and does not rewrite its log in the middle of a measurement.
    pub(crate) async fn on_disk() -> Result<Self> {
        Self::start(("auto-aof-rewrite-percentage", "0")).await
    }

    /// It writes nothing to disk.
    pub(crate) async fn in_memory() -> Result<Self> {
        Self::start(("appendonly", "no")).await
    }

    async fn start((name, value): (&str, &str)) -> Result<Self> {
        let folder = scratch();
        let mut options = RedisOptions::new(folder.path().join("redis"));
        options.settings = vec![(name.to_owned(), value.to_owned())];
        Ok(Self { server: RedisServer::start(options).await?, _folder: folder })
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Its queue, ready for entries.
    pub(crate) async fn queue(&self, partitions: u16) -> Result<Queue> {
        queue(&self.url(), partitions).await
    }

    /// Forgets everything but the functions.
    pub(crate) async fn flush(&self) -> Result<()> {
        let queue = Queue::new(&SecretUrl::new(self.url()), PARTITIONS)?;
        queue.command::<()>(redis::cmd("FLUSHALL").arg("SYNC")).await?;
        Ok(())
    }

    /// Transactions that it has executed: a batch each.
    pub(crate) async fn batches(&self) -> Result<u64> {
        let queue = Queue::new(&SecretUrl::new(self.url()), PARTITIONS)?;
        let text: String = queue.command(redis::cmd("INFO").arg("commandstats")).await?;
        let calls = text.split("cmdstat_exec:calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        Ok(calls.unwrap_or(0))
    }
}

/// The queue of a Redis, ready for entries.
pub(crate) async fn queue(redis: &str, partitions: u16) -> Result<Queue> {
    let queue = Queue::new(&SecretUrl::new(redis.to_owned()), partitions)?;
    queue.prepare().await?;
    Ok(queue)
}

/// PostgreSQL with the settings of `weir up`.
pub(crate) struct Postgres {
    // In this order: the server goes before its folder.
    server: PostgresServer,
    _folder: Scratch,
}

impl Postgres {
    pub(crate) async fn start() -> Result<Self> {
        let folder = scratch();
        let server = PostgresServer::start(PostgresOptions::new(folder.path().join("postgres"))).await?;
        Ok(Self { server, _folder: folder })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// The URL of a new database with the present schema; the server has nothing left to write for others.
    pub(crate) async fn database(&self) -> Result<String> {
        let url = testing::migrated_database(|name| self.server.url(name), &unique_name()).await?;
        testing::execute(&url, "CHECKPOINT").await?;
        Ok(url)
    }

    pub(crate) async fn drop(&self, database: &str) -> Result<()> {
        let name = database.rsplit('/').next().context("a URL ends with the database's name")?;
        testing::execute(&self.server.url("postgres"), &format!(r#"DROP DATABASE "{name}" WITH (FORCE)"#)).await?;
        Ok(())
    }
}

/// An enqueuer that is never full.
pub(crate) fn enqueuer(queue: Queue) -> Enqueuer {
    Enqueuer::new(queue, NO_BOUNDS)
}

/// Messages in one call of those that make a backlog.
const FILL: usize = 1000;

/// Makes a backlog of new messages; `told` hears of each step.
pub(crate) async fn fill(queue: &Queue, messages: usize, told: impl Fn(usize)) -> Result<()> {
    fill_with(queue, messages, entry, told).await
}

/// The same of entries that `make` makes, given a number of the run and one of the entry.
pub(crate) async fn fill_with(
    queue: &Queue,
    messages: usize,
    make: impl Fn(u32, usize) -> NewEntry,
    told: impl Fn(usize),
) -> Result<()> {
    let enqueuer = enqueuer(queue.clone());
    let run = rand::random();
    let mut first = 0;
    while first < messages {
        let end = messages.min(first + FILL);
        let entries: Vec<_> = (first..end).map(|number| make(run, number)).collect();
        append(&enqueuer, &entries).await?;
        first = end;
        told(end);
    }
    Ok(())
}

/// How often a call is repeated that a busy machine did not answer in time.
const TRIES: usize = 5;

/// A repeated call appends nothing twice: what the first one appended is known by its id.
async fn append(enqueuer: &Enqueuer, entries: &[NewEntry]) -> Result<()> {
    for attempt in 1..=TRIES {
        match enqueuer.enqueue(entries).await.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(_) => break,
            Err(error) if attempt == TRIES => return Err(error).context("a backlog could not be made"),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
    Ok(())
}

/// Clients of a backlog: so many that a worker meets new ones at first and knows them later.
pub(crate) const CLIENTS: usize = 50_000;

/// A message of a backlog.
pub(crate) fn message(run: u32, number: usize) -> Message<'static> {
    Message {
        source: "messenger".into(),
        external_message_id: format!("{run:08x}{number:024x}").into(),
        external_client_id: format!("fedcba0987654321abcdef12{:08x}", number % CLIENTS).into(),
        client_phone: format!("+7919{:07}", number % CLIENTS).into(),
        message_text: "Здравствуйте! Где мой заказ?".into(),
        send_at: 1_760_000_000 + (number % 86_400) as i64,
        extra: None,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
    }
}

pub(crate) fn entry(run: u32, number: usize) -> NewEntry {
    let message = message(run, number);
    NewEntry::from(&message)
}
