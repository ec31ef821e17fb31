//! The clients and dialogs of a batch: each one once, with its row's id from the cache, from the database, or new.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::Fresh;
use super::clients::{self, Client};
use crate::cache::KnownDialog;
use crate::{DialogCache, DialogKey, NewEvent, StoreError};

struct Dialog<'a> {
    /// Index of its client.
    client: usize,
    external_id: &'a str,
    /// One of its messages.
    message: &'a NewEvent,
    id: Option<i64>,
    from_cache: bool,
}

/// Everybody whom a batch's new messages belong to.
pub(super) struct People<'a> {
    clients: Vec<Client<'a>>,
    dialogs: Vec<Dialog<'a>>,
    /// Per message the index of its dialog.
    dialog_of: Vec<usize>,
}

impl<'a> People<'a> {
    /// Gathers them, with what the cache knows.
    pub(super) fn of(fresh: &[Fresh<'a>], cache: &DialogCache) -> Self {
        let mut people = Self { clients: Vec::new(), dialogs: Vec::new(), dialog_of: Vec::with_capacity(fresh.len()) };
        let mut clients = HashMap::with_capacity(fresh.len());
        let mut dialogs = HashMap::with_capacity(fresh.len());
        let mut known = cache.reader();
        for &Fresh { message, .. } in fresh {
            let client = *clients.entry((&*message.source, &*message.external_client_id)).or_insert_with(|| {
                people.clients.push(Client::of(message));
                people.clients.len() - 1
            });
            people.clients[client].hear(message);
            let dialog = *dialogs
                .entry((client, &*message.external_dialog_id))
                .or_insert_with(|| people.add_dialog(client, message, known.find(message)));
            people.dialog_of.push(dialog);
        }
        people
    }

    fn add_dialog(&mut self, client: usize, message: &'a NewEvent, known: Option<KnownDialog>) -> usize {
        if let Some(known) = &known {
            self.clients[client].known.get_or_insert_with(|| known.client.clone());
        }
        let id = known.map(|known| known.dialog_id);
        let external_id = &message.external_dialog_id;
        self.dialogs.push(Dialog { client, external_id, message, id, from_cache: id.is_some() });
        self.dialogs.len() - 1
    }

    /// Finds or makes the rows that the cache did not know.
    pub(super) async fn resolve(&mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        clients::resolve(connection, &mut self.clients).await?;
        self.find_dialogs(connection, |client| !client.is_new).await?;
        self.insert_dialogs(connection).await?;
        self.find_dialogs(connection, |_| true).await
    }

    /// Per message its dialog's id.
    pub(super) fn dialog_ids(&self) -> Result<Vec<i64>, StoreError> {
        let id_of = |&dialog: &usize| self.dialogs[dialog].id.ok_or_else(|| StoreError::vanished("a dialog"));
        self.dialog_of.iter().map(id_of).collect()
    }

    pub(super) fn clients_mut(&mut self) -> &mut [Client<'a>] {
        &mut self.clients
    }

    /// To be called after COMMIT, and only then: before, the ids may be those of rows that never come to be.
    pub(super) fn remember_in(self, cache: &DialogCache) {
        for dialog in self.dialogs {
            let client = &self.clients[dialog.client];
            if let (Some(dialog_id), Some(known)) = (dialog.id, &client.known)
                && (!dialog.from_cache || client.is_rewritten)
            {
                cache.put(DialogKey::of(dialog.message), KnownDialog { dialog_id, client: known.clone() });
            }
        }
    }

    /// The dialogs without an id, sorted by client and external id.
    fn missing(&self, of: impl Fn(&Client<'_>) -> bool) -> Vec<(i64, &'a str, usize)> {
        let row = |(index, dialog): (usize, &Dialog<'a>)| {
            let client = &self.clients[dialog.client];
            let client_id = client.known.as_ref()?.id;
            (dialog.id.is_none() && of(client)).then_some((client_id, dialog.external_id, index))
        };
        let mut missing: Vec<_> = self.dialogs.iter().enumerate().filter_map(row).collect();
        missing.sort_unstable();
        missing
    }

    async fn find_dialogs(
        &mut self,
        connection: &mut PgConnection,
        of: impl Fn(&Client<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let missing = self.missing(of);
        if missing.is_empty() {
            return Ok(());
        }
        let client_ids: Vec<_> = missing.iter().map(|m| m.0).collect();
        let external_ids: Vec<_> = missing.iter().map(|m| m.1).collect();
        let found = sqlx::query!(
            r#"
            SELECT d.id, k.n AS "n!"
            FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS k (client_id, external_dialog_id, n)
            JOIN dialogs d ON d.client_id = k.client_id AND d.external_dialog_id = k.external_dialog_id
            "#,
            &client_ids,
            &external_ids as &[&str]
        );
        for row in found.fetch_all(connection).await? {
            let (_, _, dialog) = missing[nth(row.n)];
            self.dialogs[dialog].id = Some(row.id);
        }
        Ok(())
    }

    /// A dialog that somebody else inserts at the same time is waited for and stays without an id.
    async fn insert_dialogs(&mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let missing = self.missing(|_| true);
        if missing.is_empty() {
            return Ok(());
        }
        let client_ids: Vec<_> = missing.iter().map(|m| m.0).collect();
        let external_ids: Vec<_> = missing.iter().map(|m| m.1).collect();
        let inserted = sqlx::query!(
            r#"
            INSERT INTO dialogs (client_id, external_dialog_id)
            SELECT * FROM unnest($1::bigint[], $2::text[])
            ON CONFLICT DO NOTHING
            RETURNING id, client_id, external_dialog_id
            "#,
            &client_ids,
            &external_ids as &[&str]
        );
        for row in inserted.fetch_all(connection).await? {
            let wanted = (row.client_id, row.external_dialog_id.as_str());
            if let Ok(at) = missing.binary_search_by_key(&wanted, |m| (m.0, m.1)) {
                self.dialogs[missing[at].2].id = Some(row.id);
            }
        }
        Ok(())
    }
}

/// An ordinality as an index. PostgreSQL counts from one.
pub(super) fn nth(ordinality: i64) -> usize {
    usize::try_from(ordinality - 1).unwrap_or(usize::MAX)
}
