//! The name of an employee: a first and a last one.

use crate::{NOBODY, NameSource, Names};

/// A first and a last name. Either may be empty. No `Debug`: it is personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct FullName {
    /// Empty if there is none.
    pub first: String,
    /// Empty if there is none.
    pub last: String,
}

impl FullName {
    /// What somebody without any name is called.
    pub fn nobody() -> Self {
        Self { first: NOBODY.to_owned(), last: NOBODY.to_owned() }
    }

    /// The name that counts of a person, and where it comes from. A name that they told themselves is the first one, whole:
    /// which of its words is what, nobody knows.
    pub fn of(names: &Names) -> Option<(Self, NameSource)> {
        let name = match (&names.user_provided_name, names.source()) {
            (_, NameSource::Default | NameSource::Manual) => return None,
            (Some(told), _) => Self { first: told.clone(), last: String::new() },
            (None, _) => Self {
                first: names.max_first_name.clone().unwrap_or_default(),
                last: names.max_last_name.clone().unwrap_or_default(),
            },
        };
        Some((name, names.source()))
    }

    /// Whether nobody knows it.
    pub fn is_unknown(&self) -> bool {
        is_unknown(&self.first) && is_unknown(&self.last)
    }

    /// This name with what it lacks of another one. None if nothing comes of it: a half that is known is only completed by
    /// a name that has the same half, or a person would get somebody else's.
    pub(super) fn filled(&self, with: &Self) -> Option<Self> {
        let same = |one: &str, other: &str| one.trim().to_lowercase() == other.to_lowercase();
        let filled = match (is_unknown(&self.first), is_unknown(&self.last)) {
            (true, true) => with.clone(),
            (false, true) if same(&self.first, &with.first) => Self { last: with.last.clone(), ..self.clone() },
            (true, false) if same(&self.last, &with.last) => Self { first: with.first.clone(), ..self.clone() },
            (_, _) => return None,
        };
        (filled != *self).then_some(filled)
    }
}

fn is_unknown(part: &str) -> bool {
    let part = part.trim();
    part.is_empty() || part.to_lowercase() == NOBODY.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(first: &str, last: &str) -> FullName {
        FullName { first: first.into(), last: last.into() }
    }

    fn names(first: &str, last: &str, told: &str) -> Names {
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Names { max_first_name: some(first), max_last_name: some(last), user_provided_name: some(told) }
    }

    #[test]
    fn a_name_that_was_told_is_one_and_maxs_are_two() {
        for (names, expected) in [
            (names("Иван", "Петров", ""), Some((name("Иван", "Петров"), NameSource::Webhook))),
            (names("", "Петров", ""), Some((name("", "Петров"), NameSource::Webhook))),
            (names("Иван", "Петров", "Анна"), Some((name("Анна", ""), NameSource::UserInput))),
            (names("", "", "Анна  Мария Ким"), Some((name("Анна  Мария Ким", ""), NameSource::UserInput))),
            (names("", "", ""), None),
        ] {
            assert!(FullName::of(&names) == expected);
        }
    }

    #[test]
    fn only_what_is_unknown_is_filled_and_nobody_gets_anothers_half() {
        let ivan = name("Иван", "Петров");
        for (before, after) in [
            (name("", ""), Some(ivan.clone())),
            (name(NOBODY, ""), Some(ivan.clone())),
            (name(" неизвестно ", "НЕИЗВЕСТНО"), Some(ivan.clone())),
            (name("иван", ""), Some(name("иван", "Петров"))),
            (name("", "петров"), Some(name("Иван", "петров"))),
            (name("Анна", ""), None),
            (name("Анна", "Ким"), None),
            (ivan.clone(), None),
        ] {
            assert!(before.filled(&ivan) == after);
        }
        assert!(name("", "").filled(&name("", "")).is_none());
    }
}
