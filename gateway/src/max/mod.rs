//! From the bytes of a MAX webhook to events, or to the reason why they are none.
//!
//! Two formats come to the same address: MAX's own (`official`), and the one that the customer's documents describe
//! (`documents`). Whatever is no event of either is counted and answered as if it were one: the provider would send it again
//! and again, and give the bot up in the end.

mod contact;
mod documents;
mod official;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use weir_core::event::{Event, User};

/// Events of one request at most: a page of long polling has a hundred.
const EVENTS: usize = 1000;

/// Longest id of a user, in characters.
const USER_ID: usize = 64;

/// Why bytes make no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// No JSON, or without what every event of its type has.
    Malformed,
    /// Of a type that neither format has.
    Unknown,
    /// Another provider's.
    Foreign,
}

impl Ignored {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Foreign => "foreign",
        }
    }
}

/// What a body says it is.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow, default)]
    update_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    updates: Option<Vec<&'a RawValue>>,
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    group_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    update_id: Option<&'a RawValue>,
}

/// Decodes a body. It mostly holds one event; a page of long polling holds many, each of which may be ignored by itself.
/// `now_ms` is our clock in Unix milliseconds, `trace` the request's trace.
pub(crate) fn decode<'a>(body: &'a [u8], now_ms: i64, trace: &'a str) -> Vec<Result<Event<'a>, Ignored>> {
    let Ok(text) = std::str::from_utf8(body) else { return vec![Err(Ignored::Malformed)] };
    // An array would be taken for the members in their order.
    let object = text.trim_ascii_start().starts_with('{');
    let Some(shape) = serde_json::from_str::<Shape<'a>>(text).ok().filter(|_| object) else {
        return vec![Err(Ignored::Malformed)];
    };
    match shape {
        Shape { update_type: Some(_), .. } => vec![official::decode(text, now_ms, trace)],
        Shape { updates: Some(updates), .. } if updates.len() > EVENTS => vec![Err(Ignored::Malformed)],
        Shape { updates: Some(updates), .. } => {
            updates.into_iter().map(|update| official::decode(update.get(), now_ms, trace)).collect()
        }
        Shape { group_id: Some(_), .. } | Shape { update_id: Some(_), .. } => vec![Err(Ignored::Foreign)],
        Shape { kind: Some(_), .. } => vec![documents::decode(text, now_ms, trace)],
        _ => vec![Err(Ignored::Unknown)],
    }
}

/// The key of an event that has no id of its own: a retry repeats its bytes.
fn key_of_bytes(text: &str) -> String {
    format!("raw:{}", hex::encode(Sha256::digest(text)))
}

/// A user's id as it is kept: exactly as it was written, as a number or as a string. Numbers of more than 53 bits stay what
/// they are; what could not be a part of a key, or of a path, is none.
fn user_id(raw: &RawValue) -> Result<String, Ignored> {
    let id = match serde_json::from_str::<Id>(raw.get()) {
        Ok(Id::Number(number)) => number.to_string(),
        Ok(Id::Text(text)) => text,
        Err(_) => return Err(Ignored::Malformed),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    let good = !id.is_empty() && id.len() <= USER_ID && id.chars().all(plain);
    if good { Ok(id) } else { Err(Ignored::Malformed) }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

/// A person, in either format.
#[derive(Deserialize)]
struct Person<'a> {
    #[serde(borrow)]
    user_id: &'a RawValue,
    #[serde(borrow, default)]
    first_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    last_name: Option<Cow<'a, str>>,
    #[serde(default)]
    is_bot: bool,
}

impl<'a> Person<'a> {
    /// Whom an event tells of: nobody if it is a bot.
    fn user(self) -> Result<Option<User<'a>>, Ignored> {
        if self.is_bot {
            return Ok(None);
        }
        let name = |name: Option<Cow<'_, str>>| storable(name.unwrap_or_default()).trim().to_owned();
        Ok(Some(User {
            id: user_id(self.user_id)?.into(),
            first_name: Some(name(self.first_name).into()),
            last_name: Some(name(self.last_name).into()),
            phone: None,
        }))
    }
}

/// Text that PostgreSQL can hold: NUL is the one character that it cannot.
fn storable(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text }
}

/// A time that a message can have been sent at, by the same bounds as for every source; else `instead`.
fn sent_at(ms: Option<i64>, instead: i64, now_ms: i64) -> i64 {
    let latest = now_ms + crate::decode::AHEAD * 1000;
    let within = |ms: &i64| (crate::decode::EARLIEST * 1000..=latest).contains(ms);
    ms.filter(within).or(Some(instead).filter(within)).unwrap_or(now_ms)
}

#[cfg(test)]
mod tests;
