//! The clients of a batch: found or made before the messages, written again after them if they changed.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::people::nth;
use crate::cache::KnownClient;
use crate::{NewEvent, Place, StoreError};

/// How far `last_seen_at` may lag behind: one write per client and minute instead of one per message.
const LAST_SEEN_LAG: Duration = Duration::MINUTE;

/// A client and what the batch's new messages say about it.
pub(super) struct Client<'a> {
    source: &'a str,
    external_id: &'a str,
    phone: Option<Phone<'a>>,
    first_accepted_at: OffsetDateTime,
    last_accepted_at: OffsetDateTime,
    /// The row, as the cache or the database has it.
    pub(super) known: Option<KnownClient>,
    /// This transaction made the row.
    pub(super) is_new: bool,
    /// This transaction wrote the row again.
    pub(super) is_rewritten: bool,
}

struct Phone<'a> {
    number: &'a str,
    send_at: OffsetDateTime,
    place: Place,
}

impl<'a> Client<'a> {
    pub(super) fn of(message: &'a NewEvent) -> Self {
        let accepted_at = message.place.accepted_at();
        Self {
            source: &message.source,
            external_id: &message.external_client_id,
            phone: None,
            first_accepted_at: accepted_at,
            last_accepted_at: accepted_at,
            known: None,
            is_new: false,
            is_rewritten: false,
        }
    }

    /// Takes in a message of this client. The phone that was sent last counts; of two sent at the same time, the one
    /// that was accepted later.
    pub(super) fn hear(&mut self, message: &'a NewEvent) {
        let accepted_at = message.place.accepted_at();
        self.first_accepted_at = self.first_accepted_at.min(accepted_at);
        self.last_accepted_at = self.last_accepted_at.max(accepted_at);
        let NewEvent { send_at, place, .. } = *message;
        if let Some(number) = message.client_phone.as_deref()
            && self.phone.as_ref().is_none_or(|phone| (phone.send_at, phone.place) <= (send_at, place))
        {
            self.phone = Some(Phone { number, send_at, place });
        }
    }

    fn number(&self) -> Option<&'a str> {
        self.phone.as_ref().map(|phone| phone.number)
    }

    fn phone_at(&self) -> Option<OffsetDateTime> {
        self.phone.as_ref().map(|phone| phone.send_at)
    }

    /// The row's id, if it is to be written again.
    fn id_to_rewrite(&self) -> Option<i64> {
        let known = self.known.as_ref()?;
        let not_seen_lately = self.last_accepted_at - known.last_seen_at > LAST_SEEN_LAG;
        let has_other_phone = self.phone.as_ref().is_some_and(|phone| {
            known.phone.as_deref() != Some(phone.number) && known.phone_at.is_none_or(|at| at <= phone.send_at)
        });
        (!self.is_new && (not_seen_lately || has_other_phone)).then_some(known.id)
    }
}

/// Finds or makes the rows of those that the cache did not know.
pub(super) async fn resolve(connection: &mut PgConnection, clients: &mut [Client<'_>]) -> Result<(), StoreError> {
    find(connection, clients).await?;
    insert(connection, clients).await?;
    // Somebody else may have made some of them a moment ago.
    find(connection, clients).await
}

/// Indices of those without a row, sorted by source and external id.
fn missing(clients: &[Client<'_>]) -> Vec<usize> {
    let mut missing: Vec<_> = (0..clients.len()).filter(|&index| clients[index].known.is_none()).collect();
    missing.sort_unstable_by_key(|&index| (clients[index].source, clients[index].external_id));
    missing
}

async fn find(connection: &mut PgConnection, clients: &mut [Client<'_>]) -> Result<(), StoreError> {
    let missing = missing(clients);
    if missing.is_empty() {
        return Ok(());
    }
    let sources: Vec<_> = missing.iter().map(|&index| clients[index].source).collect();
    let external_ids: Vec<_> = missing.iter().map(|&index| clients[index].external_id).collect();
    let found = sqlx::query!(
        r#"
        SELECT k.n AS "n!", c.id, c.phone, c.phone_at, c.last_seen_at
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (source, external_client_id, n)
        JOIN clients c ON c.source = k.source AND c.external_client_id = k.external_client_id
        "#,
        &sources as &[&str],
        &external_ids as &[&str]
    );
    for row in found.fetch_all(connection).await? {
        clients[missing[nth(row.n)]].known = Some(KnownClient {
            id: row.id,
            phone: row.phone.map(Arc::from),
            phone_at: row.phone_at,
            last_seen_at: row.last_seen_at,
        });
    }
    Ok(())
}

/// A client that somebody else inserts at the same time is waited for and stays without a row.
async fn insert(connection: &mut PgConnection, clients: &mut [Client<'_>]) -> Result<(), StoreError> {
    let missing = missing(clients);
    if missing.is_empty() {
        return Ok(());
    }
    let each = || missing.iter().map(|&index| &clients[index]);
    let inserted = sqlx::query!(
        r#"
        INSERT INTO clients (source, external_client_id, phone, phone_at, first_seen_at, last_seen_at)
        SELECT * FROM unnest(
            $1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[]
        )
        ON CONFLICT DO NOTHING
        RETURNING id, source, external_client_id
        "#,
        &each().map(|c| c.source).collect::<Vec<_>>() as &[&str],
        &each().map(|c| c.external_id).collect::<Vec<_>>() as &[&str],
        &each().map(Client::number).collect::<Vec<_>>() as &[Option<&str>],
        &each().map(Client::phone_at).collect::<Vec<_>>() as &[Option<OffsetDateTime>],
        &each().map(|c| c.first_accepted_at).collect::<Vec<_>>(),
        &each().map(|c| c.last_accepted_at).collect::<Vec<_>>()
    );
    for row in inserted.fetch_all(connection).await? {
        let wanted = (row.source.as_str(), row.external_client_id.as_str());
        let key_of = |&index: &usize| (clients[index].source, clients[index].external_id);
        if let Ok(at) = missing.binary_search_by_key(&wanted, key_of) {
            clients[missing[at]].inserted(row.id);
        }
    }
    Ok(())
}

impl Client<'_> {
    fn inserted(&mut self, id: i64) {
        self.is_new = true;
        self.known = Some(KnownClient {
            id,
            phone: self.number().map(Arc::from),
            phone_at: self.phone_at(),
            last_seen_at: self.last_accepted_at,
        });
    }
}

/// Writes those again whose phone changed or who were not seen lately. The last statement of the transaction: a client
/// who writes to several workers at once makes them wait for each other here, and not for long.
///
/// Rows are locked in the order of their ids, and NO KEY: a dialog being inserted holds its client's key, and must not
/// wait in a circle. The phone is decided on the row as it is once it is locked.
pub(super) async fn touch(connection: &mut PgConnection, clients: &mut [Client<'_>]) -> Result<(), StoreError> {
    let index_of: HashMap<i64, usize> =
        clients.iter().enumerate().filter_map(|(index, client)| Some((client.id_to_rewrite()?, index))).collect();
    if index_of.is_empty() {
        return Ok(());
    }
    let (ids, indices): (Vec<i64>, Vec<usize>) = index_of.iter().unzip();
    let each = || indices.iter().map(|&index| &clients[index]);
    let rewritten = sqlx::query!(
        r#"
        WITH locked AS MATERIALIZED (
            SELECT c.id, w.phone, w.phone_at, w.seen_at
            FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS w (id, phone, phone_at, seen_at)
            JOIN clients c ON c.id = w.id
            ORDER BY c.id
            FOR NO KEY UPDATE OF c
        )
        UPDATE clients c SET
            phone = CASE WHEN l.phone_at >= c.phone_at OR c.phone_at IS NULL THEN l.phone ELSE c.phone END,
            phone_at = greatest(c.phone_at, l.phone_at),
            last_seen_at = greatest(c.last_seen_at, l.seen_at)
        FROM locked l
        WHERE c.id = l.id
        RETURNING c.id, c.phone, c.phone_at, c.last_seen_at
        "#,
        &ids,
        &each().map(Client::number).collect::<Vec<_>>() as &[Option<&str>],
        &each().map(Client::phone_at).collect::<Vec<_>>() as &[Option<OffsetDateTime>],
        &each().map(|c| c.last_accepted_at).collect::<Vec<_>>()
    );
    for row in rewritten.fetch_all(connection).await? {
        let client = &mut clients[index_of[&row.id]];
        client.is_rewritten = true;
        client.known = Some(KnownClient {
            id: row.id,
            phone: row.phone.map(Arc::from),
            phone_at: row.phone_at,
            last_seen_at: row.last_seen_at,
        });
    }
    Ok(())
}
