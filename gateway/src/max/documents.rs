//! The format of the customer's documents: `message_new` and `callback_query`, with a person in each.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use weir_core::event::{Content, Event, MessageChange, User};

use super::{Ignored, Person, sent_at, storable, user_id};

#[derive(Deserialize)]
struct Update<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    callback_query: Option<Callback<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    from: Option<Person<'a>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(alias = "id", borrow, default)]
    message_id: Option<&'a RawValue>,
    /// Unix seconds.
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(borrow, default)]
    chat: Option<Chat<'a>>,
}

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow)]
    chat_id: &'a RawValue,
}

impl Chat<'_> {
    /// Negative for groups. What is no id names no dialog, and keeps no message out.
    fn id(self) -> String {
        match serde_json::from_str::<i64>(self.chat_id.get()) {
            Ok(number) => number.to_string(),
            Err(_) => user_id(self.chat_id).unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
struct Callback<'a> {
    #[serde(alias = "from", borrow, default)]
    user: Option<Person<'a>>,
}

pub(super) fn decode<'a>(text: &'a str, now_ms: i64, trace: &'a str) -> Result<Event<'a>, Ignored> {
    let update: Update<'a> = serde_json::from_str(text).map_err(|_| Ignored::Malformed)?;
    match &*update.kind {
        "message_new" => message(update.message.ok_or(Ignored::Malformed)?, now_ms, trace),
        "callback_query" => {
            let person = update.callback_query.and_then(|callback| callback.user).ok_or(Ignored::Malformed)?;
            Ok(event("callback_query", unique("cq"), now_ms, None, person.user()?, trace))
        }
        _ => Err(Ignored::Unknown),
    }
}

fn message<'a>(message: Message<'a>, now_ms: i64, trace: &'a str) -> Result<Event<'a>, Ignored> {
    let from = message.from.ok_or(Ignored::Malformed)?;
    let (client, user) = (user_id(from.user_id)?, from.user()?);
    // Without an id of its own every post is another message.
    let id = match message.message_id {
        Some(id) => format!("mn:{}", user_id(id)?),
        None => unique("mn"),
    };
    let sent_ms = sent_at(message.timestamp.and_then(|seconds| seconds.checked_mul(1000)), now_ms, now_ms);
    let content = Content {
        id: id.clone().into(),
        client: client.into(),
        dialog: message.chat.map(Chat::id).unwrap_or_default().into(),
        text: message.text.map(storable),
        sent_ms,
        extra: None,
    };
    Ok(event("message_new", id, sent_ms, Some(MessageChange::Created(content)), user, trace))
}

fn event<'a>(
    kind: &'static str,
    id: String,
    at_ms: i64,
    message: Option<MessageChange<'a>>,
    user: Option<User<'a>>,
    trace: &'a str,
) -> Event<'a> {
    Event { source: "".into(), id: id.into(), kind: kind.into(), at_ms, message, user, traceparent: trace.into() }
}

fn unique(prefix: &str) -> String {
    format!("{prefix}:{:032x}", rand::random::<u128>())
}
