//! What PostgreSQL knows about a message.

use anyhow::Result;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;
use weir_core::message::{MessageId, MessageKey};
use weir_store::{Place, Store, StoredMessage};

use crate::output;

/// A stored message.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// Message id of the entry that was stored.
    pub(super) message_id: String,
    pub(super) accepted_ms: u64,
    /// None when its month was detached.
    pub(super) stored_at: Option<String>,
    #[serde(skip)]
    pub(super) stored_ms: Option<u64>,
    pub(super) row_id: Option<i64>,
    pub(super) partition_table: Option<String>,
    pub(super) dialog_id: Option<i64>,
    pub(super) client_id: Option<i64>,
    pub(super) source: Option<String>,
    pub(super) external_message_id: Option<String>,
    pub(super) trace_id: Option<String>,
    pub(super) accept_to_row_ms: Option<u64>,
}

/// Looks a message up by its key, or by the entry that was stored.
pub(super) async fn find(
    store: &Store,
    name: Option<&(String, String)>,
    origin: Option<MessageId>,
) -> Result<Option<Row>> {
    let key = match (name, origin) {
        (Some((source, id)), _) => Some(Uuid::from_bytes(MessageKey::new(source, id).0)),
        (None, Some(origin)) => match place(origin) {
            Some(place) => store.find_by_place(place).await?,
            None => None,
        },
        (None, None) => None,
    };
    let Some(key) = key else { return Ok(None) };
    Ok(store.find_message(key).await?.map(Row::of))
}

/// None for an id beyond what PostgreSQL can hold: it was never given.
fn place(id: MessageId) -> Option<Place> {
    Some(Place { partition: id.partition.try_into().ok()?, ms: id.ms.try_into().ok()?, seq: id.seq.try_into().ok()? })
}

impl Row {
    fn of(stored: StoredMessage) -> Self {
        let Place { partition, ms, seq } = stored.place;
        let accepted_ms = u64::try_from(ms).unwrap_or_default();
        let stored_ms = stored.stored_at.map(unix_ms);
        Self {
            message_id: format!("{partition}-{ms}-{seq}"),
            accepted_ms,
            stored_at: stored_ms.map(output::time),
            stored_ms,
            row_id: stored.message_id,
            partition_table: stored.partition_table,
            dialog_id: stored.dialog_id,
            client_id: stored.client_id,
            source: stored.source,
            external_message_id: stored.external_message_id,
            trace_id: stored.trace_id.map(|trace| trace.simple().to_string()),
            accept_to_row_ms: stored_ms.map(|stored| stored.saturating_sub(accepted_ms)),
        }
    }
}

fn unix_ms(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}
