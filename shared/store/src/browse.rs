//! Reads for callers of the API: what became of messages, and what clients and dialogs hold.
//!
//! Every list is read from an index in the order in which it is answered, from behind the last row of the page before,
//! so a page costs the same wherever it is. Rows that belong to others are looked up one by one within the statement
//! (`LATERAL … LIMIT 1`): whatever the planner thinks of how many there are, it then cannot read whole tables.

use sqlx::{Connection as _, Executor as _, PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Place, Store, StoreError};

/// What is stored under one of many keys. The message's own fields are none if the event made no message or if its month
/// was detached. No `Debug`: the ids are personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptMessage {
    /// The digest of (source, key).
    pub key: Uuid,
    /// The entry that was stored; it also says when the message was accepted.
    pub place: Place,
    /// When it was sent, by the provider's clock.
    pub send_at: OffsetDateTime,
    /// The id of the message's row.
    pub message_id: Option<i64>,
    /// The row of `dialogs`.
    pub dialog_id: Option<i64>,
    /// When the row's transaction began.
    pub stored_at: Option<OffsetDateTime>,
    /// When it was last changed at the provider.
    pub edited_at: Option<OffsetDateTime>,
    /// When it was removed at the provider.
    pub removed_at: Option<OffsetDateTime>,
    /// The trace that the message was accepted under.
    pub trace_id: Option<Uuid>,
}

/// Someone who writes to us. No `Debug`: the ids are personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// The row.
    pub id: i64,
    /// Who sent it to us.
    pub source: String,
    /// The provider's id.
    pub external_client_id: String,
    /// When their first message was accepted.
    pub first_seen_at: OffsetDateTime,
    /// When a message of theirs was last accepted, a minute behind at most.
    pub last_seen_at: OffsetDateTime,
}

/// A conversation. No `Debug`: the ids are personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Dialog {
    /// The row.
    pub id: i64,
    /// The provider's id; empty if the source knows none.
    pub external_dialog_id: String,
}

/// A message as it was stored. No `Debug`: it holds personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The row.
    pub id: i64,
    /// The row of `dialogs`.
    pub dialog_id: i64,
    /// The provider's id.
    pub external_message_id: String,
    /// What was written; none if there is nothing but attachments.
    pub text: Option<String>,
    /// What else came with it, as JSON text.
    pub extra: Option<String>,
    /// When it was sent, by the provider's clock.
    pub send_at: OffsetDateTime,
    /// When the gateway accepted it.
    pub accepted_at: OffsetDateTime,
    /// When it was stored.
    pub stored_at: OffsetDateTime,
    /// When it was last changed at the provider.
    pub edited_at: Option<OffsetDateTime>,
    /// When it was removed at the provider.
    pub removed_at: Option<OffsetDateTime>,
    /// The trace that it was accepted under.
    pub trace_id: Option<Uuid>,
}

/// Most months of a new installation are empty. The planner then expects next to nothing of a dialog, however many messages
/// it has, and would rather read and sort all of them than go through the indexes of empty tables. For the rest of the
/// transaction it goes by the indexes where it can.
const IN_ORDER: &str = "SET LOCAL enable_sort = off";

/// Begins a transaction that reads lists in the order of their indexes.
pub(crate) async fn in_order(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, StoreError> {
    let mut transaction = connection.begin_with("BEGIN READ ONLY").await?;
    transaction.execute(IN_ORDER).await?;
    Ok(transaction)
}

/// A place in the order of time, newest first: what comes after it was sent before, or at the same time under a smaller id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// When it was sent.
    pub at: OffsetDateTime,
    /// The row.
    pub id: i64,
}

impl Moment {
    /// Before every message.
    pub const NEWEST: Self = Self { at: time::macros::datetime!(9999-12-31 23:59:59 UTC), id: i64::MAX };

    /// Before every message that was sent before `time`.
    pub fn before(time: OffsetDateTime) -> Self {
        Self { at: time, id: i64::MIN }
    }
}

impl Store {
    /// What is stored under each of these keys; what is not there is not in the answer.
    pub async fn find_messages(&self, keys: &[Uuid]) -> Result<Vec<KeptMessage>, StoreError> {
        let rows = sqlx::query!(
            r#"
            SELECT k.id, k.send_at, k.partition, k.entry_ms, k.entry_seq, m.id AS "message_id?",
                   m.dialog_id AS "dialog_id?", m.stored_at AS "stored_at?", m.edited_at, m.removed_at, m.trace_id
            FROM unnest($1::uuid[]) AS wanted (id)
            CROSS JOIN LATERAL (
                SELECT id, message_id, send_at, partition, entry_ms, entry_seq FROM event_keys
                WHERE event_keys.id = wanted.id LIMIT 1
            ) k
            LEFT JOIN LATERAL (
                SELECT id, dialog_id, stored_at, edited_at, removed_at, trace_id FROM messages
                WHERE messages.id = k.message_id AND messages.send_at = k.send_at LIMIT 1
            ) m ON true
            "#,
            keys
        );
        let rows = self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await?;
        let kept = rows.into_iter().map(|row| KeptMessage {
            key: row.id,
            place: Place { partition: row.partition, ms: row.entry_ms, seq: row.entry_seq },
            send_at: row.send_at,
            message_id: row.message_id,
            dialog_id: row.dialog_id,
            stored_at: row.stored_at,
            edited_at: row.edited_at,
            removed_at: row.removed_at,
            trace_id: row.trace_id,
        });
        Ok(kept.collect())
    }

    /// The client that one of these sources calls so, of the first source that knows one.
    pub async fn find_client(
        &self,
        sources: &[String],
        external_client_id: &str,
    ) -> Result<Option<Client>, StoreError> {
        let row = sqlx::query_as!(
            Client,
            "SELECT id, source, external_client_id, first_seen_at, last_seen_at FROM clients
             WHERE source = ANY($1::text[]) AND external_client_id = $2
             ORDER BY array_position($1::text[], source) LIMIT 1",
            sources,
            external_client_id
        );
        self.on_connection(async |connection| Ok(row.fetch_optional(connection).await?)).await
    }

    /// Up to `limit` dialogs of a client, in the order of the provider's ids, from behind `after`.
    pub async fn dialogs_of_client(
        &self,
        client_id: i64,
        after: Option<&str>,
        limit: u16,
    ) -> Result<Vec<Dialog>, StoreError> {
        // No id sorts before the empty one, which is itself an id: of a source that knows no dialogs.
        let rows = sqlx::query_as!(
            Dialog,
            "SELECT id, external_dialog_id FROM dialogs
             WHERE client_id = $1 AND external_dialog_id >= $2 AND (external_dialog_id > $2 OR $3)
             ORDER BY external_dialog_id LIMIT $4",
            client_id,
            after.unwrap_or_default(),
            after.is_none(),
            i64::from(limit)
        );
        self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await
    }

    /// Whether there is such a dialog.
    pub async fn has_dialog(&self, dialog_id: i64) -> Result<bool, StoreError> {
        let has = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM dialogs WHERE id = $1) AS "has!""#, dialog_id);
        self.on_connection(async |connection| Ok(has.fetch_one(connection).await?)).await
    }

    /// Up to `limit` messages of a dialog, newest first, from behind `before`.
    pub async fn messages_of_dialog(
        &self,
        dialog_id: i64,
        before: Moment,
        limit: u16,
    ) -> Result<Vec<Message>, StoreError> {
        // The plain bound beside the pair leaves out the months after it.
        let rows = sqlx::query_as!(
            Message,
            "SELECT id, dialog_id, external_message_id, text, extra::text AS extra, send_at, accepted_at, stored_at,
                    edited_at, removed_at, trace_id
             FROM messages
             WHERE dialog_id = $1 AND send_at <= $2 AND (send_at, id) < ($2, $3)
             ORDER BY send_at DESC, id DESC LIMIT $4",
            dialog_id,
            before.at,
            before.id,
            i64::from(limit)
        );
        self.on_connection(async |connection| {
            let mut transaction = in_order(connection).await?;
            let rows = rows.fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(rows)
        })
        .await
    }
}
