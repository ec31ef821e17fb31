use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, Value};
use tokio::sync::Mutex;

use super::QueueError;
use crate::secret::SecretUrl;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// One connection to one Redis, made when it is needed and made anew after it broke or did not answer in time.
///
/// Nothing is sent twice: who gets [`QueueError::Unknown`] decides.
pub struct Link {
    client: Client,
    timeout: Duration,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Link {
    /// # Errors
    /// When the URL is none.
    pub(super) fn new(url: &SecretUrl, timeout: Duration) -> Result<Self, QueueError> {
        let client = Client::open(url.expose())
            .map_err(|_| QueueError::Deployment(format!("{url} is no Redis URL; it looks like redis://host:6379/0")))?;
        Ok(Self { client, timeout, connection: Mutex::new(None) })
    }

    pub(super) fn another(&self, timeout: Duration) -> Self {
        Self { client: self.client.clone(), timeout, connection: Mutex::new(None) }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, QueueError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.timeout));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| {
            match QueueError::from_redis(&error) {
                QueueError::Unknown(text) => QueueError::Unreachable(text),
                other => other,
            }
        })?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Gives the connection up; the next command makes a new one.
    pub async fn reset(&self) {
        self.connection.lock().await.take();
    }

    async fn done<T>(&self, result: redis::RedisResult<T>) -> Result<T, QueueError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                let error = QueueError::from_redis(&error);
                let demoted =
                    matches!(&error, QueueError::Refused { code, .. } if code == "READONLY" || code == "UNBLOCKED");
                if matches!(error, QueueError::Unknown(_)) || demoted {
                    self.reset().await;
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
        let mut connection = self.connection().await?;
        let result = cmd.query_async(&mut connection).await;
        self.done(result).await
    }

    /// Runs commands in one round trip and gives every reply, errors of single commands among them.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn pipeline(&self, pipeline: &mut Pipeline) -> Result<Vec<redis::RedisResult<Value>>, QueueError> {
        let mut connection = self.connection().await?;
        let result = pipeline.ignore_errors().query_async(&mut connection).await;
        self.done(result).await
    }
}
