//! Reads for people: from a key or an entry to what is stored.

use std::collections::HashSet;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Place, Store, StoreError};

/// What is stored under a key. The message's own fields are none if the event made no message or if its month was
/// detached. Neither text nor phone: a look-up must not become a way to read mail. No `Debug`: the ids are personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The digest of (source, key).
    pub key: Uuid,
    /// The entry that was stored; it also says when the message was accepted.
    pub place: Place,
    /// When it was sent, by the provider's clock.
    pub send_at: OffsetDateTime,
    /// The id of the message's row.
    pub message_id: Option<i64>,
    /// The row's partition.
    pub partition_table: Option<String>,
    /// When the row's transaction began.
    pub stored_at: Option<OffsetDateTime>,
    /// The trace that the message was accepted under.
    pub trace_id: Option<Uuid>,
    /// The provider's id of the message.
    pub external_message_id: Option<String>,
    /// The row of `dialogs`.
    pub dialog_id: Option<i64>,
    /// The provider's id of the dialog; empty if the source knows none.
    pub external_dialog_id: Option<String>,
    /// The row of `clients`.
    pub client_id: Option<i64>,
    /// Who sent it to us.
    pub source: Option<String>,
    /// The provider's id of the client.
    pub external_client_id: Option<String>,
}

impl Store {
    /// What is stored under the key.
    pub async fn find_message(&self, key: Uuid) -> Result<Option<StoredMessage>, StoreError> {
        let row = sqlx::query!(
            r#"
            SELECT k.send_at, k.partition, k.entry_ms, k.entry_seq, k.message_id,
                   m.tableoid::regclass::text AS partition_table, m.stored_at AS "stored_at?", m.trace_id,
                   m.external_message_id AS "external_message_id?", m.dialog_id AS "dialog_id?",
                   d.external_dialog_id AS "external_dialog_id?", c.id AS "client_id?", c.source AS "source?",
                   c.external_client_id AS "external_client_id?"
            FROM event_keys k
            LEFT JOIN messages m ON m.id = k.message_id AND m.send_at = k.send_at
            LEFT JOIN dialogs d ON d.id = m.dialog_id
            LEFT JOIN clients c ON c.id = d.client_id
            WHERE k.id = $1
            "#,
            key
        );
        let row = self.on_connection(async |connection| Ok(row.fetch_optional(connection).await?)).await?;
        Ok(row.map(|row| StoredMessage {
            key,
            place: Place { partition: row.partition, ms: row.entry_ms, seq: row.entry_seq },
            send_at: row.send_at,
            message_id: row.message_id,
            partition_table: row.partition_table,
            stored_at: row.stored_at,
            trace_id: row.trace_id,
            external_message_id: row.external_message_id,
            dialog_id: row.dialog_id,
            external_dialog_id: row.external_dialog_id,
            client_id: row.client_id,
            source: row.source,
            external_client_id: row.external_client_id,
        }))
    }

    /// The key of the message that was stored from this very entry. None for a duplicate's entry. Milliseconds where a
    /// look-up by key takes microseconds: it reads a few ranges of the table.
    pub async fn find_by_place(&self, place: Place) -> Result<Option<Uuid>, StoreError> {
        let key = sqlx::query_scalar!(
            "SELECT id FROM event_keys WHERE entry_ms = $1 AND entry_seq = $2 AND partition = $3",
            place.ms,
            place.seq,
            place.partition
        );
        self.on_connection(async |connection| Ok(key.fetch_optional(connection).await?)).await
    }

    /// Which of the keys are stored.
    pub async fn find_keys(&self, keys: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        let found = sqlx::query_scalar!("SELECT id FROM event_keys WHERE id = ANY($1)", keys);
        let found = self.on_connection(async |connection| Ok(found.fetch_all(connection).await?)).await?;
        Ok(found.into_iter().collect())
    }
}
