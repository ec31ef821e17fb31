//! What is known of a person, and which of their names counts.
//!
//! Events (`persist/news.rs`) and callers of the API change profiles through one way, [`write`](self::write): it decides
//! what is newer, keeps the history and the counts.

mod change;
mod known;
mod write;

mod history;
mod read;
mod search;
mod stats;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

pub use change::{Cause, ProfileChange};
pub use history::ProfileEvent;
pub(crate) use known::unlike;
pub(crate) use read::{by_ids, by_phones};
pub use search::{ProfileFilter, ProfilePlace};
pub use stats::{Freshness, ProfileStats};
pub(crate) use write::write;

/// What somebody without any name is called.
pub const NOBODY: &str = "Неизвестно";

/// To the microsecond, and always of one length: as texts they sort as times do.
const MICROS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Times in JSON: written to the microsecond, read as RFC 3339.
mod micros {
    use serde::Serializer;
    use serde::ser::Error as _;
    pub(super) use time::serde::rfc3339::deserialize;
    use time::{OffsetDateTime, UtcOffset};

    pub(super) fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        let text = at.to_offset(UtcOffset::UTC).format(super::MICROS).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// The customer's documents know no null: a name that is not there is an empty text in JSON.
mod or_empty {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(name: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.as_deref().unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        // The history has null.
        Ok(Option::<String>::deserialize(deserializer)?.filter(|name| !name.is_empty()))
    }
}

/// The names of a person. Each is none or not empty. No `Debug`: they are personal data.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Names {
    /// As MAX has it.
    #[serde(with = "or_empty")]
    pub max_first_name: Option<String>,
    /// As MAX has it.
    #[serde(with = "or_empty")]
    pub max_last_name: Option<String>,
    /// As they told it themselves.
    #[serde(with = "or_empty")]
    pub user_provided_name: Option<String>,
}

/// A person's profile. As JSON it is what the cache holds. No `Debug`: it is personal data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The provider's id.
    pub user_id: String,
    /// See [`Names`].
    #[serde(flatten)]
    pub names: Names,
    /// When it was last changed. Every change makes it later, so that of two versions the newer one is known.
    #[serde(with = "micros")]
    pub last_updated: OffsetDateTime,
    /// Which name counts.
    pub source: NameSource,
}

/// From where a name comes, the one that counts most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// Given in a request. No profile has it.
    Manual,
    /// Told by the person.
    UserInput,
    /// MAX's.
    Webhook,
    /// There is none.
    Default,
}

impl NameSource {
    /// The word in JSON and in PostgreSQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::UserInput => "user_input",
            Self::Webhook => "webhook",
            Self::Default => "default",
        }
    }
}

impl Names {
    /// Which of them counts.
    pub fn source(&self) -> NameSource {
        if self.user_provided_name.is_some() {
            NameSource::UserInput
        } else if self.max_first_name.is_some() || self.max_last_name.is_some() {
            NameSource::Webhook
        } else {
            NameSource::Default
        }
    }

    /// What the person is called.
    pub fn display_name(&self) -> String {
        let max = [&self.max_first_name, &self.max_last_name];
        let max: Vec<&str> = max.into_iter().flatten().map(String::as_str).collect();
        match &self.user_provided_name {
            Some(name) => name.clone(),
            None if max.is_empty() => NOBODY.to_owned(),
            None => max.join(" "),
        }
    }

    /// Whether there is both a first and a last name: MAX's, or a name of two words that they told.
    pub fn is_full(&self) -> bool {
        let told = self.user_provided_name.as_deref().unwrap_or_default();
        (self.max_first_name.is_some() && self.max_last_name.is_some()) || told.split_whitespace().count() > 1
    }

    fn are_max_names_of(&self, other: &Self) -> bool {
        (&self.max_first_name, &self.max_last_name) == (&other.max_first_name, &other.max_last_name)
    }

    /// For the search.
    fn search(&self) -> String {
        let all = [&self.max_first_name, &self.max_last_name, &self.user_provided_name];
        let all: Vec<&str> = all.into_iter().flatten().map(String::as_str).collect();
        search::sought(&all.join(" "))
    }

    /// For the history.
    fn to_value(&self, phone: Option<&str>) -> Value {
        serde_json::json!({
            "max_first_name": self.max_first_name,
            "max_last_name": self.max_last_name,
            "user_provided_name": self.user_provided_name,
            "phone": phone,
        })
    }
}

impl Profile {
    /// As the cache holds it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The version of what is in the cache: later ones are greater, as texts too.
    pub fn version(&self) -> String {
        self.last_updated.to_offset(time::UtcOffset::UTC).format(MICROS).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn names(first: &str, last: &str, told: &str) -> Names {
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Names { max_first_name: name(first), max_last_name: name(last), user_provided_name: name(told) }
    }

    #[test]
    fn the_name_that_counts_most_is_shown() {
        for (first, last, told, shown, source, full) in [
            ("", "", "", NOBODY, NameSource::Default, false),
            ("Анна", "", "", "Анна", NameSource::Webhook, false),
            ("", "Ким", "", "Ким", NameSource::Webhook, false),
            ("Анна", "Ким", "", "Анна Ким", NameSource::Webhook, true),
            ("Анна", "Ким", "Аня", "Аня", NameSource::UserInput, true),
            ("Анна", "", "Аня", "Аня", NameSource::UserInput, false),
            ("", "", "Аня  Ким", "Аня  Ким", NameSource::UserInput, true),
        ] {
            let names = names(first, last, told);
            assert_eq!((&*names.display_name(), names.source(), names.is_full()), (shown, source, full));
        }
    }

    #[test]
    fn a_profile_in_the_cache_looks_as_documented_and_is_read_again() {
        let profile = Profile {
            user_id: "12345".into(),
            names: names("Иван", "Петров", ""),
            last_updated: datetime!(2026-01-02 03:04:05.6 UTC),
            source: NameSource::Webhook,
        };
        let json = r#"{"user_id":"12345","max_first_name":"Иван","max_last_name":"Петров","user_provided_name":"","last_updated":"2026-01-02T03:04:05.600000Z","source":"webhook"}"#;
        assert_eq!(profile.to_json(), json);
        assert!(serde_json::from_str::<Profile>(json).unwrap() == profile);
        assert_eq!(profile.version(), "2026-01-02T03:04:05.600000Z");
        assert!(Names::deserialize(profile.names.to_value(None)).unwrap() == profile.names);
    }
}
