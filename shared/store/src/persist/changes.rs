//! Edits and removals of messages. Events come in no order: a change may be here before its message is. Then it waits in
//! `early_changes` until the workers' upkeep finds the message.
//!
//! That is without a race: a change that does not see its message writes itself down; whichever of the two is committed later,
//! the upkeep sees both.

use std::collections::{BTreeMap, HashSet};

use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Effect, NewEvent, Store, StoreError};

/// Changes that are applied in one transaction at most.
const STEP: i64 = 1000;

/// How long a change waits for its message: a provider that still tries to deliver gives up within hours.
const PATIENCE_DAYS: i32 = 7;

/// An edit: when it happened, and what the message is then.
struct Edit<'a> {
    at: OffsetDateTime,
    text: Option<&'a str>,
    extra: Option<&'a str>,
}

/// All that happened to one message.
#[derive(Default)]
struct Changes<'a> {
    edit: Option<Edit<'a>>,
    removed_at: Option<OffsetDateTime>,
}

/// By the key of the event that made the message.
#[derive(Default)]
struct ByMessage<'a>(BTreeMap<Uuid, Changes<'a>>);

impl<'a> ByMessage<'a> {
    /// Of several edits the last one counts, of several removals the first.
    fn edited(&mut self, of: Uuid, edit: Edit<'a>) {
        let known = &mut self.0.entry(of).or_default().edit;
        if known.as_ref().is_none_or(|known| known.at <= edit.at) {
            *known = Some(edit);
        }
    }

    fn removed(&mut self, of: Uuid, at: OffsetDateTime) {
        let known = &mut self.0.entry(of).or_default().removed_at;
        *known = Some(known.map_or(at, |known| known.min(at)));
    }
}

/// Applies what the events change; what finds no message waits.
pub(super) async fn apply<'a>(
    connection: &mut PgConnection,
    events: impl Iterator<Item = &'a NewEvent>,
) -> Result<(), StoreError> {
    let mut changes = ByMessage::default();
    for event in events {
        match event.effect {
            Effect::Edit { of } => {
                let extra = event.extra.as_ref().map(|json| json.get());
                changes.edited(of, Edit { at: happened_at(event), text: event.text.as_deref(), extra });
            }
            Effect::Removal { of } => changes.removed(of, happened_at(event)),
            Effect::Message | Effect::None => {}
        }
    }
    if changes.0.is_empty() {
        return Ok(());
    }
    let found = write(connection, &changes).await?;
    changes.0.retain(|key, _| !found.contains(key));
    wait(connection, &changes).await
}

fn happened_at(event: &NewEvent) -> OffsetDateTime {
    event.news.as_ref().map_or(event.send_at, |news| news.at)
}

/// Writes what is found, locked in the order of the rows' ids, and gives the keys whose message is there. A message whose month
/// was detached counts as found: it has been here. What a message says is written and never read: a worker has no right to.
async fn write(connection: &mut PgConnection, changes: &ByMessage<'_>) -> Result<HashSet<Uuid>, StoreError> {
    let keys: Vec<Uuid> = changes.0.keys().copied().collect();
    let found = sqlx::query!(
        "SELECT id, message_id, send_at FROM event_keys WHERE id = ANY($1) AND message_id IS NOT NULL ORDER BY message_id",
        &keys
    );
    let found = found.fetch_all(&mut *connection).await?;
    let (mut edited, mut edits, mut removed, mut removals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &found {
        let (Some(Changes { edit, removed_at }), Some(id)) = (changes.0.get(&row.id), row.message_id) else { continue };
        if let Some(edit) = edit {
            edited.push((id, row.send_at));
            edits.push(edit);
        }
        if let Some(at) = removed_at {
            removed.push((id, row.send_at));
            removals.push(*at);
        }
    }
    if !edited.is_empty() && !removed.is_empty() {
        // Each of the two statements locks its own rows in their order, and both together do not.
        lock(connection, &[edited.as_slice(), &removed].concat()).await?;
    }
    edit(connection, &edited, &edits).await?;
    remove(connection, &removed, &removals).await?;
    Ok(found.into_iter().map(|row| row.id).collect())
}

/// Rows of messages, by id and the time that names the partition.
type Rows = [(i64, OffsetDateTime)];

/// Locks rows in the order of their ids.
async fn lock(connection: &mut PgConnection, rows: &Rows) -> Result<(), StoreError> {
    let (ids, send_at): (Vec<i64>, Vec<OffsetDateTime>) = rows.iter().copied().unzip();
    let locked = sqlx::query_scalar!(
        r#"
        SELECT m.id FROM unnest($1::bigint[], $2::timestamptz[]) AS c (id, send_at)
        JOIN messages m ON m.id = c.id AND m.send_at = c.send_at
        ORDER BY m.id
        FOR NO KEY UPDATE OF m
        "#,
        &ids,
        &send_at
    );
    locked.fetch_all(connection).await?;
    Ok(())
}

async fn edit(connection: &mut PgConnection, rows: &Rows, edits: &[&Edit<'_>]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let (ids, send_at): (Vec<i64>, Vec<OffsetDateTime>) = rows.iter().copied().unzip();
    sqlx::query!(
        r#"
        WITH locked AS MATERIALIZED (
            SELECT m.id, m.send_at, c.edited_at, c.text, c.extra
            FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[])
                AS c (id, send_at, edited_at, text, extra)
            JOIN messages m ON m.id = c.id AND m.send_at = c.send_at
            WHERE m.edited_at IS NULL OR m.edited_at <= c.edited_at
            ORDER BY m.id
            FOR NO KEY UPDATE OF m
        )
        UPDATE messages m SET text = l.text, extra = l.extra::jsonb, edited_at = l.edited_at
        FROM locked l
        WHERE m.id = l.id AND m.send_at = l.send_at AND (m.edited_at IS NULL OR m.edited_at <= l.edited_at)
        "#,
        &ids,
        &send_at,
        &edits.iter().map(|edit| edit.at).collect::<Vec<_>>(),
        &edits.iter().map(|edit| edit.text).collect::<Vec<_>>() as &[Option<&str>],
        &edits.iter().map(|edit| edit.extra).collect::<Vec<_>>() as &[Option<&str>]
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn remove(connection: &mut PgConnection, rows: &Rows, at: &[OffsetDateTime]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let (ids, send_at): (Vec<i64>, Vec<OffsetDateTime>) = rows.iter().copied().unzip();
    sqlx::query!(
        r#"
        WITH locked AS MATERIALIZED (
            SELECT m.id, m.send_at, c.removed_at
            FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) AS c (id, send_at, removed_at)
            JOIN messages m ON m.id = c.id AND m.send_at = c.send_at
            ORDER BY m.id
            FOR NO KEY UPDATE OF m
        )
        UPDATE messages m SET removed_at = least(m.removed_at, l.removed_at)
        FROM locked l
        WHERE m.id = l.id AND m.send_at = l.send_at
        "#,
        &ids,
        &send_at,
        at
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn wait(connection: &mut PgConnection, changes: &ByMessage<'_>) -> Result<(), StoreError> {
    for (key, Changes { edit, removed_at }) in &changes.0 {
        if let Some(Edit { at, text, extra }) = edit {
            sqlx::query!(
                r#"
                INSERT INTO early_changes (event_key, at, removed, text, extra)
                VALUES ($1, $2, false, $3, $4::text::jsonb)
                "#,
                key,
                at,
                *text,
                *extra
            )
            .execute(&mut *connection)
            .await?;
        }
        if let Some(at) = removed_at {
            sqlx::query!("INSERT INTO early_changes (event_key, at, removed) VALUES ($1, $2, true)", key, at)
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

impl Store {
    /// Applies changes that waited for their message, and gives up those that waited for a week. Gives how many of either.
    /// Several processes may do it at once.
    pub async fn apply_early_changes(&self) -> Result<u64, StoreError> {
        self.on_connection(async |connection| {
            // As a rule there are none, and nothing is to be committed.
            let some = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM early_changes) AS "some!""#);
            if !some.fetch_one(&mut *connection).await? {
                return Ok(0);
            }
            let mut transaction = connection.begin().await?;
            let due = sqlx::query!(
                r#"
                DELETE FROM early_changes WHERE id IN (
                    SELECT e.id FROM early_changes e JOIN event_keys k ON k.id = e.event_key
                    WHERE k.message_id IS NOT NULL
                    ORDER BY e.id LIMIT $1 FOR UPDATE OF e SKIP LOCKED
                )
                RETURNING event_key, at, removed, text, extra::text AS extra
                "#,
                STEP
            );
            let due = due.fetch_all(&mut *transaction).await?;
            let mut changes = ByMessage::default();
            for row in &due {
                match row.removed {
                    true => changes.removed(row.event_key, row.at),
                    false => {
                        let (text, extra) = (row.text.as_deref(), row.extra.as_deref());
                        changes.edited(row.event_key, Edit { at: row.at, text, extra });
                    }
                }
            }
            if !changes.0.is_empty() {
                write(&mut transaction, &changes).await?;
            }
            let hopeless = sqlx::query!(
                "DELETE FROM early_changes WHERE noted_at < now() - make_interval(days => $1)",
                PATIENCE_DAYS
            );
            let given_up = hopeless.execute(&mut *transaction).await?.rows_affected();
            transaction.commit().await?;
            Ok(due.len() as u64 + given_up)
        })
        .await
    }
}
