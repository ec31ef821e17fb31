//! First of all a batch claims its keys: `event_keys` decides what is new.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Fate, NewMessage, Place, StoreError};

/// What a key stands for, whether it was there before or the batch brought it.
struct Owner {
    place: Place,
    fingerprint: i64,
    message_id: Option<i64>,
}

impl Owner {
    fn judge(&self, message: &NewMessage) -> Fate {
        let Self { place, fingerprint, message_id } = *self;
        if place == message.place {
            Fate::AlreadyStored { message_id }
        } else if fingerprint == message.fingerprint {
            Fate::Duplicate { first: place, message_id }
        } else {
            Fate::Conflict { first: place }
        }
    }
}

/// Claims the keys that are new and judges the rest. Another transaction that holds one of the keys is waited for.
pub(super) async fn claim(connection: &mut PgConnection, batch: &[NewMessage]) -> Result<Vec<Fate>, StoreError> {
    let candidates = first_of_each_key(batch);
    let new = insert(connection, &candidates).await?;
    let mut owners = HashMap::new();
    if new.len() < candidates.len() {
        let taken: Vec<Uuid> = candidates.iter().map(|m| m.key).filter(|key| !new.contains_key(key)).collect();
        owners = find(connection, &taken).await?;
    }
    batch.iter().map(|message| fate(message, &new, &mut owners)).collect()
}

/// Sorted by key, the same for all workers: it is the order in which they wait for each other. Of twins the first one
/// in the batch.
fn first_of_each_key(batch: &[NewMessage]) -> Vec<&NewMessage> {
    let mut sorted: Vec<_> = batch.iter().collect();
    sorted.sort_by_key(|message| message.key);
    sorted.dedup_by_key(|message| message.key);
    sorted
}

/// Must be called in the batch's order: the first message of a new key becomes its owner.
fn fate(message: &NewMessage, new: &HashMap<Uuid, i64>, owners: &mut HashMap<Uuid, Owner>) -> Result<Fate, StoreError> {
    match (owners.entry(message.key), new.get(&message.key)) {
        (Entry::Occupied(owner), _) => Ok(owner.get().judge(message)),
        (Entry::Vacant(vacant), Some(&message_id)) => {
            let NewMessage { place, fingerprint, .. } = *message;
            vacant.insert(Owner { place, fingerprint, message_id: Some(message_id) });
            Ok(Fate::Stored { message_id })
        }
        (Entry::Vacant(_), None) => Err(StoreError::vanished("a key")),
    }
}

/// Returns the keys that were new, with the ids of their messages.
async fn insert(connection: &mut PgConnection, messages: &[&NewMessage]) -> Result<HashMap<Uuid, i64>, StoreError> {
    let keys: Vec<_> = messages.iter().map(|m| m.key).collect();
    let send_at: Vec<_> = messages.iter().map(|m| m.send_at).collect();
    let fingerprints: Vec<_> = messages.iter().map(|m| m.fingerprint).collect();
    let partitions: Vec<_> = messages.iter().map(|m| m.place.partition).collect();
    let ms: Vec<_> = messages.iter().map(|m| m.place.ms).collect();
    let seqs: Vec<_> = messages.iter().map(|m| m.place.seq).collect();
    let rows = sqlx::query!(
        r#"
        INSERT INTO event_keys (id, send_at, fingerprint, partition, entry_ms, entry_seq)
        SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[])
        ON CONFLICT DO NOTHING
        RETURNING id, message_id AS "message_id!"
        "#,
        &keys,
        &send_at,
        &fingerprints,
        &partitions,
        &ms,
        &seqs
    );
    Ok(rows.fetch_all(connection).await?.into_iter().map(|row| (row.id, row.message_id)).collect())
}

async fn find(connection: &mut PgConnection, keys: &[Uuid]) -> Result<HashMap<Uuid, Owner>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT id, message_id, fingerprint, partition, entry_ms, entry_seq FROM event_keys WHERE id = ANY($1)
        "#,
        keys
    );
    let owners = rows.fetch_all(connection).await?.into_iter().map(|row| {
        let place = Place { partition: row.partition, ms: row.entry_ms, seq: row.entry_seq };
        (row.id, Owner { place, fingerprint: row.fingerprint, message_id: row.message_id })
    });
    Ok(owners.collect())
}
