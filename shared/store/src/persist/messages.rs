//! The rows themselves: one statement, whatever the batch's size.

use sqlx::PgConnection;

use super::Fresh;
use super::people::People;
use crate::StoreError;

pub(super) async fn insert(
    connection: &mut PgConnection,
    fresh: &[Fresh<'_>],
    people: &People<'_>,
) -> Result<(), StoreError> {
    let ids: Vec<_> = fresh.iter().map(|f| f.id).collect();
    let dialog_ids = people.dialog_ids()?;
    let send_at: Vec<_> = fresh.iter().map(|f| f.message.send_at).collect();
    let external_ids: Vec<_> = fresh.iter().map(|f| f.message.external_message_id.as_str()).collect();
    let texts: Vec<_> = fresh.iter().map(|f| f.message.text.as_deref()).collect();
    let extras: Vec<_> = fresh.iter().map(|f| f.message.extra.as_ref().map(|json| json.get())).collect();
    let trace_ids: Vec<_> = fresh.iter().map(|f| f.message.trace_id).collect();
    let accepted_at: Vec<_> = fresh.iter().map(|f| f.message.place.accepted_at()).collect();
    sqlx::query!(
        r#"
        INSERT INTO messages (id, send_at, dialog_id, external_message_id, text, extra, trace_id, accepted_at)
        SELECT id, send_at, dialog_id, external_message_id, text, extra::jsonb, trace_id, accepted_at
        FROM unnest(
            $1::bigint[], $2::timestamptz[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::uuid[],
            $8::timestamptz[]
        ) AS m (id, send_at, dialog_id, external_message_id, text, extra, trace_id, accepted_at)
        "#,
        &ids,
        &send_at,
        &dialog_ids,
        &external_ids as &[&str],
        &texts as &[Option<&str>],
        &extras as &[Option<&str>],
        &trace_ids as &[Option<uuid::Uuid>],
        &accepted_at
    )
    .execute(connection)
    .await?;
    Ok(())
}
