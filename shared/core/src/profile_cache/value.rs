use serde::{Deserialize, Serialize};
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// RFC 3339 in UTC, always as long: the later of two is the greater text.
const TIME: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A time as the cache and the API write it: in UTC, with six decimals.
///
/// # Panics
/// For years beyond 9999, which PostgreSQL's times do not get to by themselves.
pub fn format_time(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).format(TIME).expect("a year of four digits")
}

/// A profile as the cache holds it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedProfile {
    /// The provider's id.
    pub user_id: String,
    /// As MAX says it.
    #[serde(default)]
    pub max_first_name: Option<String>,
    /// As MAX says it.
    #[serde(default)]
    pub max_last_name: Option<String>,
    /// As the user gave it.
    #[serde(default)]
    pub user_provided_name: Option<String>,
    /// When it last changed: the version.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub last_updated: OffsetDateTime,
    /// Which name counts: `user_input`, `webhook` or `default`.
    pub source: String,
}

/// Names are nobody's business.
impl std::fmt::Debug for CachedProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedProfile")
            .field("last_updated", &self.last_updated)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl CachedProfile {
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("strings are always JSON")
    }

    /// The profile of that user in a value; none if it holds anything else.
    pub(super) fn read(value: &[u8], user_id: &str) -> Option<Self> {
        let profile: Self = serde_json::from_slice(value).ok()?;
        let known = matches!(profile.source.as_str(), "user_input" | "webhook" | "default");
        (known && profile.user_id == user_id).then_some(profile)
    }
}

fn write_time<S: serde::Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_time(*at))
}

fn read_time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    PrimitiveDateTime::parse(&text, TIME).map(PrimitiveDateTime::assume_utc).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn ivan() -> CachedProfile {
        CachedProfile {
            user_id: "12345".into(),
            max_first_name: Some("Иван".into()),
            max_last_name: None,
            user_provided_name: None,
            last_updated: datetime!(2026-07-01 12:00:00.000001 +3),
            source: "webhook".into(),
        }
    }

    #[test]
    fn a_value_has_the_documented_fields() {
        let json = "{\"user_id\":\"12345\",\"max_first_name\":\"Иван\",\"max_last_name\":null,\"user_provided_name\":null,\
                    \"last_updated\":\"2026-07-01T09:00:00.000001Z\",\"source\":\"webhook\"}";
        assert_eq!(ivan().json(), json);
        assert_eq!(CachedProfile::read(json.as_bytes(), "12345"), Some(ivan()));
    }

    #[test]
    fn what_is_no_profile_of_that_user_is_none() {
        let good = ivan().json();
        assert_eq!(CachedProfile::read(good.as_bytes(), "54321"), None);
        for (from, to) in [
            ("webhook", "rumour"),
            ("2026-07-01T09:00:00.000001Z", "2026-07-01T09:00:00Z"),
            ("2026-07-01T09", "2026-13-01T09"),
            ("\"12345\"", "12345"),
            ("}", ""),
        ] {
            assert_eq!(CachedProfile::read(good.replace(from, to).as_bytes(), "12345"), None, "{to}");
        }
        for value in ["", "null", "[]", "{}", "\u{0}", "\"x\""] {
            assert_eq!(CachedProfile::read(value.as_bytes(), "12345"), None, "{value}");
        }
    }

    #[test]
    fn the_later_version_is_the_greater_text() {
        let times = [datetime!(2025-12-31 23:59:59.999999 UTC), datetime!(2026-01-01 0:00 UTC)].map(format_time);
        assert!(times[0] < times[1]);
        assert_eq!(times[1], "2026-01-01T00:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn no_value_makes_the_reader_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = CachedProfile::read(&value, "12345");
        }
    }
}
