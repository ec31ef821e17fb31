use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use serde_json::json;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::problem::Problem;

/// Bytes of an id at most.
const LONGEST: usize = 64;

/// The same for programs.
const PATTERN: &str = "^[A-Za-z0-9._@-]{1,64}$";

/// Paths under `/profiles/` that are no ids.
const RESERVED: [&str; 3] = ["stats", "bulk", "bulk-get"];

/// A provider's id of a user, of the form that events may have too. In JSON it is a string or a whole number, which is kept
/// exactly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UserId(String);

impl UserId {
    /// Reads an id.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if text.is_empty() || text.len() > LONGEST || !text.chars().all(plain) {
            return Err("is no user id: 1 to 64 letters, digits, dots, dashes, underscores and @");
        }
        if RESERVED.contains(&text) {
            return Err("is the name of a path, which no user id may be");
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads the id of a path.
    pub(crate) fn of_path(text: &str) -> Result<Self, Problem> {
        Self::parse(text).map_err(|reason| Problem::invalid("user_id", reason))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// An id as it came, whether it is one or not: for requests that answer each item by itself.
#[derive(Debug, Clone)]
pub(crate) struct RawUserId(pub(crate) String);

/// How the document describes an id: a string or a whole number.
pub(crate) struct AnyUserId;

impl ToSchema for AnyUserId {
    fn name() -> Cow<'static, str> {
        "UserId".into()
    }
}

impl PartialSchema for AnyUserId {
    fn schema() -> RefOr<Schema> {
        either(ObjectBuilder::new().schema_type(Type::String).pattern(Some(PATTERN)))
    }
}

impl ToSchema for RawUserId {
    fn name() -> Cow<'static, str> {
        "ItemUserId".into()
    }
}

impl PartialSchema for RawUserId {
    fn schema() -> RefOr<Schema> {
        either(ObjectBuilder::new().schema_type(Type::String))
    }
}

fn either(text: ObjectBuilder) -> RefOr<Schema> {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(i64::MAX));
    let about = "a user id of the provider, as a string or as a whole number";
    OneOfBuilder::new().item(text).item(number).description(Some(about)).examples([json!("12345")]).into()
}

impl<'de> Deserialize<'de> for RawUserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Id;
        impl Visitor<'_> for Id {
            type Value = RawUserId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user id: a string or a whole number above 0")
            }

            fn visit_str<E>(self, text: &str) -> Result<RawUserId, E> {
                Ok(RawUserId(text.to_owned()))
            }

            // MAX's own bound. As a string an id may be anything.
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<RawUserId, E> {
                let number = i64::try_from(number).map_err(|_| E::custom("is larger than any user id"))?;
                Ok(RawUserId(number.to_string()))
            }
        }
        deserializer.deserialize_any(Id)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&RawUserId::deserialize(deserializer)?.0).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_string_are_the_same_id() {
        for (json, id) in [
            ("12345", "12345"),
            ("\"12345\"", "12345"),
            ("9223372036854775807", "9223372036854775807"),
            ("\"test\"", "test"),
        ] {
            assert_eq!(serde_json::from_str::<UserId>(json).unwrap().as_str(), id);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let long = format!("\"{}\"", "x".repeat(65));
        for json in [
            "-1",
            "9223372036854775808",
            "1.5",
            "true",
            "null",
            "\"\"",
            "\"a b\"",
            "\"a:b\"",
            "\"я\"",
            "\"stats\"",
            "\"bulk-get\"",
            &long,
        ] {
            assert!(serde_json::from_str::<UserId>(json).is_err(), "{json}");
        }
    }
}
