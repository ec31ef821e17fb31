//! What events tell besides messages: people, and that they happened.

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::profiles::{self, Cause, Profile, ProfileChange};
use crate::tally::{self, Tally};
use crate::{Effect, NewEvent, News, Person, StoreError};

/// Changes the profiles that the events tell of, and gives those that are different now.
pub(super) async fn hear<'a>(
    connection: &mut PgConnection,
    events: impl Iterator<Item = &'a NewEvent>,
    tally: &mut Tally,
) -> Result<Vec<Profile>, StoreError> {
    let told: Vec<Told<'_>> = events.filter_map(Told::by).collect();
    if told.is_empty() {
        return Ok(Vec::new());
    }
    let (repeats, news): (Vec<&Told<'_>>, Vec<&Told<'_>>) = told.iter().partition(|told| told.may_be_a_repeat());
    let mut changed = HashSet::new();
    if !repeats.is_empty() {
        changed = profiles::unlike(connection, repeats.iter().map(|told| told.person)).await?;
    }
    changed.extend(news.into_iter().map(|told| told.person.user_id.clone()));
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    // All that is told of somebody, also what is known: it may have happened later.
    let changes = told.iter().filter(|told| changed.contains(&told.person.user_id)).map(Told::change);
    let written = profiles::write(connection, &changes.collect::<Vec<_>>(), tally).await?;
    Ok(written.into_iter().filter(|written| written.changed).map(|written| written.profile).collect())
}

/// What an event tells of a person.
struct Told<'a> {
    event: &'a NewEvent,
    at: OffsetDateTime,
    person: &'a Person,
}

impl<'a> Told<'a> {
    fn by(event: &'a NewEvent) -> Option<Self> {
        let News { at, person, .. } = &**event.news.as_ref()?;
        Some(Self { event, at: *at, person: person.as_ref()? })
    }

    fn makes_a_message(&self) -> bool {
        self.event.effect == Effect::Message
    }

    /// Whether nothing has to be written if the names are known: its message says when they were told, or there are none. When a
    /// phone was told is kept in the profile alone.
    fn may_be_a_repeat(&self) -> bool {
        self.person.phone.is_none() && (self.person.names.is_none() || self.makes_a_message())
    }

    fn change(&self) -> ProfileChange {
        let names = self.person.names.as_ref();
        ProfileChange {
            at: Some(self.at),
            witness: self.makes_a_message().then_some(self.event.send_at),
            sender: Some(self.event.source.to_string()),
            max_first_name: names.map(|(first, _)| Some(first.clone())),
            max_last_name: names.map(|(_, last)| Some(last.clone())),
            phone: self.person.phone.clone(),
            ..ProfileChange::new(&self.person.user_id, Cause::Webhook, self.event.place.to_string())
        }
    }
}

/// Counts the events of sources that send more than messages.
pub(super) fn count<'a>(events: impl Iterator<Item = &'a NewEvent>, tally: &mut Tally) {
    let now = OffsetDateTime::now_utc();
    let (mut of_kind, mut people, mut took) = (BTreeMap::<&str, i64>::new(), 0, time::Duration::ZERO);
    for event in events {
        let Some(news) = &event.news else { continue };
        *of_kind.entry(&news.kind).or_default() += 1;
        people += i64::from(news.person.is_some());
        took += (now - event.place.accepted_at()).max(time::Duration::ZERO);
    }
    for (kind, n) in of_kind {
        tally.minute(format!("{}{kind}", tally::EVENTS), now, n);
    }
    tally.minute(tally::EVENTS_PEOPLE, now, people);
    tally.minute(tally::EVENTS_MS, now, i64::try_from(took.whole_milliseconds()).unwrap_or(i64::MAX));
}
