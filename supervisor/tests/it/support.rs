//! The binary, the servers that it needs, and a plain HTTP client.

use std::fs;
use std::io;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_core::queue::Queue;
use weir_core::queue::balance::Balance;
use weir_core::secret::SecretUrl;
use weir_stack::testing::{Scratch, TestRedis, eventually, postgres, redis, scratch, unique_name};
use weir_stack::{Process, free_port, tied_command};
use weir_store::testing;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary.
pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// A Redis, a database and a folder of one test; the roles are processes.
pub(crate) struct World {
    pub(crate) redis: TestRedis,
    pub(crate) redis_url: String,
    pub(crate) queue: Queue,
    pub(crate) database_url: String,
    pub(crate) data: Scratch,
}

impl World {
    pub(crate) async fn new() -> Self {
        let server = postgres().await;
        let database = testing::migrated_database(|name| server.url(name), &unique_name()).await.expect("a database");
        Self::with_database(database).await
    }

    /// A world with a database of the caller's.
    pub(crate) async fn with_database(database_url: String) -> Self {
        let redis = redis().await;
        let redis_url = redis.url();
        let queue = Queue::new(&SecretUrl::new(&*redis_url), 4).expect("a URL");
        Self { redis, redis_url, queue, database_url, data: scratch() }
    }

    /// Starts a gateway on a free port and waits until it accepts.
    pub(crate) async fn start_gateway(&self) -> (Process, u16) {
        let port = free_port().expect("a port");
        let gateway = self.start_gateway_on(port);
        accepts(port).await;
        (gateway, port)
    }

    /// Starts a gateway and does not wait.
    pub(crate) fn start_gateway_on(&self, port: u16) -> Process {
        self.start("gateway", &self.database_url, &[("WEIR_GATEWAY_LISTEN", &format!("127.0.0.1:{port}"))])
    }

    /// Starts a worker whose PostgreSQL is at `database_url`, and does not wait.
    pub(crate) fn start_worker(&self, database_url: &str) -> Process {
        self.start("worker", database_url, &[("WEIR_WORKER_LEASE", "2s")])
    }

    fn start(&self, role: &str, database_url: &str, more: &[(&str, &str)]) -> Process {
        let mut command = tied_command(WEIR.as_ref(), "KILL").expect("setpriv");
        let log = self.data.path().join("roles.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
        command.arg(role).stdout(log.try_clone().expect("a log")).stderr(log);
        self.surround(&mut command, database_url).envs(more.iter().copied());
        Process::spawn(command).expect("a process")
    }

    fn surround<'a>(&self, command: &'a mut Command, database_url: &str) -> &'a mut Command {
        clean(command)
            .env("WEIR_REDIS_URL", &self.redis_url)
            .env("WEIR_DATABASE_URL", database_url)
            .env("WEIR_OPS_ENABLED", "false")
            .env("WEIR_DATA", self.data.path().join("weir"))
            .current_dir(self.data.path())
    }

    /// Runs a command of the operator's to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(WEIR);
        self.surround(&mut command, &self.database_url).args(args);
        output(command).await
    }

    pub(crate) async fn balance(&self) -> Balance {
        self.queue.balance().await.expect("a balance")
    }

    /// Waits until nothing is in flight; the balance must hold.
    pub(crate) async fn drained(&self) -> Balance {
        eventually("everything is settled", PATIENCE, async || {
            self.queue.balance().await.is_ok_and(|balance| balance.in_flight() == 0)
        })
        .await;
        let balance = self.balance().await;
        assert_eq!((balance.drift(), balance.lost), (0, 0), "{balance:?}");
        balance
    }

    /// Messages in the database.
    pub(crate) async fn rows(&self) -> i64 {
        testing::number(&self.database_url, "SELECT count(*) FROM messages").await.expect("a number")
    }
}

/// Takes every setting of ours out of a command's environment.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEIR_") || name == "DATABASE_URL" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub(crate) async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("the command runs")).await.expect("no panic")
}

/// Waits until the gateway on this port accepts messages.
pub(crate) async fn accepts(port: u16) {
    eventually("the gateway accepts", PATIENCE, async || {
        request(port, "GET", "/api/v1/webhook", "").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

/// A message.
pub(crate) fn body(id: &str, client: &str, text: &str) -> String {
    serde_json::json!({
        "external_message_id": id,
        "external_client_id": client,
        "client_phone": "+79194961182",
        "message_text": text,
        "send_at": 1_640_995_200,
    })
    .to_string()
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Null when the body is no JSON.
    pub(crate) body: Value,
}

/// One request over a connection of its own.
pub(crate) async fn request(port: u16, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    parse(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// An answer, once its head is complete.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default() })
}
