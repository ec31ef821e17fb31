//! The queue protocol: streams, dedupe memory and counters of one Redis or one Redis Cluster, changed only by the functions in
//! `functions/*.lua`.
//!
//! Writers use [`enqueue::Enqueuer`], workers [`consume`] and [`lease`], operators [`letters`], everybody [`balance`].
//! The states of an entry:
//!
//! ```text
//!                         settle
//!   enqueue -> ingest ------------------------------> row (stored or duplicate)
//!                 |  \                                 ^
//!                 |   \ move        due        settle  |
//!                 |    +------> due ----> retry -------+
//!                 | reap                 ^  |   |      |
//!                 +--------> suspect ----|--+---|------+     suspect: first together, then alone
//!                              |  move   |      | move
//!                              +---------|------+-----> parked (unknown version)
//!                              +---------|------+-----> dead  --purge--> gone
//!                                        +---------------+
//!                                             replay
//! ```

pub mod keys;

mod branches;
mod cluster;
mod error;
mod functions;
mod link;
mod primary;
mod roots;
mod slots;
mod two_steps;

pub mod balance;
pub mod consume;
pub mod enqueue;
pub mod lease;
pub mod letters;
pub mod server;
pub mod tally;

pub mod entry_id;
pub mod flight;
pub mod trail;

use std::sync::Arc;
use std::time::Duration;

pub use error::QueueError;
pub use link::{Link, Node};
pub use primary::Seen;
use redis::{Cmd, Value};
pub use roots::Roots;

use crate::secret::SecretUrl;
use functions::Library;
use keys::Keys;

/// The consumer group of every stream that workers read.
pub const GROUP: &str = "workers";

/// Version of the layout of keys; a role that expects another one refuses to start.
const SCHEMA: &str = "1";

/// The same in a Redis Cluster, where the partitions have other hash tags.
const CLUSTER_SCHEMA: &str = "1-cluster";

/// How long a command other than a batch may take before its connection is given up.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);

/// A queue on one Redis primary, or on those of a Redis Cluster. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Queue {
    link: Arc<Link>,
    library: Arc<Library>,
    keys: Arc<[Keys]>,
}

impl Queue {
    /// A queue of `partitions` partitions on the server at `url`. Nothing is connected yet.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &SecretUrl, partitions: u16) -> Result<Self, QueueError> {
        Self::with_roots(url, partitions, Roots::default())
    }

    /// The same on a server whose certificate is of one of these authorities.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn with_roots(url: &SecretUrl, partitions: u16, roots: Roots) -> Result<Self, QueueError> {
        let link = Link::new(url, &roots, COMMAND_TIMEOUT)?;
        let in_cluster = link.is_cluster();
        let keys = |partition| if in_cluster { Keys::in_cluster(partition, partitions) } else { Keys::new(partition) };
        let keys = (0..partitions).map(keys).collect();
        Ok(Self { link: Arc::new(link), library: Arc::new(Library::new()), keys })
    }

    /// The same queue over a connection of its own with another response timeout: for batches, and for blocked reads.
    pub fn on_own_link(&self, timeout: Duration) -> Self {
        Self { link: Arc::new(self.link.another(timeout)), ..self.clone() }
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u16 {
        self.keys.len() as u16
    }

    /// The keys of a partition, `0..partitions`.
    pub fn keys(&self, partition: u16) -> &Keys {
        &self.keys[usize::from(partition)]
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Makes sure that the queue of this Redis is ours and complete: layout and number of partitions agree, functions
    /// are loaded, groups exist. Gives how many groups had to be made.
    ///
    /// # Errors
    /// [`QueueError::Deployment`] when the data set has another layout or number of partitions.
    pub async fn prepare(&self) -> Result<u64, QueueError> {
        self.check_layout().await?;
        let mut made = 0;
        for partition in 0..self.partitions() {
            made += self.ensure(partition).await?;
        }
        Ok(made)
    }

    /// Makes sure that the layout and the number of partitions are ours.
    ///
    /// # Errors
    /// [`QueueError::Deployment`] when the data set has others.
    pub async fn check_layout(&self) -> Result<(), QueueError> {
        let schema = if self.link.is_cluster() { CLUSTER_SCHEMA } else { SCHEMA };
        self.check_meta("schema", schema).await?;
        self.check_meta("partitions", &self.partitions().to_string()).await
    }

    /// Makes sure that a partition has its groups. Gives how many had to be made.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn ensure(&self, partition: u16) -> Result<u64, QueueError> {
        let keys = self.keys(partition);
        self.call("ensure", &[&keys.count, &keys.ingest, &keys.retry, &keys.suspect], &[]).await
    }

    async fn check_meta(&self, field: &str, ours: &str) -> Result<(), QueueError> {
        let mut ask = redis::cmd("HGET");
        ask.arg(keys::META).arg(field);
        // Reading first: a role has to start, and to drain, while Redis is out of memory and refuses the write.
        let found: Option<String> = self.command(&ask).await?;
        let theirs: String = match found {
            Some(theirs) => theirs,
            None => {
                self.command::<i64>(redis::cmd("HSETNX").arg(keys::META).arg(field).arg(ours)).await?;
                self.command(&ask).await?
            }
        };
        if theirs == ours {
            return Ok(());
        }
        Err(QueueError::Deployment(format!(
            "this Redis holds a queue with {field} {theirs}, but {field} {ours} is configured; use the same value, or \
             another Redis"
        )))
    }

    /// Runs one command.
    ///
    /// # Errors
    /// See [`QueueError`]; after [`QueueError::Unknown`] the connection is made anew.
    pub async fn command<T: redis::FromRedisValue>(&self, cmd: &Cmd) -> Result<T, QueueError> {
        self.link.command(cmd).await
    }

    /// Calls a function of the library; loads the library first when the server does not have it (any more).
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn call<T: redis::FromRedisValue>(
        &self,
        function: &str,
        keys: &[&str],
        args: &[Arg<'_>],
    ) -> Result<T, QueueError> {
        let mut cmd = self.fcall(function, keys.len());
        for key in keys {
            cmd.arg(key);
        }
        for arg in args {
            arg.push(&mut cmd);
        }
        match self.link.command_from::<Value>(&cmd).await {
            (Err(error), node) if error.is_missing_function() => {
                self.load_at(&node).await?;
                self.link.command(&cmd).await
            }
            (Err(error), _) => Err(error),
            (Ok(value), _) => T::from_redis_value(value).map_err(|error| QueueError::reply(&error)),
        }
    }

    /// The beginning of an `FCALL` with `keys` keys to follow.
    fn fcall(&self, function: &str, keys: usize) -> Cmd {
        let mut cmd = redis::cmd("FCALL");
        cmd.arg(self.library.function(function)).arg(keys);
        cmd
    }

    /// Loads the function library, in a Redis Cluster at every primary that has slots; harmless when it is there.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn load(&self) -> Result<(), QueueError> {
        for node in self.link.nodes().await? {
            self.load_at(&node).await?;
        }
        Ok(())
    }

    async fn load_at(&self, node: &Node) -> Result<(), QueueError> {
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg(&self.library.source);
        match self.link.command_at::<Value>(node, &load).await {
            Err(QueueError::Refused { text, .. }) if text.contains("already exists") => Ok(()),
            Err(QueueError::Deployment(text)) if text.contains("NOPERM") => Err(QueueError::Deployment(format!(
                "the functions of this version are not in Redis, and this user may not load them: run `weir migrate \
                 functions` as one who may ({text})"
            ))),
            Err(error) => Err(error),
            Ok(_) => {
                tracing::info!(library = self.library.name, server = node.address(), "loaded the function library");
                Ok(())
            }
        }
    }

    /// Name of the function library of this build; other builds use others beside it.
    pub fn library(&self) -> &str {
        &self.library.name
    }
}

/// An argument of a function.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes of any kind.
    Bytes(&'a [u8]),
    /// A whole number.
    Number(u64),
}

impl Arg<'_> {
    fn push(&self, cmd: &mut Cmd) {
        match self {
            Arg::Text(text) => cmd.arg(text),
            Arg::Bytes(bytes) => cmd.arg(bytes),
            Arg::Number(number) => cmd.arg(number),
        };
    }
}

/// The first element of a function's reply, which says what follows.
fn head(reply: &[Value]) -> &[u8] {
    match reply.first() {
        Some(Value::BulkString(bytes)) => bytes,
        _ => b"",
    }
}

/// Element `at` of a reply as a number; 0 when it is none.
fn number(reply: &[Value], at: usize) -> u64 {
    match reply.get(at) {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or_default(),
        Some(Value::BulkString(bytes)) => {
            std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
        }
        _ => 0,
    }
}

/// Element `at` of a reply as text; empty when it is none.
fn text(reply: &[Value], at: usize) -> String {
    match reply.get(at) {
        Some(Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}
