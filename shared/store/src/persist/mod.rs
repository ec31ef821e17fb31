//! A batch of messages becomes rows, in one transaction.
//!
//! No two of these transactions can deadlock: all of them lock in the same order. Keys (sorted), new clients (sorted by
//! source and external id), new dialogs (sorted by client and external id), and at last the clients that change (sorted
//! by id, with a lock that the foreign key of dialogs does not wait for).

mod clients;
mod keys;
mod messages;
mod people;
mod trust;

use sqlx::{Connection, PgConnection};

use crate::{DialogCache, Fate, NewMessage, Store, StoreError};

use people::People;
pub(crate) use trust::Trust;

/// A message that no transaction has stored before, with the id that its key was given.
struct Fresh<'a> {
    message: &'a NewMessage,
    id: i64,
}

impl Store {
    /// Stores a batch in one transaction and tells what became of each message, in the batch's order. All or nothing:
    /// after an error no message is stored, with one exception that the error's text names (no answer to COMMIT: then
    /// the next try answers [`Fate::AlreadyStored`]).
    ///
    /// A key may come twice in a batch: the first one is stored and the others are judged against it. `cache` must
    /// belong to this database; it learns ids only after COMMIT.
    pub async fn persist(&self, cache: &DialogCache, batch: &[NewMessage]) -> Result<Vec<Fate>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if batch.len() >= MANY && self.trust.holds() {
            match self.persist_as(Claim::Stake, cache, batch).await {
                Err(error) if error.is_taken() => self.trust.lost(),
                result => return result,
            }
        }
        self.persist_as(Claim::EachByItself, cache, batch).await
    }

    async fn persist_as(
        &self,
        claim: Claim,
        cache: &DialogCache,
        batch: &[NewMessage],
    ) -> Result<Vec<Fate>, StoreError> {
        let once = || self.on_connection(async |connection| persist(connection, claim, cache, batch).await);
        match once().await {
            Err(error) if error.is_foreign_key() => {
                // A client that is remembered was deleted.
                cache.forget(batch);
                once().await
            }
            result => result,
        }
    }
}

/// For fewer messages the one round trip more of [`Claim::Stake`] costs more than it saves.
const MANY: usize = 50;

/// How a batch claims its keys.
#[derive(Debug, Clone, Copy)]
enum Claim {
    /// All are new, or the transaction fails.
    Stake,
    /// Some may be known.
    EachByItself,
}

async fn persist(
    connection: &mut PgConnection,
    claim: Claim,
    cache: &DialogCache,
    batch: &[NewMessage],
) -> Result<Vec<Fate>, StoreError> {
    let mut transaction = connection.begin().await?;
    let fates = match claim {
        Claim::Stake => keys::stake(&mut transaction, batch).await?,
        Claim::EachByItself => keys::claim(&mut transaction, batch).await?,
    };
    let fresh = fresh(batch, &fates);
    let mut people = People::of(&fresh, cache);
    if !fresh.is_empty() {
        people.resolve(&mut transaction).await?;
        messages::insert(&mut transaction, &fresh, &people).await?;
        clients::touch(&mut transaction, people.clients_mut()).await?;
    }
    transaction.commit().await?;
    people.remember_in(cache);
    Ok(fates)
}

/// The messages to insert, in the order of their ids.
fn fresh<'a>(batch: &'a [NewMessage], fates: &[Fate]) -> Vec<Fresh<'a>> {
    let stored = |(message, fate): (&'a NewMessage, &Fate)| match *fate {
        Fate::Stored { message_id } => Some(Fresh { message, id: message_id }),
        Fate::AlreadyStored { .. } | Fate::Duplicate { .. } | Fate::Conflict { .. } => None,
    };
    let mut fresh: Vec<_> = batch.iter().zip(fates).filter_map(stored).collect();
    fresh.sort_unstable_by_key(|fresh| fresh.id);
    fresh
}
