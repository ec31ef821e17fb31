use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::sync::Mutex;

use super::branches::Branches;
use super::primary::{Seen, Whereabouts};
use super::slots::slot_of;
use super::{QueueError, Roots};
use crate::secret::SecretUrl;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// One connection to one Redis primary, made when it is needed and made anew after it broke, did not answer in time, or
/// the primary is another server now. To a Redis Cluster it is one to each primary.
///
/// Nothing is sent twice: who gets [`QueueError::Unknown`] decides.
pub struct Link {
    home: Arc<Home>,
    timeout: Duration,
    connection: Mutex<Option<(Arc<str>, MultiplexedConnection)>>,
    /// The connections in its place, if this is a cluster.
    branches: Option<Branches>,
}

/// A server of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node(pub(super) Option<Arc<str>>);

impl Node {
    /// Its address in the cluster; none for the only one there is.
    pub fn address(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// What the links of one queue share.
struct Home {
    whereabouts: Whereabouts,
    /// Address of the primary as last heard of: a connection to another one is not used any more.
    primary: SyncMutex<Option<Arc<str>>>,
}

impl Home {
    fn primary(&self) -> Option<Arc<str>> {
        self.primary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_primary(&self, address: Option<Arc<str>>) -> Option<Arc<str>> {
        std::mem::replace(&mut *self.primary.lock().unwrap_or_else(PoisonError::into_inner), address)
    }

    /// Asks where the primary is and notes it.
    async fn find(&self) -> Result<(Arc<str>, ConnectionInfo), QueueError> {
        let info = self.whereabouts.primary().await?;
        let address: Arc<str> = info.addr().to_string().into();
        let before = self.set_primary(Some(address.clone()));
        if self.whereabouts.may_change() && before.as_ref() != Some(&address) {
            tracing::info!(primary = &*address, before = before.as_deref(), "the sentinels name a primary");
        }
        Ok((address, info))
    }
}

/// How connections of links behave.
pub(super) fn config(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(timeout))
}

/// Makes a connection: the one place that does.
pub(super) async fn open(
    info: ConnectionInfo,
    config: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, QueueError> {
    let unsent = |error| match QueueError::from_redis(&error) {
        QueueError::Unknown(text) => QueueError::unreachable(text),
        other => other,
    };
    let client = Client::open(info).map_err(unsent)?;
    client.get_multiplexed_async_connection_with_config(config).await.map_err(unsent)
}

impl Link {
    /// # Errors
    /// When the URL is none.
    pub(super) fn new(url: &SecretUrl, roots: &Roots, timeout: Duration) -> Result<Self, QueueError> {
        let whereabouts = Whereabouts::of(url.expose())
            .map_err(|reason| QueueError::Deployment(format!("{url} is no Redis URL; {reason}")))?
            .guarded(roots)?;
        let home = Arc::new(Home { whereabouts, primary: SyncMutex::default() });
        Ok(Self::of(home, timeout))
    }

    fn of(home: Arc<Home>, timeout: Duration) -> Self {
        let branches = match &home.whereabouts {
            Whereabouts::Cluster(cluster) => Some(Branches::new(cluster.clone(), timeout)),
            Whereabouts::Fixed(_) | Whereabouts::Sentinels(_) => None,
        };
        Self { home, timeout, connection: Mutex::new(None), branches }
    }

    pub(super) fn another(&self, timeout: Duration) -> Self {
        Self::of(self.home.clone(), timeout)
    }

    /// The connections to the primaries, if this is a cluster.
    pub(super) fn branches(&self) -> Option<&Branches> {
        self.branches.as_ref()
    }

    /// Whether this is a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        self.branches.is_some()
    }

    /// Every server that holds a part of the queue, or could: the only one, or all primaries that have slots.
    ///
    /// # Errors
    /// When no node of a cluster answers.
    pub async fn nodes(&self) -> Result<Vec<Node>, QueueError> {
        match &self.branches {
            Some(branches) => {
                Ok(branches.cluster().primaries().await?.into_iter().map(|node| Node(Some(node))).collect())
            }
            None => Ok(vec![Node(None)]),
        }
    }

    /// The server that a key lies with.
    ///
    /// # Errors
    /// When no node of a cluster answers or none has its slot.
    pub async fn holder(&self, key: &str) -> Result<Node, QueueError> {
        match &self.branches {
            Some(branches) => Ok(Node(Some(branches.cluster().owner(slot_of(key.as_bytes())).await?))),
            None => Ok(Node(None)),
        }
    }

    /// Gives the connection to one primary of a cluster up; the next command makes a new one.
    pub fn reset_at(&self, node: &Node) {
        if let (Some(branches), Some(address)) = (&self.branches, &node.0) {
            branches.reset_at(address);
        }
    }

    /// Notes whether a primary of a cluster answers. While it does not, nothing is sent there, by any link of this
    /// queue, but what names it.
    pub fn note(&self, node: &Node, trouble: Option<&QueueError>) {
        if let (Some(branches), Some(address)) = (&self.branches, &node.0) {
            branches.cluster().note(address, trouble);
        }
    }

    /// Runs one command at one server.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn command_at<T: FromRedisValue>(&self, node: &Node, cmd: &Cmd) -> Result<T, QueueError> {
        match (&self.branches, &node.0) {
            (Some(branches), Some(address)) => branches.command_at(address, cmd).await,
            _ => self.command(cmd).await,
        }
    }

    /// Runs one command, and says which server answered.
    pub(super) async fn command_from<T: FromRedisValue>(&self, cmd: &Cmd) -> (Result<T, QueueError>, Node) {
        match &self.branches {
            Some(branches) => {
                let (result, address) = branches.command(cmd).await;
                (result, Node(address))
            }
            None => (self.command(cmd).await, Node(None)),
        }
    }

    /// What an error of a command that may have been sent means.
    pub(super) fn error(&self, error: &redis::RedisError) -> QueueError {
        if self.is_cluster() { QueueError::from_cluster(error) } else { QueueError::from_redis(error) }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, QueueError> {
        let mut slot = self.connection.lock().await;
        if let Some((address, connection)) = &*slot
            && self.home.primary().as_ref() == Some(address)
        {
            return Ok(connection.clone());
        }
        *slot = None;
        let (address, info) = self.home.find().await?;
        let connection = self.connect(info).await?;
        *slot = Some((address, connection.clone()));
        Ok(connection)
    }

    async fn connect(&self, info: ConnectionInfo) -> Result<MultiplexedConnection, QueueError> {
        let address = info.addr().to_string();
        let mut connection = open(info, &config(self.timeout)).await?;
        if self.home.whereabouts.may_change() {
            check_role(&mut connection, &address).await?;
        }
        Ok(connection)
    }

    /// Gives the connection up; the next command makes a new one.
    pub async fn reset(&self) {
        if let Some(branches) = &self.branches {
            branches.reset();
        }
        self.connection.lock().await.take();
    }

    /// Where the primary is now, with the login for it; of a cluster, the one that answers for all.
    ///
    /// # Errors
    /// When no sentinel knows, or no node of a cluster.
    pub async fn primary(&self) -> Result<ConnectionInfo, QueueError> {
        self.home.find().await.map(|(_, info)| info)
    }

    /// Asks the sentinels where the primary is, if the URL names any. All links of this queue leave a server that is no
    /// longer the one, also while it still answers. Who keeps a connection for long calls this every few seconds.
    /// Likewise, the nodes of a cluster are asked who has which slot.
    pub async fn follow(&self) {
        if let Some(branches) = &self.branches {
            if let Err(error) = branches.cluster().refresh().await {
                tracing::debug!(%error, "no node says who the primaries are");
            }
            return;
        }
        if self.home.whereabouts.may_change()
            && let Err(error) = self.home.find().await
        {
            // The primary as it was may be well: its own answers decide.
            tracing::debug!(%error, "no sentinel says where the primary is");
        }
    }

    /// All links of this queue look for the primary before they are used again: this one is none.
    pub(super) fn look_elsewhere(&self) {
        self.home.set_primary(None);
    }

    /// What each sentinel says; empty when the URL names none.
    pub async fn sentinels(&self) -> Vec<Seen> {
        self.home.whereabouts.seen().await
    }

    async fn done<T>(&self, result: RedisResult<T>) -> Result<T, QueueError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                let error = QueueError::from_redis(&error);
                if matches!(error, QueueError::Unknown(_)) {
                    self.reset().await;
                }
                if error.is_demotion() {
                    self.look_elsewhere();
                }
                Err(error)
            }
        }
    }

    /// Runs one command.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn command<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, QueueError> {
        if let Some(branches) = &self.branches {
            return branches.command(cmd).await.0;
        }
        let mut connection = self.connection().await?;
        let result = cmd.query_async(&mut connection).await;
        self.done(result).await
    }

    /// Runs commands in one round trip and gives every reply, errors of single commands among them. All have to belong
    /// to one partition, or to one key that belongs to none.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn pipeline(&self, pipeline: &mut Pipeline) -> Result<Vec<RedisResult<Value>>, QueueError> {
        if let Some(branches) = &self.branches {
            return branches.pipeline(pipeline).await;
        }
        let mut connection = self.connection().await?;
        let result = pipeline.ignore_errors().query_async(&mut connection).await;
        let replies: Vec<RedisResult<Value>> = self.done(result).await?;
        if replies.iter().any(tells_of_demotion) {
            self.look_elsewhere();
        }
        Ok(replies)
    }
}

/// A command was refused because the server is no primary (any more), be it within a transaction.
fn tells_of_demotion(reply: &RedisResult<Value>) -> bool {
    let demotes = |error: &redis::RedisError| QueueError::from_redis(error).is_demotion();
    match reply {
        Err(error) => demotes(error),
        Ok(Value::Array(within)) => {
            within.iter().any(|value| matches!(value, Value::ServerError(error) if demotes(&error.clone().into())))
        }
        Ok(_) => false,
    }
}

/// Sentinels may name a server that was demoted a moment ago, or that has not been promoted yet.
async fn check_role(connection: &mut MultiplexedConnection, address: &str) -> Result<(), QueueError> {
    let ask = redis::cmd("ROLE");
    let asked = tokio::time::timeout(CONNECT_TIMEOUT, ask.query_async::<Vec<Value>>(connection)).await;
    let role = match asked {
        Ok(Ok(role)) => role,
        Ok(Err(error)) => return Err(QueueError::from_redis(&error)),
        Err(_) => return Err(QueueError::Unreachable(format!("{address} did not answer within {CONNECT_TIMEOUT:?}"))),
    };
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        _ => Err(QueueError::Unreachable(format!(
            "the sentinels name {address}, which is a replica: no other server has been promoted yet"
        ))),
    }
}
