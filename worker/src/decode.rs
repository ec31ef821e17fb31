//! From an entry to a message that can be stored.

use std::borrow::Cow;
use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;
use weir_core::dead_letter::DeadLetter;
use weir_core::message::{ENTRY_VERSION, Message, MessageId};
use weir_core::queue::consume::Entry;
use weir_core::trace::TraceParent;
use weir_store::{NewMessage, Place};

use crate::fate::Failure;

/// What an entry turns out to be.
pub(crate) enum Decoded {
    /// A message to be stored.
    Message(Box<NewMessage>),
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
    if !entry.version.is_empty() && entry.version != ENTRY_VERSION {
        return Decoded::Foreign;
    }
    match serde_json::from_slice::<Message<'_>>(envelope) {
        Ok(message) => new_message(partition, entry, message),
        Err(error) => {
            undecodable(&format!("the envelope is broken at line {} column {}", error.line(), error.column()))
        }
    }
}

fn undecodable(error: &str) -> Decoded {
    Decoded::Failed(Failure::Undecodable { error: error.to_owned() })
}

fn new_message(partition: u16, entry: &Entry, message: Message<'_>) -> Decoded {
    let Some(origin) = MessageId::from_entry(partition, &entry.origin) else {
        return undecodable("the entry's origin is no entry id");
    };
    let Ok(send_at) = OffsetDateTime::from_unix_timestamp(message.send_at) else {
        return undecodable("send_at is no time");
    };
    if message.send_at > latest(origin) {
        return undecodable("send_at is more than a week after the message was accepted");
    }
    Decoded::Message(Box::new(NewMessage {
        key: Uuid::from_bytes(message.key().0),
        fingerprint: message.fingerprint().as_i64(),
        source: Arc::from(&*message.source),
        external_message_id: message.external_message_id.into_owned(),
        external_client_id: message.external_client_id.into_owned(),
        client_phone: Some(message.client_phone.into_owned()).filter(|phone| !phone.is_empty()),
        external_dialog_id: String::new(),
        text: Some(message.message_text.into_owned()),
        extra: message.extra.map(ToOwned::to_owned),
        send_at,
        trace_id: trace(&message.traceparent).map(|trace| Uuid::from_u128(trace.trace_id)),
        place: Place { partition: partition as i16, ms: origin.ms as i64, seq: origin.seq as i64 },
    }))
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

/// The letter of an entry that cannot be stored. It says all that can still be read.
pub(crate) fn letter(entry: &Entry, failure_class: &str, code: &str, error: String) -> DeadLetter {
    let envelope = match &entry.envelope {
        Some(envelope) => envelope.clone(),
        None => serde_json::to_vec(&entry.strange).unwrap_or_default(),
    };
    let message: Option<Message<'_>> = serde_json::from_slice(&envelope).ok();
    let text = |field: Option<&Cow<'_, str>>| field.map(|text| text.to_string()).unwrap_or_default();
    DeadLetter {
        version: entry.version.clone(),
        journey: entry.journey.clone(),
        origin: entry.origin.clone(),
        crashes: entry.crashes,
        class: failure_class.to_owned(),
        code: code.to_owned(),
        error,
        source: text(message.as_ref().map(|message| &message.source)),
        external_message_id: text(message.as_ref().map(|message| &message.external_message_id)),
        trace: message
            .as_ref()
            .and_then(|message| trace(&message.traceparent))
            .map(|trace| trace.trace())
            .unwrap_or_default(),
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
            Decoded::Message(_) => "message".into(),
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
            if let Decoded::Message(message) = decode(1, &entry, 3) {
                prop_assert!(message.place.accepted_at().year() <= 9999);
            }
            let letter = letter(&entry, "decode", "", "x".into());
            prop_assert_eq!(letter.envelope, entry.envelope.unwrap_or_else(|| serde_json::to_vec(&entry.strange).unwrap()));
        }
    }
}
