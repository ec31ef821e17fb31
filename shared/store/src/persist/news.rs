//! What events tell besides messages: people, and that they happened.

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::profiles::{self, Cause, Profile, ProfileChange};
use crate::tally::{self, Tally};
use crate::{Effect, NewEvent, News, StoreError};

/// Changes the profiles that the events tell of, and gives those that are different now.
pub(super) async fn hear<'a>(
    connection: &mut PgConnection,
    events: impl Iterator<Item = &'a NewEvent>,
    tally: &mut Tally,
) -> Result<Vec<Profile>, StoreError> {
    let changes: Vec<ProfileChange> = events.filter_map(change).collect();
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let written = profiles::write(connection, &changes, tally).await?;
    Ok(written.into_iter().filter(|written| written.changed).map(|written| written.profile).collect())
}

fn change(event: &NewEvent) -> Option<ProfileChange> {
    let News { at, person, .. } = &**event.news.as_ref()?;
    let person = person.as_ref()?;
    let names = person.names.as_ref();
    Some(ProfileChange {
        at: Some(*at),
        witness: (event.effect == Effect::Message).then_some(event.send_at),
        sender: Some(event.source.to_string()),
        max_first_name: names.map(|(first, _)| Some(first.clone())),
        max_last_name: names.map(|(_, last)| Some(last.clone())),
        phone: person.phone.clone(),
        ..ProfileChange::new(&person.user_id, Cause::Webhook, event.place.to_string())
    })
}

/// Counts the events of sources that send more than messages.
pub(super) fn count<'a>(events: impl Iterator<Item = &'a NewEvent>, tally: &mut Tally) {
    let now = OffsetDateTime::now_utc();
    for event in events {
        let Some(news) = &event.news else { continue };
        tally.minute(format!("{}{}", tally::EVENTS, news.kind), now, 1);
        let took = (now - event.place.accepted_at()).whole_milliseconds();
        tally.minute(tally::EVENTS_MS.into(), now, i64::try_from(took).unwrap_or(0).max(0));
    }
}
