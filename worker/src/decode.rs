//! From an entry to an event that can be stored.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;
use weir_core::dead_letter::DeadLetter;
use weir_core::event::{Content, EVENT_VERSION, Event, MessageChange, User};
use weir_core::message::{ENTRY_VERSION, Message, MessageId, MessageKey};
use weir_core::planted::{self, Planted};
use weir_core::queue::consume::Entry;
use weir_core::trace::TraceParent;
use weir_store::{Effect, NewEvent, News, Person, Place};

use crate::fate::Failure;

/// What an entry turns out to be.
pub(crate) enum Decoded {
    /// An event to be stored.
    Event(Box<NewEvent>),
    /// Of a version that this build does not know: a newer worker may.
    Foreign,
    /// Nothing that can be stored.
    Failed(Failure),
}

/// Reads an entry of a partition. `crashes` is how many deaths are too many.
pub(crate) fn decode(partition: u16, entry: &Entry, crashes: u32) -> Decoded {
    if entry.crashes >= crashes {
        return Decoded::Failed(Failure::Crash { deaths: entry.crashes });
    }
    let Some(envelope) = &entry.envelope else { return undecodable("the entry has no field e") };
    let read = match entry.version.as_str() {
        "" | ENTRY_VERSION => serde_json::from_slice(envelope).map(|message| new_message(partition, entry, message)),
        EVENT_VERSION => serde_json::from_slice(envelope).map(|event| new_event(partition, entry, event)),
        _ => return Decoded::Foreign,
    };
    match read {
        Ok(Ok(event)) => Decoded::Event(Box::new(event)),
        Ok(Err(error)) => undecodable(error),
        Err(error) => {
            undecodable(&format!("the envelope is broken at line {} column {}", error.line(), error.column()))
        }
    }
}

fn undecodable(error: &str) -> Decoded {
    Decoded::Failed(Failure::Undecodable { error: error.to_owned() })
}

/// Why an envelope that can be read cannot be stored.
type Fault = &'static str;

fn new_message(partition: u16, entry: &Entry, message: Message<'_>) -> Result<NewEvent, Fault> {
    let origin = origin(partition, entry)?;
    let send_at = OffsetDateTime::from_unix_timestamp(message.send_at).map_err(|_| "send_at is no time")?;
    Ok(NewEvent {
        key: Uuid::from_bytes(message.key().0),
        fingerprint: message.fingerprint().as_i64(),
        source: Arc::from(&*message.source),
        effect: Effect::Message,
        external_message_id: message.external_message_id.into_owned(),
        external_client_id: message.external_client_id.into_owned(),
        client_phone: Some(message.client_phone.into_owned()).filter(|phone| !phone.is_empty()),
        external_dialog_id: String::new(),
        text: Some(message.message_text.into_owned()),
        extra: message.extra.map(ToOwned::to_owned),
        send_at: within_reach(send_at, origin)?,
        trace_id: trace_id(&message.traceparent),
        place: place(partition, origin),
        news: None,
    })
}

fn new_event(partition: u16, entry: &Entry, event: Event<'_>) -> Result<NewEvent, Fault> {
    let origin = origin(partition, entry)?;
    let at = match planted::is(Planted::ArrivalCounts) {
        true => OffsetDateTime::now_utc(),
        false => time_of(event.at_ms)?,
    };
    let (key, fingerprint, trace_id) = (event.key(), event.fingerprint(), trace_id(&event.traceparent));
    let source: Arc<str> = Arc::from(&*event.source);
    let key_of = |id: &str| Uuid::from_bytes(MessageKey::new(&source, id).0);
    let phone = event.user.as_ref().and_then(|user| user.phone.as_deref().map(str::to_owned));
    let (effect, content) = match event.message {
        Some(MessageChange::Created(content)) => (Effect::Message, Some(content)),
        Some(MessageChange::Edited { of, content }) => (Effect::Edit { of: key_of(&of) }, Some(content)),
        Some(MessageChange::Removed { of }) => (Effect::Removal { of: key_of(&of) }, None),
        None => (Effect::None, None),
    };
    let send_at = match (&content, effect) {
        (Some(content), Effect::Message) => time_of(content.sent_ms)?,
        _ => at,
    };
    let send_at = within_reach(send_at, origin)?;
    let content = content.unwrap_or(Content {
        id: "".into(),
        client: "".into(),
        dialog: "".into(),
        text: None,
        sent_ms: 0,
        extra: None,
    });
    Ok(NewEvent {
        key: Uuid::from_bytes(key.0),
        fingerprint: fingerprint.as_i64(),
        source,
        effect,
        external_message_id: content.id.into_owned(),
        external_client_id: content.client.into_owned(),
        client_phone: phone,
        external_dialog_id: content.dialog.into_owned(),
        text: content.text.map(Cow::into_owned),
        extra: content.extra.map(Cow::into_owned),
        send_at,
        trace_id,
        place: place(partition, origin),
        news: Some(Box::new(News { kind: event.kind.into_owned(), at, person: event.user.map(person) })),
    })
}

fn person(user: User<'_>) -> Person {
    let names = match (user.first_name, user.last_name) {
        (None, None) => None,
        (first, last) => Some((first.unwrap_or_default().into_owned(), last.unwrap_or_default().into_owned())),
    };
    Person { user_id: user.id.into_owned(), names, phone: user.phone.map(Cow::into_owned) }
}

fn origin(partition: u16, entry: &Entry) -> Result<MessageId, Fault> {
    MessageId::from_entry(partition, &entry.origin).ok_or("the entry's origin is no entry id")
}

fn place(partition: u16, origin: MessageId) -> Place {
    Place { partition: partition as i16, ms: origin.ms as i64, seq: origin.seq as i64 }
}

fn time_of(ms: i64) -> Result<OffsetDateTime, Fault> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map_err(|_| "the event's time is no time")
}

fn within_reach(at: OffsetDateTime, origin: MessageId) -> Result<OffsetDateTime, Fault> {
    if at.unix_timestamp() > latest(origin) {
        return Err("send_at is more than a week after the message was accepted");
    }
    Ok(at)
}

fn trace_id(traceparent: &str) -> Option<Uuid> {
    trace(traceparent).map(|trace| Uuid::from_u128(trace.trace_id))
}

/// The latest second at which a message can have been sent, by its own account. The gateway lets nothing pass that is
/// more than a day ahead. What comes by another way, such as an import, must not make everybody wait for a month that
/// has no partition yet. The clocks of Redis and of this machine both count, as one may be wrong.
fn latest(origin: MessageId) -> i64 {
    const WEEK: i64 = 7 * 24 * 3600;
    let accepted = i64::try_from(origin.ms / 1000).unwrap_or(0).min(i64::MAX - WEEK);
    // An id can claim any time.
    let now = OffsetDateTime::now_utc().unix_timestamp();
    if accepted > now + 365 * 24 * 3600 { now + WEEK } else { accepted.max(now) + WEEK }
}

fn trace(text: &str) -> Option<TraceParent> {
    text.parse().ok()
}

/// What an envelope is called, as far as it can be read: each empty if it cannot.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    #[serde(rename = "src")]
    source: String,
    id: String,
    #[serde(rename = "trace")]
    traceparent: String,
}

impl Named {
    /// Envelopes of all versions name these three alike.
    fn of(envelope: &[u8]) -> Self {
        serde_json::from_slice(envelope).unwrap_or_default()
    }
}

/// The letter of an entry that cannot be stored. It says all that can still be read.
pub(crate) fn letter(entry: &Entry, failure_class: &str, code: &str, error: String) -> DeadLetter {
    let envelope = match &entry.envelope {
        Some(envelope) => envelope.clone(),
        None => serde_json::to_vec(&entry.strange).unwrap_or_default(),
    };
    let named = Named::of(&envelope);
    DeadLetter {
        version: entry.version.clone(),
        journey: entry.journey.clone(),
        origin: entry.origin.clone(),
        crashes: entry.crashes,
        class: failure_class.to_owned(),
        code: code.to_owned(),
        error,
        trace: trace(&named.traceparent).map(|trace| trace.trace()).unwrap_or_default(),
        source: named.source,
        external_message_id: named.id,
        replay: entry.replay.clone(),
        envelope,
        ..DeadLetter::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_core::journey::Journey;
    use weir_core::queue::consume::Lane;

    use super::*;

    fn entry(envelope: Option<Vec<u8>>) -> Entry {
        Entry {
            lane: Lane::Ingest,
            id: "1760000000000-1".into(),
            version: ENTRY_VERSION.into(),
            envelope,
            journey: Journey::default(),
            origin: "1760000000000-1".into(),
            crashes: 0,
            replay: String::new(),
            strange: Vec::new(),
        }
    }

    fn envelope(send_at: i64) -> Vec<u8> {
        format!(r#"{{"src":"m","id":"1","client":"c","phone":"+7","text":"t","sent":{send_at}}}"#).into_bytes()
    }

    fn fate_of(entry: &Entry) -> String {
        match decode(1, entry, 3) {
            Decoded::Event(_) => "message".into(),
            Decoded::Foreign => "foreign".into(),
            Decoded::Failed(failure) => failure.text(),
        }
    }

    #[test]
    fn a_time_for_which_there_is_no_month_is_the_messages_own_fault() {
        let soon = OffsetDateTime::now_utc().unix_timestamp() + 2 * 24 * 3600;
        for (send_at, expected) in [
            (soon, "message"),
            (-62_135_596_800, "message"),
            (soon + 30 * 24 * 3600, "send_at is more than a week after the message was accepted"),
            (253_402_300_799, "send_at is more than a week after the message was accepted"),
            (i64::MAX, "send_at is no time"),
            (i64::MIN, "send_at is no time"),
        ] {
            assert_eq!(fate_of(&entry(Some(envelope(send_at)))), expected, "{send_at}");
        }
        for origin in ["253402300799000-1", "18446744073709551615-0"] {
            let far = Entry { origin: origin.into(), ..entry(Some(envelope(253_402_300_799))) };
            assert!(fate_of(&far).starts_with("send_at is more"), "{origin}");
        }
    }

    proptest! {
        #[test]
        fn no_entry_makes_a_worker_panic(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..100),
                any::<i64>().prop_map(envelope),
                "\\{(\"(src|id|client|phone|text|sent|extra|trace)\":(\"a\\\\u0000\"|-?[0-9]{1,20}|null|\\[\\]),?){0,8}\\}".prop_map(String::into_bytes),
            ],
            version in prop_oneof![Just(ENTRY_VERSION.to_owned()), any::<String>()],
            origin in prop_oneof!["[0-9]{1,20}-[0-9]{1,20}", any::<String>()],
            crashes in 0_u32..5,
            strange in prop::collection::vec(any::<(String, String)>(), 0..3),
            has_envelope in any::<bool>(),
        ) {
            let entry = Entry { version, origin, crashes, strange, ..entry(has_envelope.then_some(bytes)) };
            if let Decoded::Event(message) = decode(1, &entry, 3) {
                prop_assert!(message.place.accepted_at().year() <= 9999);
            }
            let letter = letter(&entry, "decode", "", "x".into());
            prop_assert_eq!(letter.envelope, entry.envelope.unwrap_or_else(|| serde_json::to_vec(&entry.strange).unwrap()));
        }
    }
}
