//! Pages: how many, and from where on.
//!
//! A cursor says behind which row the next page begins, so a page costs the same however far it is from the first. It is
//! opaque to callers: its form may change with any version.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Items on a page unless the caller asks for another number.
pub(crate) const USUAL: u16 = 50;

/// Items on a page at most.
pub(crate) const MOST: u16 = 500;

/// How many items a page has at most: 1 to [`MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) u16);

impl Limit {
    /// How many to ask for: one more tells whether there is another page.
    pub(crate) fn and_one(self) -> u16 {
        self.0 + 1
    }

    /// Cuts what was found to a page. Gives the last of it, behind which the next page begins, if there is one.
    pub(crate) fn cut<T>(self, found: &mut Vec<T>) -> Option<&T> {
        let more = found.len() > usize::from(self.0);
        found.truncate(usize::from(self.0));
        found.last().filter(|_| more)
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(USUAL)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // From a query everything is text.
        let text = String::deserialize(deserializer)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = text.parse().ok().filter(|limit| digits && (1..=MOST).contains(limit));
        limit.map(Self).ok_or_else(|| D::Error::custom(format!("is no number from 1 to {MOST}")))
    }
}

/// Writes a cursor.
pub(crate) fn encode(place: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// Reads a cursor that came as the parameter `field`. None is the first page; so is an empty one, which is what forms send
/// whose field was left empty.
pub(crate) fn decode<T: DeserializeOwned>(field: &str, text: Option<&str>) -> Result<Option<T>, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let place = URL_SAFE_NO_PAD.decode(text).ok().and_then(|json| serde_json::from_slice(&json).ok());
    place.map(Some).ok_or_else(|| no_cursor(field))
}

/// What is wrong with a cursor that leads nowhere.
pub(crate) fn no_cursor(field: &str) -> Problem {
    Problem::invalid(field, "is no cursor of this list; take it from `next` of the page before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        let text = encode(&(17_i64, "a/b+c"));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
        assert_eq!(decode("cursor", Some(&text)).unwrap(), Some((17_i64, "a/b+c".to_owned())));
        for first in [None, Some("")] {
            assert_eq!(decode::<i64>("cursor", first).unwrap(), None);
        }
    }

    #[test]
    fn only_a_page_that_is_not_the_last_has_another_behind_it() {
        for (found, last) in [(vec![], None), (vec![1, 2], None), (vec![1, 2, 3], Some(2))] {
            let mut page = found.clone();
            assert_eq!(Limit(2).cut(&mut page).copied(), last, "{found:?}");
            assert!(page.len() <= 2 && found.starts_with(&page));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused_by_name() {
        for text in ["x", "bnVsbA", "%%%", "W10"] {
            let problem = decode::<(i64, String)>("before", Some(text)).unwrap_err();
            assert!(matches!(&problem, Problem::Invalid { faults } if faults[0].field == "before"), "{text}");
        }
    }
}
