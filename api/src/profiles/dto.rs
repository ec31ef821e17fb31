//! Profiles as they come in and go out.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use weir_store::Profile;

use crate::moment;
use crate::problem::Fault;

/// Characters of a name at most.
const LONGEST: usize = 256;

/// What is known of a person.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Profile)]
pub(crate) struct ProfileBody {
    /// The provider's id.
    #[schema(example = "12345")]
    pub(crate) user_id: String,
    /// What to call them: the name they gave, else MAX's first and last name, else `Неизвестно`.
    #[schema(example = "Иван Петров")]
    pub(crate) display_name: String,
    /// As MAX has it; empty if it has none.
    #[schema(example = "Иван")]
    pub(crate) max_first_name: String,
    /// As MAX has it; empty if it has none.
    #[schema(example = "Петров")]
    pub(crate) max_last_name: String,
    /// As they gave it themselves; empty if they have not.
    #[schema(example = "")]
    pub(crate) user_provided_name: String,
    /// Whether both MAX names are known, or a name of two words was given.
    #[schema(example = true)]
    pub(crate) has_full_name: bool,
    /// Which name counts: `user_input`, `webhook` or `default`.
    #[schema(example = "webhook")]
    pub(crate) source: &'static str,
    /// When any of this last changed. Every change makes it later.
    #[schema(example = "2026-07-01T12:00:00.000000Z", format = DateTime)]
    pub(crate) last_updated: String,
}

impl From<Profile> for ProfileBody {
    fn from(profile: Profile) -> Self {
        Self {
            display_name: profile.names.display_name(),
            has_full_name: profile.names.is_full(),
            source: profile.source.as_str(),
            last_updated: moment::text(profile.last_updated),
            user_id: profile.user_id,
            max_first_name: profile.names.max_first_name.unwrap_or_default(),
            max_last_name: profile.names.max_last_name.unwrap_or_default(),
            user_provided_name: profile.names.user_provided_name.unwrap_or_default(),
        }
    }
}

/// For fields that may be left out or null, which are different things.
pub(crate) fn given<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// What is wrong with a name, if anything is.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Fault> {
    let message = if name.chars().count() > LONGEST {
        format!("has more than {LONGEST} characters")
    } else if name.chars().any(char::is_control) {
        "holds control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Fault { field: field.to_owned(), code: "invalid", message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_of_some_length() {
        for good in ["", "Анна", "Jean-Luc O’Neill", &"я".repeat(256)] {
            assert!(check_name("name", good).is_ok(), "{good}");
        }
        for bad in ["a\0b", "a\nb", "\u{7f}", &"я".repeat(257)] {
            assert!(check_name("name", bad).is_err(), "{bad:?}");
        }
    }
}
