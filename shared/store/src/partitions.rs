//! Months of `messages`, made before anybody needs them.

use crate::{Store, StoreError};

impl Store {
    /// Makes the months that are missing, up to `months_ahead` after the present one, and returns their names. Safe to
    /// call from many processes and while messages are stored: it neither waits for writers nor makes them wait. It
    /// fails with [`Class::Dependency`](crate::Class::Dependency) if another schema change is under way for longer than
    /// the lock timeout.
    pub async fn ensure_partitions(&self, months_ahead: u16) -> Result<Vec<String>, StoreError> {
        let made = sqlx::query_scalar!(
            r#"SELECT made AS "made!" FROM weir_ensure_message_partitions($1) AS made"#,
            i32::from(months_ahead)
        );
        self.on_connection(async |connection| Ok(made.fetch_all(connection).await?)).await
    }

    /// The names of the months that are missing, from the present one to `months_ahead` after it.
    pub async fn missing_partitions(&self, months_ahead: u16) -> Result<Vec<String>, StoreError> {
        let missing = sqlx::query_scalar!(
            r#"
            SELECT name AS "name!"
            FROM generate_series(0, $1::int) AS ahead,
                 to_char((now() AT TIME ZONE 'UTC') + make_interval(months => ahead), '"messages_y"YYYY"m"MM') AS name
            WHERE NOT EXISTS (
                SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'messages'::regclass AND c.relname = name)
            ORDER BY ahead
            "#,
            i32::from(months_ahead)
        );
        self.on_connection(async |connection| Ok(missing.fetch_all(connection).await?)).await
    }
}
