//! A batch of events becomes rows, in one transaction.
//!
//! All of these transactions lock in the same order, so they do not deadlock. Keys (sorted), new clients (sorted by
//! source and external id), new dialogs (sorted by client and external id), messages that change (sorted by id), profiles
//! (sorted by user), the clients that change (sorted by id, with a lock that the foreign key of dialogs does not wait for),
//! and at last the counts (sorted).

mod changes;
mod clients;
mod keys;
mod messages;
mod news;
mod people;
mod trust;

use std::fmt;

use sqlx::{Connection, PgConnection};

use crate::tally::Tally;
use crate::{DialogCache, Fate, NewEvent, Profile, Store, StoreError};

use people::People;
pub(crate) use trust::Trust;

/// What became of a batch.
#[derive(Default)]
pub struct Persisted {
    /// One for each event, in the batch's order.
    pub fates: Vec<Fate>,
    /// The profiles that are different now.
    pub profiles: Vec<Profile>,
}

impl fmt::Debug for Persisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persisted").field("fates", &self.fates).finish_non_exhaustive()
    }
}

/// A message that no transaction has stored before, with the id that its key was given.
struct Fresh<'a> {
    message: &'a NewEvent,
    id: i64,
}

impl Store {
    /// Stores a batch in one transaction and tells what became of each event, in the batch's order. All or nothing:
    /// after an error nothing is stored, with one exception that the error's text names (no answer to COMMIT: then
    /// the next try answers [`Fate::AlreadyStored`]).
    ///
    /// A key may come twice in a batch: the first one is stored and the others are judged against it. `cache` must
    /// belong to this database; it learns ids only after COMMIT.
    pub async fn persist(&self, cache: &DialogCache, batch: &[NewEvent]) -> Result<Persisted, StoreError> {
        if batch.is_empty() {
            return Ok(Persisted::default());
        }
        if batch.len() >= MANY && self.trust.holds() {
            match self.persist_as(Claim::Stake, cache, batch).await {
                Err(error) if error.is_taken() => self.trust.lost(),
                result => return result,
            }
        }
        self.persist_as(Claim::EachByItself, cache, batch).await
    }

    async fn persist_as(&self, claim: Claim, cache: &DialogCache, batch: &[NewEvent]) -> Result<Persisted, StoreError> {
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
    batch: &[NewEvent],
) -> Result<Persisted, StoreError> {
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
    }
    let stored = || stored(batch, &fates);
    let mut tally = Tally::default();
    changes::apply(&mut transaction, stored()).await?;
    let profiles = news::hear(&mut transaction, stored(), &mut tally).await?;
    clients::touch(&mut transaction, people.clients_mut()).await?;
    news::count(stored(), &mut tally);
    tally.write(&mut transaction).await?;
    transaction.commit().await?;
    people.remember_in(cache);
    Ok(Persisted { fates, profiles })
}

/// The events that this transaction is the first to store.
fn stored<'a>(batch: &'a [NewEvent], fates: &[Fate]) -> impl Iterator<Item = &'a NewEvent> {
    let is_stored = |fate: &Fate| matches!(fate, Fate::Stored { .. });
    batch.iter().zip(fates).filter(move |(_, fate)| is_stored(fate)).map(|(event, _)| event)
}

/// The messages to insert, in the order of their ids.
fn fresh<'a>(batch: &'a [NewEvent], fates: &[Fate]) -> Vec<Fresh<'a>> {
    let stored = |(message, fate): (&'a NewEvent, &Fate)| match *fate {
        Fate::Stored { message_id: Some(id) } => Some(Fresh { message, id }),
        Fate::Stored { message_id: None }
        | Fate::AlreadyStored { .. }
        | Fate::Duplicate { .. }
        | Fate::Conflict { .. } => None,
    };
    let mut fresh: Vec<_> = batch.iter().zip(fates).filter_map(stored).collect();
    fresh.sort_unstable_by_key(|fresh| fresh.id);
    fresh
}
