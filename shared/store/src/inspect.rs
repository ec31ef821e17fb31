//! What operators want to know of the server itself.

use crate::{Store, StoreError};

/// Settings of a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// In words, as the distribution names it.
    pub version: String,
    /// The number that PostgreSQL's promises of compatibility go by.
    pub major_version: i32,
    /// Whether a commit that was answered survives a crash of the machine.
    pub fsync: bool,
    /// Whether a commit is answered only once it is on disk. For us, that is: a role or a database may differ.
    pub synchronous_commit: bool,
    /// Whether a page survives a crash in the middle of its writing.
    pub full_page_writes: bool,
}

impl Store {
    /// The server's version, and the settings that a committed row depends on.
    pub async fn server_settings(&self) -> Result<ServerSettings, StoreError> {
        let settings = sqlx::query_as!(
            ServerSettings,
            r#"
            SELECT current_setting('server_version') AS "version!",
                   current_setting('server_version_num')::int / 10000 AS "major_version!",
                   current_setting('fsync') <> 'off' AS "fsync!",
                   current_setting('synchronous_commit') <> 'off' AS "synchronous_commit!",
                   current_setting('full_page_writes') <> 'off' AS "full_page_writes!"
            "#
        );
        self.on_connection(async |connection| Ok(settings.fetch_one(connection).await?)).await
    }

    /// The server's clock, in Unix milliseconds.
    pub async fn clock_ms(&self) -> Result<i64, StoreError> {
        let clock = sqlx::query_scalar!(r#"SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "ms!""#);
        self.on_connection(async |connection| Ok(clock.fetch_one(connection).await?)).await
    }

    /// How many more connections the server would accept now. Those that only a superuser may use do not count.
    pub async fn connections_left(&self) -> Result<i64, StoreError> {
        let left = sqlx::query_scalar!(
            r#"
            SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                   - count(*) AS "left!"
            FROM pg_stat_activity WHERE backend_type = 'client backend'
            "#
        );
        self.on_connection(async |connection| Ok(left.fetch_one(connection).await?)).await
    }
}
