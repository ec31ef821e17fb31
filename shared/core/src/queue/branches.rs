//! One link's connections to the primaries of a Redis Cluster, and the way of a command to the one that has its key.
//!
//! A primary that says that a slot is elsewhere has not run the command: it is sent there. Nothing else is sent twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Mutex;

use super::QueueError;
use super::cluster::Cluster;
use super::link::{config, open};
use super::slots::{slot_of_command, slot_of_meta};

/// How often a command follows a slot. One step is the rule, two while a slot moves.
pub(super) const REDIRECTS: usize = 5;

/// Where a command goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) address: Arc<str>,
    /// The slot is still moving there: each command has to say that it was sent there.
    pub(super) asking: bool,
}

enum Step<T> {
    There(T),
    /// Nothing was done; it belongs there.
    Elsewhere(Way),
}

/// The connections of one link, each made when it is needed.
pub(super) struct Branches {
    cluster: Arc<Cluster>,
    timeout: Duration,
    branches: SyncMutex<HashMap<Arc<str>, Arc<Mutex<Branch>>>>,
}

#[derive(Default)]
struct Branch {
    connection: Option<MultiplexedConnection>,
    /// When and why it could not be made the last time.
    failed: Option<(Instant, QueueError)>,
}

impl Branches {
    pub(super) fn new(cluster: Arc<Cluster>, timeout: Duration) -> Self {
        Self { cluster, timeout, branches: SyncMutex::default() }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives all connections up.
    pub(super) fn reset(&self) {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn branch(&self, address: &Arc<str>) -> Arc<Mutex<Branch>> {
        let mut branches = self.branches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(branch) = branches.get(address) {
            return branch.clone();
        }
        // Whoever is no primary any more is not connected to for ever.
        branches.retain(|address, _| self.cluster.has(address));
        branches.entry(address.clone()).or_default().clone()
    }

    /// Gives one connection up.
    pub(super) fn reset_at(&self, address: &Arc<str>) {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    /// Who waited while somebody else could not connect hears of that and does not try again after them.
    async fn connection(&self, address: &Arc<str>) -> Result<MultiplexedConnection, QueueError> {
        let (branch, since) = (self.branch(address), Instant::now());
        let mut branch = branch.lock().await;
        if let Some(connection) = &branch.connection {
            return Ok(connection.clone());
        }
        if let Some((at, error)) = &branch.failed
            && *at > since
        {
            return Err(error.clone());
        }
        match open(self.cluster.info(address), &config(self.timeout)).await {
            Ok(connection) => {
                branch.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let error = named(address, error);
                branch.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The way to the primary of a slot.
    ///
    /// # Errors
    /// When no node knows it.
    pub(super) async fn way(&self, slot: u16) -> Result<Way, QueueError> {
        Ok(Way { address: self.cluster.owner(slot).await?, asking: false })
    }

    /// Where the node at the end of a way says that the slot is; none if it says something else.
    pub(super) fn redirect(&self, error: &RedisError, from: &Way) -> Option<Way> {
        let (to, slot) = error.redirect_node()?;
        let asking = matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Ask));
        let host = from.address.rsplit_once(':').map_or(&*from.address, |(host, _)| host);
        // A node that does not know the other's name means the host that it was asked by.
        let address = if to.starts_with(':') { format!("{host}{to}") } else { to.to_owned() };
        if !asking {
            self.cluster.moved(slot, &address);
        }
        Some(Way { address: address.into(), asking })
    }

    /// After a primary could not be reached, nothing having been sent: the way to another one, if it has been replaced.
    pub(super) async fn replaced(&self, slot: u16, gone: &Way) -> Option<Way> {
        self.cluster.refresh_now_and_then().await.ok()?;
        let owner = self.cluster.known_owner(slot)?;
        (owner != gone.address).then_some(Way { address: owner, asking: false })
    }

    /// Runs one command where its key is; one without a key at the primary that answers for all. Gives the answer, and
    /// who gave it.
    pub(super) async fn command<T: FromRedisValue>(&self, cmd: &Cmd) -> (Result<T, QueueError>, Option<Arc<str>>) {
        let slot = slot_of_command(cmd).unwrap_or_else(slot_of_meta);
        let mut way = match self.way(slot).await {
            Ok(way) => way,
            Err(error) => return (Err(error), None),
        };
        for _ in 0..=REDIRECTS {
            match self.step(slot, &way, cmd).await {
                Ok(Step::There(value)) => return (Ok(value), Some(way.address)),
                Ok(Step::Elsewhere(other)) => way = other,
                Err(error) => return (Err(error), Some(way.address)),
            }
        }
        (Err(never(slot)), Some(way.address))
    }

    /// One try of a command.
    async fn step<T: FromRedisValue>(&self, slot: u16, way: &Way, cmd: &Cmd) -> Result<Step<T>, QueueError> {
        self.cluster.is_there(&way.address)?;
        let mut connection = match self.connection(&way.address).await {
            Ok(connection) => connection,
            Err(error) => return self.replaced(slot, way).await.map(Step::Elsewhere).ok_or(error),
        };
        match run(&mut connection, cmd, way.asking).await {
            Ok(value) => Ok(Step::There(value)),
            Err(error) => match self.redirect(&error, way) {
                Some(other) => Ok(Step::Elsewhere(other)),
                None => Err(self.failed(&way.address, &error).await),
            },
        }
    }

    /// Runs a command at one primary, also when it did not answer lately.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub(super) async fn command_at<T: FromRedisValue>(&self, address: &Arc<str>, cmd: &Cmd) -> Result<T, QueueError> {
        let mut connection = self.connection(address).await?;
        match cmd.query_async(&mut connection).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.failed(address, &error).await),
        }
    }

    /// Runs commands on the same slot in one round trip.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub(super) async fn pipeline(&self, pipeline: &mut Pipeline) -> Result<Vec<RedisResult<Value>>, QueueError> {
        let slot = pipeline.cmd_iter().find_map(slot_of_command).unwrap_or_else(slot_of_meta);
        let mut way = self.way(slot).await?;
        for _ in 0..REDIRECTS {
            let replies = self.send(&way, pipeline).await?;
            let moved = replies.iter().map(|reply| self.redirect(reply.as_ref().err()?, &way));
            match moved.reduce(|one, other| if one == other { one } else { None }).flatten() {
                Some(other) if !other.asking => way = other,
                _ => return Ok(replies),
            }
        }
        Err(never(slot))
    }

    /// Sends commands to one primary in one round trip and gives every reply.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub(super) async fn send(&self, way: &Way, pipeline: &mut Pipeline) -> Result<Vec<RedisResult<Value>>, QueueError> {
        self.cluster.is_there(&way.address)?;
        let mut connection = self.connection(&way.address).await?;
        match pipeline.ignore_errors().query_async(&mut connection).await {
            Ok(replies) => Ok(replies),
            Err(error) => Err(self.failed(&way.address, &error).await),
        }
    }

    async fn failed(&self, address: &Arc<str>, error: &RedisError) -> QueueError {
        let error = QueueError::from_cluster(error);
        if matches!(error, QueueError::Unknown(_)) {
            self.reset_at(address);
        }
        if error.is_demotion()
            && let Err(error) = self.cluster.refresh_now_and_then().await
        {
            tracing::debug!(%error, "no node says who the primaries are");
        }
        named(address, error)
    }
}

/// The same error of a node whose address a reader wants to know.
fn named(address: &str, error: QueueError) -> QueueError {
    match error {
        QueueError::Unreachable(text) => QueueError::Unreachable(format!("{address}: {text}")),
        QueueError::Unknown(text) => QueueError::Unknown(format!("{address}: {text}")),
        error => error,
    }
}

/// The slot moved on with every step. Nothing was done.
pub(super) fn never(slot: u16) -> QueueError {
    QueueError::Refused {
        code: "MOVED".into(),
        text: format!("slot {slot} is on its way between primaries, try again"),
    }
}

async fn run<T: FromRedisValue>(connection: &mut MultiplexedConnection, cmd: &Cmd, asking: bool) -> RedisResult<T> {
    if !asking {
        return cmd.query_async(connection).await;
    }
    let mut both = Pipeline::with_capacity(2);
    both.cmd("ASKING").ignore().add_command(cmd.clone());
    let mut replies: Vec<RedisResult<Value>> = both.ignore_errors().query_async(connection).await?;
    let reply = replies.pop().unwrap_or(Ok(Value::Nil))?;
    Ok(T::from_redis_value(reply)?)
}
