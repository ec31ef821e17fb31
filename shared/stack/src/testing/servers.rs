//! Servers for tests.

use std::ops::{Deref, DerefMut};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tokio::sync::{OnceCell, oneshot};

use super::{Clock, Scratch, scratch};
use crate::{PostgresOptions, PostgresServer, RedisOptions, RedisServer, Result};

/// A Redis of one test, with its folder.
#[derive(Debug)]
pub struct TestRedis {
    // In this order: the server goes before its folder.
    server: RedisServer,
    _scratch: Scratch,
}

/// A Redis as in production: every write is on disk before its reply.
///
/// # Panics
/// If it does not start.
pub async fn redis() -> TestRedis {
    redis_with(&[]).await
}

/// A Redis with other settings, such as `("maxmemory", "5mb")`.
///
/// # Panics
/// If it does not start.
pub async fn redis_with(settings: &[(&str, &str)]) -> TestRedis {
    redis_from(|options| options.settings = owned(settings)).await
}

/// A Redis with any other options.
///
/// # Panics
/// If it does not start.
pub async fn redis_from(adjust: impl FnOnce(&mut RedisOptions)) -> TestRedis {
    let scratch = scratch();
    let mut options = RedisOptions::new(scratch.path().join("redis"));
    adjust(&mut options);
    let server = RedisServer::start(options).await;
    TestRedis { server: started(server), _scratch: scratch }
}

/// A Redis that goes by a clock which the test can set.
///
/// # Panics
/// If it does not start.
pub async fn redis_by(clock: &Clock) -> TestRedis {
    let scratch = scratch();
    let mut options = RedisOptions::new(scratch.path().join("redis"));
    options.env = clock.env().into();
    let server = RedisServer::start(options).await;
    TestRedis { server: started(server), _scratch: scratch }
}

impl Deref for TestRedis {
    type Target = RedisServer;

    fn deref(&self) -> &RedisServer {
        &self.server
    }
}

impl DerefMut for TestRedis {
    fn deref_mut(&mut self) -> &mut RedisServer {
        &mut self.server
    }
}

/// A PostgreSQL of one test, which may stop or kill it, with its folder.
#[derive(Debug)]
pub struct TestPostgres {
    // In this order: the server goes before its folder.
    server: PostgresServer,
    _scratch: Scratch,
}

/// A PostgreSQL for one test alone. Creating it takes a second or two; tests that leave the server alone share
/// [`postgres`].
///
/// # Panics
/// If it does not start.
pub async fn own_postgres() -> TestPostgres {
    postgres_with(&[]).await
}

/// A PostgreSQL for one test alone, with other settings.
///
/// # Panics
/// If it does not start.
pub async fn postgres_with(settings: &[(&str, &str)]) -> TestPostgres {
    let scratch = scratch();
    let mut options = PostgresOptions::new(scratch.path().join("postgres"));
    options.settings = owned(&SMALL);
    options.settings.extend(owned(settings));
    let server = PostgresServer::start(options).await;
    TestPostgres { server: started(server), _scratch: scratch }
}

impl Deref for TestPostgres {
    type Target = PostgresServer;

    fn deref(&self) -> &PostgresServer {
        &self.server
    }
}

impl DerefMut for TestPostgres {
    fn deref_mut(&mut self) -> &mut PostgresServer {
        &mut self.server
    }
}

/// Small, but as durable as in production.
const SMALL: [(&str, &str); 3] = [("shared_buffers", "64MB"), ("max_wal_size", "1GB"), ("max_connections", "300")];

/// The PostgreSQL that all tests of a process share, each in a database of its own. It ends with the process.
#[derive(Debug)]
pub struct SharedPostgres {
    server: TestPostgres,
}

impl SharedPostgres {
    /// The URL of a database; `weir` is there from the start.
    pub fn url(&self, database: &str) -> String {
        self.server.url(database)
    }
}

/// The shared PostgreSQL, started by the first test that asks. Tests with runtimes of their own may share it.
///
/// # Panics
/// If it does not start.
pub async fn postgres() -> &'static SharedPostgres {
    static SHARED: OnceCell<SharedPostgres> = OnceCell::const_new();
    SHARED.get_or_init(async || SharedPostgres { server: start_on_own_thread().await }).await
}

/// The test that comes first may end, and its runtime with it, while others wait for the server.
async fn start_on_own_thread() -> TestPostgres {
    let (reply, server) = oneshot::channel();
    thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime to start PostgreSQL");
        let _ = reply.send(runtime.block_on(own_postgres()));
    });
    server.await.expect("a shared PostgreSQL")
}

/// A name for a database or a key prefix that no other test uses: lower-case letters, digits and `_`, starting with a
/// letter.
pub fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random: u32 = rand::random();
    format!("t{}_{count}_{random:08x}", process::id())
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub(super) fn started<T>(server: Result<T>) -> T {
    server.unwrap_or_else(|error| panic!("failed to {error}"))
}
