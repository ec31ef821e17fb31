//! First of all a batch claims its keys: `event_keys` decides what is new.
//!
//! Nearly always all of them are: the queue's filter has seen to it. So a batch of some size is [staked](stake) on that:
//! a plain insert is a quarter cheaper than one that can meet a conflict (no second look into the index, no record of the
//! log for each row that was only tried, no answer for each), and fails if it was wrong. Then [`claim`] goes row by row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Effect, Fate, NewEvent, Place, StoreError};

/// What a key stands for, whether it was there before or the batch brought it.
struct Owner {
    place: Place,
    fingerprint: i64,
    message_id: Option<i64>,
}

impl Owner {
    fn judge(&self, message: &NewEvent) -> Fate {
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

/// Claims the keys in the hope that all of them are new.
///
/// # Errors
/// With [`StoreError::is_taken`] one of them is not, and nothing of this transaction can stay.
pub(super) async fn stake(connection: &mut PgConnection, batch: &[NewEvent]) -> Result<Vec<Fate>, StoreError> {
    let candidates = first_of_each_key(batch);
    let mut ids =
        take_ids(connection, candidates.iter().filter(|event| makes_message(event)).count()).await?.into_iter();
    let message_ids: Vec<_> =
        candidates.iter().map(|event| if makes_message(event) { ids.next() } else { None }).collect();
    insert_new(connection, &candidates, &message_ids).await?;
    let new = candidates.iter().zip(message_ids).map(|(event, id)| (event.key, id)).collect();
    let mut owners = HashMap::new();
    batch.iter().map(|message| fate(message, &new, &mut owners)).collect()
}

/// Claims the keys that are new and judges the rest. Another transaction that holds one of the keys is waited for.
pub(super) async fn claim(connection: &mut PgConnection, batch: &[NewEvent]) -> Result<Vec<Fate>, StoreError> {
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
fn first_of_each_key(batch: &[NewEvent]) -> Vec<&NewEvent> {
    let mut sorted: Vec<_> = batch.iter().collect();
    sorted.sort_by_key(|message| message.key);
    sorted.dedup_by_key(|message| message.key);
    sorted
}

/// Must be called in the batch's order: the first message of a new key becomes its owner.
fn fate(
    message: &NewEvent,
    new: &HashMap<Uuid, Option<i64>>,
    owners: &mut HashMap<Uuid, Owner>,
) -> Result<Fate, StoreError> {
    match (owners.entry(message.key), new.get(&message.key)) {
        (Entry::Occupied(owner), _) => Ok(owner.get().judge(message)),
        (Entry::Vacant(vacant), Some(&message_id)) => {
            let NewEvent { place, fingerprint, .. } = *message;
            vacant.insert(Owner { place, fingerprint, message_id });
            Ok(Fate::Stored { message_id })
        }
        (Entry::Vacant(_), None) => Err(StoreError::vanished("a key")),
    }
}

fn makes_message(event: &NewEvent) -> bool {
    event.effect == Effect::Message
}

/// Ids for so many messages. They are taken in the transaction that uses them: a server that is promoted in between could
/// give the same ones to somebody else.
async fn take_ids(connection: &mut PgConnection, messages: usize) -> Result<Vec<i64>, StoreError> {
    if messages == 0 {
        return Ok(Vec::new());
    }
    let ids = sqlx::query_scalar!(
        r#"SELECT array_agg(nextval('message_ids')) AS "ids!" FROM generate_series(1, $1::bigint)"#,
        messages as i64
    );
    Ok(ids.fetch_one(connection).await?)
}

/// The columns of the keys.
struct Columns {
    keys: Vec<Uuid>,
    send_at: Vec<OffsetDateTime>,
    fingerprints: Vec<i64>,
    partitions: Vec<i16>,
    ms: Vec<i64>,
    seqs: Vec<i64>,
}

impl Columns {
    fn of(messages: &[&NewEvent]) -> Self {
        Self {
            keys: messages.iter().map(|m| m.key).collect(),
            send_at: messages.iter().map(|m| m.send_at).collect(),
            fingerprints: messages.iter().map(|m| m.fingerprint).collect(),
            partitions: messages.iter().map(|m| m.place.partition).collect(),
            ms: messages.iter().map(|m| m.place.ms).collect(),
            seqs: messages.iter().map(|m| m.place.seq).collect(),
        }
    }
}

async fn insert_new(
    connection: &mut PgConnection,
    messages: &[&NewEvent],
    message_ids: &[Option<i64>],
) -> Result<(), StoreError> {
    let columns = Columns::of(messages);
    sqlx::query!(
        r#"
        INSERT INTO event_keys (id, send_at, fingerprint, partition, entry_ms, entry_seq, message_id)
        SELECT * FROM unnest(
            $1::uuid[], $2::timestamptz[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[]
        )
        "#,
        &columns.keys,
        &columns.send_at,
        &columns.fingerprints,
        &columns.partitions,
        &columns.ms,
        &columns.seqs,
        message_ids as &[Option<i64>]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the keys that were new, with the ids of the messages that they make.
async fn insert(connection: &mut PgConnection, events: &[&NewEvent]) -> Result<HashMap<Uuid, Option<i64>>, StoreError> {
    let columns = Columns::of(events);
    let make_messages: Vec<bool> = events.iter().map(|event| makes_message(event)).collect();
    let rows = sqlx::query!(
        r#"
        INSERT INTO event_keys (id, send_at, fingerprint, partition, entry_ms, entry_seq, message_id)
        SELECT id, send_at, fingerprint, partition, ms, seq, CASE WHEN makes_message THEN nextval('message_ids') END
        FROM unnest(
            $1::uuid[], $2::timestamptz[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[], $7::boolean[]
        ) AS k (id, send_at, fingerprint, partition, ms, seq, makes_message)
        ON CONFLICT DO NOTHING
        RETURNING id, message_id
        "#,
        &columns.keys,
        &columns.send_at,
        &columns.fingerprints,
        &columns.partitions,
        &columns.ms,
        &columns.seqs,
        &make_messages
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
