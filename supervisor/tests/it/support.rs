//! The servers of one test, and the binary and the roles that use them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use weir_core::config::{DatabaseConfig, Reader};
use weir_core::queue::Queue;
use weir_core::queue::balance::Balance;
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_gateway::GatewayConfig;
use weir_stack::testing::{Scratch, TestRedis, eventually, postgres, redis, redis_with, scratch, unique_name};
use weir_stack::{Process, free_port, tied_command};
use weir_store::{Store, StoreOptions, testing};
use weir_worker::WorkerConfig;

use crate::http::accepts;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where nothing answers: port 1 belongs to nobody.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

/// The binary.
pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// A Redis, a database and a data folder of one test.
pub(crate) struct Stack {
    pub(crate) redis: TestRedis,
    /// The URL of the database.
    pub(crate) database: String,
    data: Scratch,
    env: BTreeMap<String, String>,
    /// Where the queue is.
    queue_url: String,
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

    /// A fresh Redis, and a database of the caller's.
    pub(crate) async fn with_database(url: String) -> Self {
        Self::on(redis().await, url)
    }

    /// A database without any table.
    pub(crate) async fn without_schema() -> Self {
        Self::on(redis().await, empty().await)
    }

    /// A Redis of the caller's, and a migrated database.
    pub(crate) async fn with_server(redis: TestRedis) -> Self {
        Self::on(redis, migrated().await)
    }

    /// Servers of the caller's.
    pub(crate) fn on(redis: TestRedis, database: String) -> Self {
        let (queue_url, env) = (redis.url(), BTreeMap::new());
        let mut stack = Self { redis, database, data: scratch(), env, queue_url, stop: Shutdown::new() };
        stack.set("WEIR_REDIS_URL", &stack.redis.url());
        stack.set("WEIR_DATABASE_URL", &stack.database.clone());
        stack.set("WEIR_DATA", &stack.data.path().display().to_string());
        stack.set("WEIR_GATEWAY_LISTEN", NOBODY);
        stack.set("WEIR_GRPC_LISTEN", "127.0.0.1:0");
        stack.set("WEIR_OPS_ENABLED", "false");
        stack
    }

    /// Has the queue at another Redis than the stack's own.
    pub(crate) fn queue_at(&mut self, url: &str) {
        self.queue_url = url.to_owned();
        self.set("WEIR_REDIS_URL", url);
    }

    /// Sets a variable of the environment of every process that follows.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// The data folder of `weir up`.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// The binary with these arguments.
    pub(crate) fn weir(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = Command::new(WEIR);
        self.surround(&mut command).args(args).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        command
    }

    /// Runs the binary to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.weir(args)).await
    }

    /// Gives a command our environment and folder, and nothing else.
    pub(crate) fn surround<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        clean(command).envs(&self.env).current_dir(self.data())
    }

    /// The queue, not prepared.
    pub(crate) fn queue(&self) -> Queue {
        Queue::new(&SecretUrl::new(self.queue_url.clone()), 4).expect("a queue")
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

    /// Messages in the database.
    pub(crate) async fn rows(&self) -> i64 {
        testing::number(&self.database, "SELECT count(*) FROM messages").await.expect("a number")
    }

    pub(crate) async fn balance(&self) -> Balance {
        self.queue().balance().await.expect("a balance")
    }

    /// Waits until nothing is in flight; the balance must hold.
    pub(crate) async fn drained(&self) -> Balance {
        let queue = self.queue();
        eventually("everything is settled", PATIENCE, async || {
            queue.balance().await.is_ok_and(|balance| balance.in_flight() == 0)
        })
        .await;
        let balance = self.balance().await;
        assert_eq!((balance.drift(), balance.lost), (0, 0), "{balance:?}");
        balance
    }
}

/// Roles within this process, which end with the test.
impl Stack {
    /// Starts a gateway that is ready, and tells the commands where it is.
    pub(crate) async fn gateway(&mut self, settings: &[(&str, &str)]) -> SocketAddr {
        self.build_gateway(reader(settings)).await
    }

    /// The same with the settings of a file.
    pub(crate) async fn gateway_from(&mut self, file: &Path) -> SocketAddr {
        self.build_gateway(Reader::new(BTreeMap::new(), BTreeMap::new(), file, true)).await
    }

    async fn build_gateway(&mut self, mut reader: Reader) -> SocketAddr {
        let mut config = GatewayConfig::read(&mut reader);
        config.listen = vec![([127, 0, 0, 1], 0).into()];
        let gateway = weir_gateway::build(config, &self.queue()).expect("a gateway");
        let (address, health) = (gateway.addresses()[0], gateway.health());
        tokio::spawn(gateway.run(self.stop.clone()));
        eventually("the gateway is ready", PATIENCE, async || health.borrow().ready).await;
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
        eventually("the worker beats", PATIENCE, async || {
            queue.command::<bool>(redis::cmd("EXISTS").arg(&key)).await.unwrap_or_default()
        })
        .await;
        name
    }
}

/// Roles as processes of their own, which can be killed.
impl Stack {
    /// Starts a gateway on a free port and waits until it accepts.
    pub(crate) async fn start_gateway(&self) -> (Process, u16) {
        let port = free_port().expect("a port");
        let gateway = self.start_gateway_on(port);
        accepts(port).await;
        (gateway, port)
    }

    /// Starts a gateway and does not wait.
    pub(crate) fn start_gateway_on(&self, port: u16) -> Process {
        self.start("gateway", &[("WEIR_GATEWAY_LISTEN", &format!("127.0.0.1:{port}"))])
    }

    /// Starts a gateway whose Redis is at `redis_url`, and waits until it accepts.
    pub(crate) async fn start_gateway_at(&self, redis_url: &str) -> (Process, u16) {
        let port = free_port().expect("a port");
        let listen = format!("127.0.0.1:{port}");
        let gateway = self.start("gateway", &[("WEIR_GATEWAY_LISTEN", &listen), ("WEIR_REDIS_URL", redis_url)]);
        accepts(port).await;
        (gateway, port)
    }

    /// Starts a worker whose PostgreSQL is at `database_url`, and does not wait.
    pub(crate) fn start_worker(&self, database_url: &str) -> Process {
        self.start("worker", &[("WEIR_DATABASE_URL", database_url), ("WEIR_WORKER_LEASE", "2s")])
    }

    /// Starts a gateway that serves the API too, on a free port, and does not wait.
    pub(crate) fn start_gateway_with_api(&self) -> (Process, u16) {
        let port = free_port().expect("a port");
        let mut command = tied_command(WEIR.as_ref(), "KILL").expect("setpriv");
        let listen = format!("127.0.0.1:{port}");
        command.args(["gateway", "--with-api"]);
        let log = self.role_log();
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.surround(&mut command).env("WEIR_GATEWAY_LISTEN", listen);
        (Process::spawn(command).expect("a process"), port)
    }

    /// Starts an API and does not wait.
    pub(crate) fn start_api(&self) -> Process {
        self.start("api", &[])
    }

    /// Starts a gateway that may have so many files open, and does not wait.
    pub(crate) fn start_gateway_with_files(&self, port: u16, files: u32) -> Process {
        let mut command = tied_command("/bin/sh".as_ref(), "KILL").expect("setpriv");
        command.args(["-c", &format!("ulimit -n {files} && exec \"$@\""), "sh", WEIR]);
        self.start_command(
            command,
            self.role_log(),
            "gateway",
            &[("WEIR_GATEWAY_LISTEN", &format!("127.0.0.1:{port}"))],
        )
    }

    fn start(&self, role: &str, more: &[(&str, &str)]) -> Process {
        self.start_command(tied_command(WEIR.as_ref(), "KILL").expect("setpriv"), self.role_log(), role, more)
    }

    /// Starts a role whose log goes there, and does not wait.
    pub(crate) fn start_logging_to(&self, log: fs::File, role: &str, more: &[(&str, &str)]) -> Process {
        self.start_command(tied_command(WEIR.as_ref(), "KILL").expect("setpriv"), log, role, more)
    }

    fn role_log(&self) -> fs::File {
        fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log")
    }

    fn start_command(&self, mut command: Command, log: fs::File, role: &str, more: &[(&str, &str)]) -> Process {
        command.arg(role).stdout(log.try_clone().expect("a log")).stderr(log);
        self.surround(&mut command).envs(more.iter().copied());
        Process::spawn(command).expect("a process")
    }

    /// What the roles' processes print.
    pub(crate) fn log(&self) -> PathBuf {
        self.data().join("roles.log")
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
    testing::migrated_database(|name| server.url(name), &unique_name()).await.expect("a database")
}

async fn empty() -> String {
    let (server, name) = (postgres().await, unique_name());
    let create = format!(r#"CREATE DATABASE "{name}""#);
    testing::execute(&server.url("postgres"), &create).await.expect("an empty database");
    server.url(&name)
}

/// Leaves nothing of our environment to a command but the way to programs.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default())
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("an exit code"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

impl Ended {
    /// Runs a command to its end.
    pub(crate) async fn of(command: impl Into<tokio::process::Command>) -> Self {
        let mut command = command.into();
        let ended = tokio::time::timeout(PATIENCE, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
        ended.expect("the command ends").expect("the command runs").into()
    }

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
