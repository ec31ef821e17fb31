//! The one way in which profiles change: rows, history and counts, in the caller's transaction.
//!
//! What an event says that is known already does not come here (`persist/news.rs`), though its time would be news: the row of
//! the event's message is a witness of that. An event that tells another name asks the witnesses whether it comes too late.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use time::{Duration, OffsetDateTime};

use super::change::State;
use super::{Cause, Names, Profile, ProfileChange};
use crate::tally::{self, Tally};
use crate::{Store, StoreError};

/// A profile after its changes.
pub(crate) struct Written {
    pub(crate) profile: Profile,
    /// Whether anything is different now.
    pub(crate) changed: bool,
}

/// A row, locked.
struct Row {
    state: State,
    updated_at: OffsetDateTime,
}

/// A row before and after the changes of its user, who is `user_id`.
struct Step<'c> {
    user_id: &'c str,
    /// The last of the changes: for the history.
    change: &'c ProfileChange,
    old: Option<Row>,
    new: State,
    updated_at: OffsetDateTime,
}

impl Store {
    /// Changes profiles, all or none, and gives each as it is then, sorted by user id. Several changes of one profile count in
    /// their order.
    pub async fn change_profiles(&self, changes: &[ProfileChange]) -> Result<Vec<Profile>, StoreError> {
        let written = self.on_connection(async |connection| {
            let mut transaction = connection.begin().await?;
            let mut tally = Tally::default();
            let written = write(&mut transaction, changes, &mut tally).await?;
            tally.write(&mut transaction).await?;
            transaction.commit().await?;
            Ok(written)
        });
        Ok(written.await?.into_iter().map(|written| written.profile).collect())
    }
}

/// Changes profiles and gives each as it is then, sorted by user id. What there is to count is added to `tally`.
pub(crate) async fn write(
    connection: &mut PgConnection,
    changes: &[ProfileChange],
    tally: &mut Tally,
) -> Result<Vec<Written>, StoreError> {
    let mut by_user = ByUser::new();
    for change in changes {
        by_user.entry(&change.user_id).or_default().push(change);
    }
    let now = micros(OffsetDateTime::now_utc());
    let mut rows = lock(connection, by_user.keys().copied()).await?;
    let new: Vec<Step<'_>> = by_user
        .iter()
        .filter(|(id, _)| !rows.contains_key(**id))
        .map(|(_, changes)| step(changes, None, now))
        .collect();
    let made = insert(connection, &new).await?;
    if made.len() < new.len() {
        // Somebody else made some of them a moment ago.
        let others = new.iter().map(|step| step.user_id).filter(|id| !made.contains(*id));
        rows.extend(lock(connection, others).await?);
    }
    let mut steps: Vec<Step<'_>> = new.into_iter().filter(|step| made.contains(step.user_id)).collect();
    let old = by_user.iter().filter(|(id, _)| !made.contains(**id));
    let old = old.map(|(id, changes)| Ok(step(changes, Some(rows.remove(*id).ok_or(gone())?), now)));
    let mut old: Vec<Step<'_>> = old.collect::<Result<_, StoreError>>()?;
    take_back_overtaken(connection, &mut old, &by_user, now).await?;
    update(connection, &old).await?;
    steps.extend(old);
    steps.sort_unstable_by_key(|step| step.user_id);
    keep(connection, &steps).await?;
    steps.iter().for_each(|step| step.count(tally));
    Ok(steps.into_iter().map(Step::written).collect())
}

fn gone() -> StoreError {
    StoreError::vanished("a profile")
}

/// As exact as PostgreSQL is.
fn micros(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.nanosecond() / 1000 * 1000).unwrap_or(at)
}

fn step<'c>(changes: &[&'c ProfileChange], old: Option<Row>, now: OffsetDateTime) -> Step<'c> {
    let mut new = old.as_ref().map_or_else(State::unknown, |row| row.state.clone());
    changes.iter().for_each(|change| new.apply(change, now));
    let change = changes[changes.len() - 1];
    let updated_at = changed_at(old.as_ref(), &new, now);
    Step { user_id: &change.user_id, change, old, new, updated_at }
}

fn changed_at(old: Option<&Row>, new: &State, now: OffsetDateTime) -> OffsetDateTime {
    match old {
        Some(row) if row.state.says_the_same_as(new) => row.updated_at,
        Some(row) => now.max(row.updated_at + Duration::MICROSECOND),
        None => now,
    }
}

/// The changes of all users.
type ByUser<'c> = BTreeMap<&'c str, Vec<&'c ProfileChange>>;

/// Takes names back that came too late: the person has sent a message since then, and it told the names that are there.
async fn take_back_overtaken(
    connection: &mut PgConnection,
    steps: &mut [Step<'_>],
    by_user: &ByUser<'_>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let (mut ids, mut senders, mut told_at) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps.iter() {
        let renamed = step.old.as_ref().is_some_and(|old| !old.state.names.are_max_names_of(&step.new.names));
        let (true, Some(sender), Some(at)) = (renamed, &step.change.sender, step.new.names_at) else { continue };
        let changes = by_user.get(step.user_id).into_iter().flatten();
        // Of the messages that tell it, the last one is no witness against it.
        let own = changes.filter_map(|change| change.witness).max();
        ids.push(step.user_id.to_owned());
        senders.push(sender.clone());
        told_at.push(own.map_or(at, |own| own.max(at)));
    }
    if ids.is_empty() {
        return Ok(());
    }
    let overtaken = sqlx::query_scalar!(
        r#"
        SELECT u.user_id AS "user_id!"
        FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u (user_id, source, at)
        WHERE EXISTS (
            SELECT FROM clients c
            JOIN dialogs d ON d.client_id = c.id
            -- With a limit it is asked for each dialog: else all messages of the dialog are read and then compared.
            CROSS JOIN LATERAL (SELECT FROM messages m WHERE m.dialog_id = d.id AND m.send_at > u.at LIMIT 1) AS witness
            WHERE c.source = u.source AND c.external_client_id = u.user_id
        )
        "#,
        &ids,
        &senders,
        &told_at
    );
    let overtaken: HashSet<String> = overtaken.fetch_all(connection).await?.into_iter().collect();
    for step in steps.iter_mut().filter(|step| overtaken.contains(step.user_id)) {
        let Some(old) = &step.old else { continue };
        step.new.take_back_max_names(&old.state);
        step.updated_at = changed_at(step.old.as_ref(), &step.new, now);
    }
    Ok(())
}

impl Step<'_> {
    fn changed(&self) -> bool {
        self.old.as_ref().is_none_or(|old| !old.state.says_the_same_as(&self.new))
    }

    fn count(&self, tally: &mut Tally) {
        if !self.changed() {
            return;
        }
        let mut add = |state: &State, n| {
            tally.day(tally::of_source(state.names.source()), self.updated_at, n);
            tally.day(tally::NAMED, self.updated_at, if state.names == Names::default() { 0 } else { n });
            tally.day(tally::FULL, self.updated_at, if state.names.is_full() { n } else { 0 });
        };
        add(&self.new, 1);
        match &self.old {
            Some(old) => {
                add(&old.state, -1);
                tally.day(tally::FRESH, old.updated_at, -1);
            }
            None => tally.day(tally::PROFILES, self.updated_at, 1),
        }
        tally.day(tally::FRESH, self.updated_at, 1);
    }

    fn written(self) -> Written {
        let changed = self.changed();
        let source = self.new.names.source();
        let (user_id, names, last_updated) = (self.user_id.to_owned(), self.new.names, self.updated_at);
        Written { profile: Profile { user_id, names, last_updated, source }, changed }
    }
}

/// The rows that are there, locked in the order of their ids.
async fn lock<'a>(
    connection: &mut PgConnection,
    ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, Row>, StoreError> {
    let ids: Vec<&str> = ids.collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"
        SELECT user_id, max_first_name, max_last_name, user_provided_name, phone, names_at, phone_at, updated_at
        FROM profiles WHERE user_id = ANY($1) ORDER BY user_id FOR NO KEY UPDATE
        "#,
        &ids as &[&str]
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| {
        let names = Names {
            max_first_name: row.max_first_name,
            max_last_name: row.max_last_name,
            user_provided_name: row.user_provided_name,
        };
        let state = State { names, phone: row.phone, names_at: row.names_at, phone_at: row.phone_at };
        (row.user_id, Row { state, updated_at: row.updated_at })
    });
    Ok(rows.collect())
}

/// Makes rows and gives the ids of those that were not there.
async fn insert(connection: &mut PgConnection, steps: &[Step<'_>]) -> Result<HashSet<String>, StoreError> {
    if steps.is_empty() {
        return Ok(HashSet::new());
    }
    let columns = Columns::of(steps);
    let made = sqlx::query_scalar!(
        r#"
        INSERT INTO profiles (
            user_id, max_first_name, max_last_name, user_provided_name, phone, names_at, phone_at, search, updated_at,
            first_seen_at
        )
        SELECT *, updated_at FROM unnest(
            $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::text[],
            $9::timestamptz[]
        ) AS p (user_id, first_name, last_name, told_name, phone, names_at, phone_at, search, updated_at)
        ON CONFLICT DO NOTHING
        RETURNING user_id
        "#,
        &columns.user_ids as &[&str],
        &columns.first_names as &[Option<&str>],
        &columns.last_names as &[Option<&str>],
        &columns.told_names as &[Option<&str>],
        &columns.phones as &[Option<&str>],
        &columns.names_at as &[Option<OffsetDateTime>],
        &columns.phones_at as &[Option<OffsetDateTime>],
        &columns.searches,
        &columns.updated_at
    );
    Ok(made.fetch_all(connection).await?.into_iter().collect())
}

/// Writes the rows again that are different now, if only in the time of what they hold.
async fn update(connection: &mut PgConnection, steps: &[Step<'_>]) -> Result<(), StoreError> {
    let columns = Columns::of(steps.iter().filter(|step| step.old.as_ref().is_none_or(|old| old.state != step.new)));
    if columns.user_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        UPDATE profiles p SET
            max_first_name = c.first_name, max_last_name = c.last_name, user_provided_name = c.told_name,
            phone = c.phone, names_at = c.names_at, phone_at = c.phone_at, search = c.search, updated_at = c.updated_at
        FROM unnest(
            $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::text[],
            $9::timestamptz[]
        ) AS c (user_id, first_name, last_name, told_name, phone, names_at, phone_at, search, updated_at)
        WHERE p.user_id = c.user_id
        "#,
        &columns.user_ids as &[&str],
        &columns.first_names as &[Option<&str>],
        &columns.last_names as &[Option<&str>],
        &columns.told_names as &[Option<&str>],
        &columns.phones as &[Option<&str>],
        &columns.names_at as &[Option<OffsetDateTime>],
        &columns.phones_at as &[Option<OffsetDateTime>],
        &columns.searches,
        &columns.updated_at
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The columns of rows.
#[derive(Default)]
struct Columns<'s> {
    user_ids: Vec<&'s str>,
    first_names: Vec<Option<&'s str>>,
    last_names: Vec<Option<&'s str>>,
    told_names: Vec<Option<&'s str>>,
    phones: Vec<Option<&'s str>>,
    names_at: Vec<Option<OffsetDateTime>>,
    phones_at: Vec<Option<OffsetDateTime>>,
    searches: Vec<String>,
    updated_at: Vec<OffsetDateTime>,
}

impl<'s> Columns<'s> {
    fn of<'c: 's>(steps: impl IntoIterator<Item = &'s Step<'c>>) -> Self {
        let mut columns = Self::default();
        for Step { user_id, new, updated_at, .. } in steps {
            columns.user_ids.push(user_id);
            columns.first_names.push(new.names.max_first_name.as_deref());
            columns.last_names.push(new.names.max_last_name.as_deref());
            columns.told_names.push(new.names.user_provided_name.as_deref());
            columns.phones.push(new.phone.as_deref());
            columns.names_at.push(new.names_at);
            columns.phones_at.push(new.phone_at);
            columns.searches.push(new.names.search());
            columns.updated_at.push(*updated_at);
        }
        columns
    }
}

/// Adds what is different now to the history. Somebody who was merely seen is no news.
async fn keep(connection: &mut PgConnection, steps: &[Step<'_>]) -> Result<(), StoreError> {
    let is_news =
        |step: &&Step<'_>| step.changed() && (step.old.is_some() || !step.new.says_the_same_as(&State::unknown()));
    let news: Vec<&Step<'_>> = steps.iter().filter(is_news).collect();
    if news.is_empty() {
        return Ok(());
    }
    let value = |state: &State| state.names.to_value(state.phone.as_deref());
    let each = || news.iter().map(|step| step.change);
    sqlx::query!(
        r#"
        INSERT INTO profile_history (changed_at, user_id, event_at, cause, actor, old, new)
        SELECT * FROM unnest(
            $1::timestamptz[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::jsonb[], $7::jsonb[]
        )
        "#,
        &news.iter().map(|step| step.updated_at).collect::<Vec<_>>(),
        &each().map(|change| change.user_id.as_str()).collect::<Vec<_>>() as &[&str],
        &each().map(|change| change.at).collect::<Vec<_>>() as &[Option<OffsetDateTime>],
        &each().map(|change| Cause::as_str(change.cause)).collect::<Vec<_>>() as &[&str],
        &each().map(|change| change.actor.as_str()).collect::<Vec<_>>() as &[&str],
        &news.iter().map(|step| step.old.as_ref().map(|old| value(&old.state))).collect::<Vec<_>>()
            as &[Option<Value>],
        &news.iter().map(|step| value(&step.new)).collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}
