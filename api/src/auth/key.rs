//! The form of an API key: `weir_`, eight characters by which it is found, thirty-two that are secret, and six of a
//! checksum over all before. All are letters and digits, so that a double click takes a key whole.
//!
//! The checksum keeps what was cut or mistyped away from the database, and lets scanners for leaked secrets be sure. The
//! secret has 190 random bits, so its plain SHA-256 is safe to keep: there is nothing to guess.

use std::fmt;

use crc::{CRC_32_ISO_HDLC, Crc};
use rand::RngExt as _;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

const START: &str = "weir_";
const PREFIX: usize = 8;
const SECRET: usize = 32;
const CHECKSUM: usize = 6;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A key of the right form. Whether it is known is for the database to say.
#[derive(Clone)]
pub struct ApiKey(SecretString);

/// Never the secret.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiKey").field(&self.prefix()).finish()
    }
}

impl ApiKey {
    /// A new one.
    pub fn random() -> Self {
        let mut rng = rand::rng();
        let mut text = START.to_owned();
        text.extend((0..PREFIX + SECRET).map(|_| char::from(DIGITS[rng.random_range(0..DIGITS.len())])));
        let sum = checksum(&text);
        Self(SecretString::from(text + &sum))
    }

    /// Reads a key; none if the form or the checksum is not a key's.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(START)?;
        let is_whole =
            rest.len() == PREFIX + SECRET + CHECKSUM && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let (body, sum) = is_whole.then(|| text.split_at(text.len() - CHECKSUM))?;
        (checksum(body) == sum).then(|| Self(SecretString::from(text.to_owned())))
    }

    /// By what it is found; not secret.
    pub fn prefix(&self) -> &str {
        &self.expose()[START.len()..START.len() + PREFIX]
    }

    /// What is kept of it.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.expose()).into()
    }

    /// The key itself, to be shown once.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The CRC-32 of the text, in six digits to the base 62.
fn checksum(text: &str) -> String {
    let mut rest = CRC.checksum(text.as_bytes()) as usize;
    let mut digits = [0; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[rest % DIGITS.len()];
        rest /= DIGITS.len();
    }
    digits.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let key = ApiKey::random();
        let text = key.expose();
        assert_eq!(text.len(), 51);
        let read = ApiKey::parse(text).unwrap();
        assert_eq!((read.prefix(), read.hash()), (key.prefix(), key.hash()));
        assert_ne!(ApiKey::random().expose(), text);
    }

    #[test]
    fn a_key_with_any_character_changed_cut_or_added_is_none() {
        let key = ApiKey::random();
        let text = key.expose();
        for place in 0..text.len() {
            let other = if text.as_bytes()[place] == b'x' { 'y' } else { 'x' };
            let changed = format!("{}{other}{}", &text[..place], &text[place + 1..]);
            assert!(ApiKey::parse(&changed).is_none(), "{place}");
        }
        assert!(ApiKey::parse(&text[..50]).is_none() && ApiKey::parse(&format!("{text}0")).is_none());
        for text in ["", "weir_", "Bearer", "weir_é", &"é".repeat(30)] {
            assert!(ApiKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_that_others_have_worked_out_is_read() {
        // The checksum is zlib's crc32 of what stands before it, to the base 62.
        let text = "weir_AbCdEfGh0123456789abcdefghijKLMNOPQRSTUV";
        assert_eq!(checksum(text), "46OAhS");
    }

    #[test]
    fn nothing_but_the_prefix_is_printed() {
        let key = ApiKey::random();
        let secret = &key.expose()[START.len() + PREFIX..];
        assert!(!format!("{key:?} {key:#?}").contains(secret));
    }
}
