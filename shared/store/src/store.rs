//! The handle that everything else hangs on.

use std::time::Duration;

use sqlx::PgPool;

use crate::persist::Trust;
use crate::{StoreError, StoreOptions};

/// PostgreSQL, as Weir uses it. Cheap to clone; clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    pub(crate) options: StoreOptions,
    pub(crate) trust: Trust,
}

impl Store {
    /// Opens the pool and one connection, so that a wrong URL, password or database shows at once.
    pub async fn connect(options: &StoreOptions) -> Result<Self, StoreError> {
        let store = Self::connect_lazy(options)?;
        store.ping().await?;
        Ok(store)
    }

    /// Opens the pool without a connection: fails only if the URL cannot be read, never because PostgreSQL is down.
    /// Must be called on a tokio runtime.
    pub fn connect_lazy(options: &StoreOptions) -> Result<Self, StoreError> {
        let pool = options.pool().connect_lazy_with(options.connection()?);
        Ok(Self { pool, options: options.clone(), trust: Trust::default() })
    }

    /// Whether PostgreSQL answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let one = sqlx::query_scalar!(r#"SELECT 1 AS "one!""#);
        self.on_connection(async |connection| Ok(one.fetch_one(connection).await?)).await?;
        Ok(())
    }

    /// Waits for the statements in flight and closes all connections. Later calls fail with
    /// [`Class::Dependency`](crate::Class::Dependency).
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The server's own timeouts need a server that answers. This one is for a network that swallows packets: longer
    /// than any transaction which the server would let run.
    pub(crate) fn deadline(&self) -> Duration {
        self.options.acquire_timeout + 3 * self.options.statement_timeout
    }
}
