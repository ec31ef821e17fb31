//! A message and what makes it the same one when it comes again.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    #[serde(deserialize_with = "id")]
    pub external_message_id: String,
    #[serde(deserialize_with = "id")]
    pub external_client_id: String,
    #[serde(deserialize_with = "phone")]
    pub client_phone: String,
    #[serde(deserialize_with = "text")]
    pub message_text: String,
    #[serde(deserialize_with = "time")]
    pub send_at: i64,
    /// Unix milliseconds; what a sender says here is overwritten.
    #[serde(default)]
    pub accepted_ms: i64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    let good = plain && (1..=128).contains(&id.len());
    good.then_some(id).ok_or_else(|| D::Error::custom("an id has 1 to 128 letters, digits and . _ : -"))
}

fn phone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut phone = String::deserialize(deserializer)?;
    phone.retain(|c| !matches!(c, ' ' | '-' | '(' | ')' | '[' | ']'));
    let digits = phone.strip_prefix('+').unwrap_or_default();
    let good =
        (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    good.then_some(phone).ok_or_else(|| D::Error::custom("a phone is E.164"))
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let good = !text.is_empty() && !text.contains('\0') && (text.len() <= 4096 || text.chars().count() <= 4096);
    good.then_some(text).ok_or_else(|| D::Error::custom("a text has 1 to 4096 characters and no NUL"))
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let seconds = i64::deserialize(deserializer)?;
    let good = (946_684_800..=now_ms() / 1000 + 86_400).contains(&seconds);
    good.then_some(seconds).ok_or_else(|| D::Error::custom("send_at is between 2000-01-01 and a day from now"))
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Message {
    /// As Weir's MessageKey: a 16-byte digest of (source, id).
    pub fn key(&self) -> Uuid {
        let source = "messenger";
        let mut hash = Sha256::new();
        hash.update((source.len() as u64).to_be_bytes());
        hash.update(source);
        hash.update(&self.external_message_id);
        let digest = hash.finalize();
        Uuid::from_slice(&digest[..16]).unwrap_or_default()
    }

    /// As Weir's Fingerprint: 56 bits of a digest of the content.
    pub fn fingerprint(&self) -> i64 {
        let mut hash = Sha256::new();
        for field in [&self.external_client_id, &self.client_phone, &self.message_text] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        hash.update(self.send_at.to_be_bytes());
        hash.finalize()[..7].iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte))
    }
}
