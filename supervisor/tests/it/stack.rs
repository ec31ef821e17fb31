//! A Redis, a database and a data folder of one test, and the binary that uses them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use tokio::process::Command;
use weir_core::config::{DatabaseConfig, Reader};
use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_gateway::GatewayConfig;
use weir_stack::testing::{Scratch, TestRedis, eventually, postgres, redis, redis_with, scratch, unique_name};
use weir_store::{Store, StoreOptions};
use weir_worker::WorkerConfig;

/// How long anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Where nothing answers: port 1 belongs to nobody.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

/// The servers of one test.
pub(crate) struct Stack {
    pub(crate) redis: TestRedis,
    pub(crate) database: String,
    data: Scratch,
    env: BTreeMap<String, String>,
    stop: Shutdown,
}

impl Stack {
    /// A fresh Redis and a migrated database.
    pub(crate) async fn new() -> Self {
        Self::on(redis().await, migrated().await)
    }

    /// A Redis with other settings, and a migrated database.
    pub(crate) async fn with_redis(settings: &[(&str, &str)]) -> Self {
        Self::on(redis_with(settings).await, migrated().await)
    }

    /// A database without any table.
    pub(crate) async fn without_schema() -> Self {
        Self::on(redis().await, empty().await)
    }

    fn on(redis: TestRedis, database: String) -> Self {
        let mut stack = Self { redis, database, data: scratch(), env: BTreeMap::new(), stop: Shutdown::new() };
        stack.set("WEIR_REDIS_URL", &stack.redis.url());
        stack.set("WEIR_DATABASE_URL", &stack.database.clone());
        stack.set("WEIR_DATA", &stack.data.path().display().to_string());
        stack.set("WEIR_GATEWAY_LISTEN", NOBODY);
        stack
    }

    /// Sets a variable of the environment of every command that follows.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// The data folder of `weir up`.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// The binary with these arguments and no environment but ours.
    pub(crate) fn weir(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.env_clear().envs(&self.env).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.current_dir(self.data()).args(args).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs the binary to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        let ended = tokio::time::timeout(DEADLINE * 2, self.weir(args).output()).await;
        let output = ended.expect("the command ends").expect("the command runs");
        Ended {
            code: output.status.code().expect("an exit code"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// The queue, not prepared.
    pub(crate) fn queue(&self) -> Queue {
        Queue::new(&SecretUrl::new(self.redis.url()), 4).expect("a queue")
    }

    /// The queue as a role leaves it after its start.
    pub(crate) async fn prepared(&self) -> Queue {
        let queue = self.queue();
        queue.prepare().await.expect("a prepared queue");
        queue
    }

    pub(crate) async fn store(&self) -> Store {
        Store::connect(&StoreOptions::new(SecretString::from(self.database.clone()))).await.expect("a store")
    }

    /// Starts a gateway that is ready, and tells the commands where it is.
    pub(crate) async fn gateway(&mut self, settings: &[(&str, &str)]) -> SocketAddr {
        self.start_gateway(reader(settings)).await
    }

    /// The same with the settings of a file.
    pub(crate) async fn gateway_from(&mut self, file: &Path) -> SocketAddr {
        self.start_gateway(Reader::new(BTreeMap::new(), BTreeMap::new(), file, true)).await
    }

    async fn start_gateway(&mut self, mut reader: Reader) -> SocketAddr {
        let mut config = GatewayConfig::read(&mut reader);
        config.listen = vec![([127, 0, 0, 1], 0).into()];
        let gateway = weir_gateway::build(config, &self.queue()).expect("a gateway");
        let (address, health) = (gateway.addresses()[0], gateway.health());
        tokio::spawn(gateway.run(self.stop.clone()));
        eventually("the gateway is ready", DEADLINE, async || health.borrow().ready).await;
        self.set("WEIR_GATEWAY_LISTEN", &address.to_string());
        address
    }

    /// Starts a worker that is ready and seen by others. Gives its name.
    pub(crate) async fn worker(&self, settings: &[(&str, &str)]) -> String {
        let mut reader = reader(settings);
        let database = DatabaseConfig::read(&mut reader);
        let config = WorkerConfig::read(&mut reader, database);
        let queue = self.queue();
        let worker = weir_worker::build(config, &queue, self.store().await);
        let name = worker.name().to_owned();
        tokio::spawn(worker.run(self.stop.clone()));
        let key = weir_core::queue::keys::worker(&name);
        eventually("the worker beats", DEADLINE, async || {
            queue.command::<bool>(redis::cmd("EXISTS").arg(&key)).await.unwrap_or_default()
        })
        .await;
        name
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn reader(settings: &[(&str, &str)]) -> Reader {
    let flags = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Reader::new(flags, BTreeMap::new(), Path::new("no-such-file"), false)
}

async fn migrated() -> String {
    let server = postgres().await;
    weir_store::testing::migrated_database(|name| server.url(name), &unique_name()).await.expect("a database")
}

async fn empty() -> String {
    let (server, name) = (postgres().await, unique_name());
    let create = format!(r#"CREATE DATABASE "{name}""#);
    weir_store::testing::execute(&server.url("postgres"), &create).await.expect("an empty database");
    server.url(&name)
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it printed, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Ended with this code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// All that a person sees.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// A person sees each of these.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        let text = self.text();
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {self:#?}");
        }
        self
    }
}

/// The help of a command, as a snapshot.
macro_rules! assert_help {
    ($($word:literal)+) => {{
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_weir"))
            .args([$($word),+, "--help"]).env_clear().output().expect("the help");
        let name = concat!("help", $("_", $word),+);
        insta::assert_snapshot!(name, String::from_utf8(output.stdout).expect("text"));
    }};
}
pub(crate) use assert_help;
