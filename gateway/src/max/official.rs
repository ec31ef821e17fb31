//! MAX's own format: an `update_type`, milliseconds, ids that are numbers.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use weir_core::event::{Content, Event, MessageChange, User};

use super::contact::phone_of;
use super::{Ignored, Person, key_of_bytes, sent_at, storable as storable_text, user_id};
use crate::storable;

/// All types that an update may have.
const TYPES: [&str; 20] = [
    "message_created",
    "message_callback",
    "message_edited",
    "message_removed",
    "message_chat_created",
    "comment_created",
    "comment_edited",
    "comment_removed",
    "bot_added",
    "bot_removed",
    "bot_started",
    "bot_stopped",
    "bot_admin_permissions_changed",
    "user_added",
    "user_removed",
    "dialog_cleared",
    "dialog_removed",
    "dialog_muted",
    "dialog_unmuted",
    "chat_title_changed",
];

#[derive(Deserialize)]
struct Update<'a> {
    #[serde(borrow)]
    update_type: Cow<'a, str>,
    /// Unix milliseconds.
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    callback: Option<Callback<'a>>,
    #[serde(borrow, default)]
    user: Option<Person<'a>>,
    #[serde(borrow, default)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message_id: Option<Cow<'a, str>>,
    #[serde(default)]
    chat_id: Option<i64>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    sender: Option<Person<'a>>,
    #[serde(default)]
    recipient: Option<Recipient>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(borrow, default)]
    body: Option<Body<'a>>,
    /// What it answers or forwards. Its sender is a third person.
    #[serde(borrow, default)]
    link: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Recipient {
    #[serde(default)]
    chat_id: Option<i64>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    mid: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    attachments: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Callback<'a> {
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(borrow)]
    callback_id: Cow<'a, str>,
    #[serde(borrow)]
    user: Person<'a>,
}

/// Decodes one update.
pub(super) fn decode<'a>(text: &'a str, now_ms: i64, trace: &'a str) -> Result<Event<'a>, Ignored> {
    let update: Update<'a> = serde_json::from_str(text).map_err(|_| Ignored::Malformed)?;
    let kind = *TYPES.iter().find(|kind| **kind == update.update_type).ok_or(Ignored::Unknown)?;
    let at_ms = sent_at(update.timestamp, now_ms, now_ms);
    let told = match kind {
        "message_created" => created(text, update, at_ms, now_ms)?,
        "message_edited" => edited(update, at_ms, now_ms)?,
        "message_removed" => removed(update)?,
        "message_callback" => called_back(update)?,
        "comment_created" | "comment_edited" => {
            let sender = update.message.and_then(|message| message.sender);
            Told { id: key_of_bytes(text), message: None, user: sender.map(Person::user).transpose()?.flatten() }
        }
        "comment_removed" | "bot_admin_permissions_changed" | "message_chat_created" => {
            Told { id: key_of_bytes(text), message: None, user: seen(update.user_id) }
        }
        _ => happened(kind, text, update)?,
    };
    let Told { id, message, user } = told;
    Ok(Event { source: "".into(), id: id.into(), kind: kind.into(), at_ms, message, user, traceparent: trace.into() })
}

/// What an update tells of.
struct Told<'a> {
    id: String,
    message: Option<MessageChange<'a>>,
    user: Option<User<'a>>,
}

/// The id of the event that created a message.
fn creation(mid: &str) -> String {
    format!("mc:{mid}")
}

fn created<'a>(text: &str, update: Update<'a>, at_ms: i64, now_ms: i64) -> Result<Told<'a>, Ignored> {
    let message = update.message.ok_or(Ignored::Malformed)?;
    // A forward without words of its own has no body, and with it no id.
    let id = message.body.as_ref().map_or_else(|| key_of_bytes(text), |body| creation(&body.mid));
    let (content, user) = content(message, &id, at_ms, now_ms)?;
    Ok(Told { id, message: Some(MessageChange::Created(content)), user })
}

fn edited<'a>(update: Update<'a>, at_ms: i64, now_ms: i64) -> Result<Told<'a>, Ignored> {
    let message = update.message.ok_or(Ignored::Malformed)?;
    let mid = message.body.as_ref().ok_or(Ignored::Malformed)?.mid.clone();
    let of = creation(&mid);
    let (content, user) = content(message, &of, at_ms, now_ms)?;
    let id = format!("me:{mid}:{}", update.timestamp.unwrap_or(0));
    Ok(Told { id, message: Some(MessageChange::Edited { of: of.into(), content }), user })
}

fn removed(update: Update<'_>) -> Result<Told<'_>, Ignored> {
    let mid = update.message_id.ok_or(Ignored::Malformed)?;
    let message = Some(MessageChange::Removed { of: creation(&mid).into() });
    Ok(Told { id: format!("mr:{mid}"), message, user: seen(update.user_id) })
}

/// The message is the bot's own, which was there before: this tells only of who pressed its button.
fn called_back(update: Update<'_>) -> Result<Told<'_>, Ignored> {
    let Callback { timestamp, callback_id, user: person } = update.callback.ok_or(Ignored::Malformed)?;
    let at = timestamp.or(update.timestamp).unwrap_or(0);
    // The id alone is the keyboard's, which is pressed again and again.
    let id = format!("cb:{callback_id}:{at}:{}", user_id(person.user_id)?);
    Ok(Told { id, message: None, user: person.user()? })
}

/// Something happened in a chat, or to the bot.
fn happened<'a>(kind: &str, text: &str, update: Update<'a>) -> Result<Told<'a>, Ignored> {
    let person = update.user.as_ref().map(|person| user_id(person.user_id)).transpose()?;
    let id = match (update.chat_id, &person, update.timestamp) {
        (Some(chat), Some(person), Some(at)) => format!("{kind}:{chat}:{person}:{at}"),
        _ => key_of_bytes(text),
    };
    Ok(Told { id, message: None, user: update.user.map(Person::user).transpose()?.flatten() })
}

/// A message as it is now, and who wrote it.
fn content<'a>(
    message: Message<'a>,
    id: &str,
    at_ms: i64,
    now_ms: i64,
) -> Result<(Content<'a>, Option<User<'a>>), Ignored> {
    let Message { sender, recipient, timestamp, body, link } = message;
    let chat = recipient.unwrap_or_default().chat_id.map(|chat| chat.to_string()).unwrap_or_default();
    let (mid, text, attachments) = match body {
        Some(body) => (body.mid.into_owned(), body.text, body.attachments.unwrap_or_default()),
        None => (id.to_owned(), None, Vec::new()),
    };
    // What is posted in a channel has no sender: the channel is who writes. Its id is negative, no user's is.
    let client = sender.as_ref().map_or(Ok(chat.clone()), |sender| user_id(sender.user_id))?;
    if client.is_empty() {
        return Err(Ignored::Malformed);
    }
    let phone = phone_of(&client, &attachments);
    let user = sender.map(Person::user).transpose()?.flatten();
    let content = Content {
        id: mid.into(),
        client: client.into(),
        dialog: chat.into(),
        text: text.map(storable_text).filter(|text| !text.is_empty()),
        sent_ms: sent_at(timestamp, at_ms, now_ms),
        extra: extra(&attachments, link),
    };
    Ok((content, user.map(|user| User { phone: phone.map(Into::into), ..user })))
}

/// Attachments and what is answered or forwarded, as they came. What PostgreSQL could not hold is left out and counted.
fn extra<'a>(attachments: &[&RawValue], link: Option<&RawValue>) -> Option<Cow<'a, RawValue>> {
    let holds = |raw: &&RawValue| {
        let holds = storable::check(raw.get()).is_ok();
        if !holds {
            metrics::counter!("weir_max_left_out_total").increment(1);
        }
        holds
    };
    let attachments: Vec<&str> = attachments.iter().copied().filter(holds).map(RawValue::get).collect();
    let link = link.filter(holds).map(|link| format!(r#""link":{}"#, link.get()));
    let attachments = (!attachments.is_empty()).then(|| format!(r#""attachments":[{}]"#, attachments.join(",")));
    let members: Vec<String> = attachments.into_iter().chain(link).collect();
    if members.is_empty() {
        return None;
    }
    RawValue::from_string(format!("{{{}}}", members.join(","))).ok().map(Cow::Owned)
}

/// Whom an update names by nothing but an id.
fn seen<'a>(raw: Option<&RawValue>) -> Option<User<'a>> {
    let id = user_id(raw?).ok()?;
    Some(User { id: id.into(), first_name: None, last_name: None, phone: None })
}
