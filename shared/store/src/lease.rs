//! A connection for as long as one call takes.
//!
//! One to a server that takes no writes is closed: after a failover its address may lead to the new primary, while the
//! connection would stay with the old one.
//!
//! One that is in the middle of something when its call ends, by deadline or because the caller gave up, is closed: to
//! wait until it can be used again could take a dead network's quarter of an hour, and its place in the pool with it.

use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use sqlx::{Connection as _, PgConnection};

use crate::{Store, StoreError};

struct Lease(Option<PoolConnection<Postgres>>);

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl Store {
    /// Runs `call` on a connection of the pool. If it takes longer than the [deadline](Store::deadline) or is dropped
    /// half-way, the connection is closed, and with it an open transaction.
    pub(crate) async fn on_connection<T>(
        &self,
        call: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut lease = Lease(None);
        let connection = lease.0.insert(self.pool.acquire().await?);
        let deadline = self.deadline();
        let result = tokio::time::timeout(deadline, call(connection)).await;
        let result = result.map_err(|_| StoreError::no_answer(deadline))?;
        if !result.as_ref().is_err_and(StoreError::is_read_only) {
            drop(lease.0.take());
        }
        result
    }

    /// The same for reads whose best way depends on what is looked for: PostgreSQL plans them for these very values, and not
    /// once for all.
    pub(crate) async fn planned_anew<T>(
        &self,
        call: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let in_transaction = async |connection: &mut PgConnection| {
            let mut transaction = connection.begin().await?;
            sqlx::query("SET LOCAL plan_cache_mode = force_custom_plan").execute(&mut *transaction).await?;
            let result = call(&mut transaction).await?;
            transaction.commit().await?;
            Ok(result)
        };
        self.on_connection(in_transaction).await
    }
}
