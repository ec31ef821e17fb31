//! The search for messages by phone, time and source.
//!
//! By phone it goes from the clients to their dialogs, and takes the newest messages of each. By time alone there is no
//! order to read: an index of it would cost every message that is stored. A BRIN index costs next to nothing and finds
//! the pages of a span of time, so the search goes back through spans whose length follows what it finds in them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::browse::{Message, Moment, in_order};
use crate::{Store, StoreError};

/// Dialogs of one phone that are searched.
const DIALOGS: i64 = 1000;

/// Messages of one span that are looked at.
const LOOKED_AT: i64 = 2000;

/// The first span, and what a span grows and shrinks by.
const FIRST_SPAN: Duration = Duration::from_secs(1);
const FACTOR: u32 = 4;

/// The longest span: should there be many messages in it, all are read once.
const LAST_SPAN: Duration = Duration::from_secs(24 * 3600);

/// What is looked for. All that is given must hold.
#[derive(Debug, Clone)]
pub struct MessageFilter {
    /// Of clients with exactly this phone.
    pub phone: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Sent at this time or later.
    pub from: OffsetDateTime,
}

/// A message, and whose it is. No `Debug`: it holds personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundMessage {
    /// The message.
    pub message: Message,
    /// Who sent it to us.
    pub source: String,
    /// The provider's id of the client.
    pub external_client_id: String,
    /// The provider's id of the dialog; empty if the source knows none.
    pub external_dialog_id: String,
}

/// A part of what a search finds, newest first.
pub struct SearchPage {
    /// What was found.
    pub messages: Vec<FoundMessage>,
    /// From where to go on; none if there is nothing more. A page can be short, or empty, and have one.
    pub next: Option<Moment>,
}

/// Why a search is not done.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The phone belongs to too many clients: the search has to be narrowed down.
    #[error("the phone belongs to more than {DIALOGS} dialogs")]
    TooCommon,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A message that was looked at.
#[derive(Debug, Clone, Copy)]
struct Looked {
    place: Moment,
    dialog_id: i64,
}

impl Store {
    /// Up to `limit` messages, newest first, from behind `before`. By time alone it ends after `patience` with what it
    /// has found so far, and says from where to go on.
    ///
    /// # Errors
    /// [`SearchError::TooCommon`], or that of the store.
    pub async fn search_messages(
        &self,
        filter: &MessageFilter,
        before: Moment,
        limit: u16,
        patience: Duration,
    ) -> Result<SearchPage, SearchError> {
        let (found, next) = match &filter.phone {
            Some(phone) => self.search_by_phone(phone, filter, before, limit).await?,
            None => self.search_by_time(filter, before, limit, patience).await?,
        };
        Ok(SearchPage { messages: self.whole_messages(&found).await?, next })
    }

    async fn search_by_phone(
        &self,
        phone: &str,
        filter: &MessageFilter,
        before: Moment,
        limit: u16,
    ) -> Result<(Vec<Looked>, Option<Moment>), SearchError> {
        let dialogs = self.dialogs_of_phone(phone, filter.source.as_deref()).await?;
        if dialogs.len() as i64 > DIALOGS {
            return Err(SearchError::TooCommon);
        }
        let found = self.newest_of_dialogs(&dialogs, filter.from, before, limit).await?;
        let next = found.last().filter(|_| found.len() == usize::from(limit)).map(|last| last.place);
        Ok((found, next))
    }

    async fn search_by_time(
        &self,
        filter: &MessageFilter,
        before: Moment,
        limit: u16,
        patience: Duration,
    ) -> Result<(Vec<Looked>, Option<Moment>), SearchError> {
        let (started, wanted) = (Instant::now(), usize::from(limit));
        let (mut found, mut at, mut span) = (Vec::new(), before, FIRST_SPAN);
        while at.at >= filter.from {
            let from = at.at.checked_sub(span.try_into().unwrap_or(time::Duration::MAX)).unwrap_or(filter.from);
            let from = from.max(filter.from);
            let looked = self.newest_between(from, at).await?;
            let is_full = looked.len() as i64 == LOOKED_AT;
            // Where this span ends: at the last that was looked at, or with everything from its beginning on.
            at = looked.last().filter(|_| is_full).map_or(Moment::before(from), |last| last.place);
            found.extend(self.of_source(looked, filter.source.as_deref()).await?);
            if found.len() >= wanted {
                found.truncate(wanted);
                let next = found.last().map(|last| last.place);
                return Ok((found, next));
            }
            if at == Moment::before(filter.from) {
                break;
            }
            if started.elapsed() > patience {
                return Ok((found, Some(at)));
            }
            span = if is_full { (span / FACTOR).max(Duration::from_millis(1)) } else { (span * FACTOR).min(LAST_SPAN) };
        }
        Ok((found, None))
    }

    async fn dialogs_of_phone(&self, phone: &str, source: Option<&str>) -> Result<Vec<i64>, StoreError> {
        let rows = sqlx::query_scalar!(
            "SELECT d.id FROM clients c JOIN dialogs d ON d.client_id = c.id
             WHERE c.phone = $1 AND ($2::text IS NULL OR c.source = $2) LIMIT $3",
            phone,
            source,
            DIALOGS + 1
        );
        self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await
    }

    async fn newest_of_dialogs(
        &self,
        dialogs: &[i64],
        from: OffsetDateTime,
        before: Moment,
        limit: u16,
    ) -> Result<Vec<Looked>, StoreError> {
        let rows = sqlx::query!(
            "SELECT m.id, m.send_at, m.dialog_id FROM unnest($1::bigint[]) AS d (id)
             CROSS JOIN LATERAL (
                 SELECT id, send_at, dialog_id FROM messages
                 WHERE dialog_id = d.id AND send_at >= $2 AND send_at <= $3 AND (send_at, id) < ($3, $4)
                 ORDER BY send_at DESC, id DESC LIMIT $5
             ) m
             ORDER BY m.send_at DESC, m.id DESC LIMIT $5",
            dialogs,
            from,
            before.at,
            before.id,
            i64::from(limit)
        );
        let rows = self
            .on_connection(async |connection| {
                let mut transaction = in_order(connection).await?;
                let rows = rows.fetch_all(&mut *transaction).await?;
                transaction.commit().await?;
                Ok(rows)
            })
            .await?;
        let looked = |id, at, dialog_id| Looked { place: Moment { at, id }, dialog_id };
        Ok(rows.into_iter().map(|row| looked(row.id, row.send_at, row.dialog_id)).collect())
    }

    async fn newest_between(&self, from: OffsetDateTime, before: Moment) -> Result<Vec<Looked>, StoreError> {
        let rows = sqlx::query!(
            "SELECT id, send_at, dialog_id FROM messages
             WHERE send_at >= $1 AND send_at <= $2 AND (send_at, id) < ($2, $3)
             ORDER BY send_at DESC, id DESC LIMIT $4",
            from,
            before.at,
            before.id,
            LOOKED_AT
        );
        let rows = self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await?;
        let looked = |id, at, dialog_id| Looked { place: Moment { at, id }, dialog_id };
        Ok(rows.into_iter().map(|row| looked(row.id, row.send_at, row.dialog_id)).collect())
    }

    /// Those of them that are of the source.
    async fn of_source(&self, looked: Vec<Looked>, source: Option<&str>) -> Result<Vec<Looked>, StoreError> {
        let Some(source) = source.filter(|_| !looked.is_empty()) else { return Ok(looked) };
        let dialogs: HashSet<i64> = looked.iter().map(|looked| looked.dialog_id).collect();
        let dialogs: Vec<i64> = dialogs.into_iter().collect();
        let rows = sqlx::query_scalar!(
            "SELECT d.id FROM unnest($1::bigint[]) AS wanted (id)
             CROSS JOIN LATERAL (SELECT id, client_id FROM dialogs WHERE dialogs.id = wanted.id LIMIT 1) d
             CROSS JOIN LATERAL (SELECT source FROM clients WHERE clients.id = d.client_id LIMIT 1) c
             WHERE c.source = $2",
            &dialogs,
            source
        );
        let rows = self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await?;
        let theirs: HashSet<i64> = rows.into_iter().collect();
        Ok(looked.into_iter().filter(|looked| theirs.contains(&looked.dialog_id)).collect())
    }

    /// The messages themselves, in the same order. One that was deleted meanwhile is left out.
    async fn whole_messages(&self, found: &[Looked]) -> Result<Vec<FoundMessage>, StoreError> {
        let ids: Vec<i64> = found.iter().map(|found| found.place.id).collect();
        let times: Vec<OffsetDateTime> = found.iter().map(|found| found.place.at).collect();
        let rows = sqlx::query!(
            "SELECT m.id, m.dialog_id, m.external_message_id, m.text, m.extra::text AS extra, m.send_at, m.accepted_at,
                    m.stored_at, m.edited_at, m.removed_at, m.trace_id,
                    d.external_dialog_id, c.source, c.external_client_id
             FROM unnest($1::bigint[], $2::timestamptz[]) WITH ORDINALITY AS wanted (id, send_at, place)
             CROSS JOIN LATERAL (
                 SELECT * FROM messages WHERE messages.id = wanted.id AND messages.send_at = wanted.send_at LIMIT 1
             ) m
             CROSS JOIN LATERAL (SELECT * FROM dialogs WHERE dialogs.id = m.dialog_id LIMIT 1) d
             CROSS JOIN LATERAL (SELECT * FROM clients WHERE clients.id = d.client_id LIMIT 1) c
             ORDER BY wanted.place",
            &ids,
            &times
        );
        let rows = self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await?;
        let found = rows.into_iter().map(|row| FoundMessage {
            message: Message {
                id: row.id,
                dialog_id: row.dialog_id,
                external_message_id: row.external_message_id,
                text: row.text,
                extra: row.extra,
                send_at: row.send_at,
                accepted_at: row.accepted_at,
                stored_at: row.stored_at,
                edited_at: row.edited_at,
                removed_at: row.removed_at,
                trace_id: row.trace_id,
            },
            source: row.source,
            external_client_id: row.external_client_id,
            external_dialog_id: row.external_dialog_id,
        });
        Ok(found.collect())
    }
}
