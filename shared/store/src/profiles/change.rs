//! What somebody has to say about a person.

use time::OffsetDateTime;

use super::Names;

/// Who changes a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// An event of the provider.
    Webhook,
    /// The person, by a caller of the API.
    UserInput,
    /// An administrator.
    Manual,
}

impl Cause {
    /// The word in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::UserInput => "user_input",
            Self::Manual => "manual",
        }
    }
}

/// A change of a profile, which is made when it is not there. No `Debug`: it holds personal data.
#[derive(Clone)]
pub struct ProfileChange {
    /// Whose profile.
    pub user_id: String,
    /// Who changes it.
    pub cause: Cause,
    /// The message id of the event, or the name of the caller's key: for the history.
    pub actor: String,
    /// When the message was sent that the event made, if it made one: its row is a witness that the person was called so then.
    pub witness: Option<OffsetDateTime>,
    /// Who sent the event. None for callers.
    pub sender: Option<String>,
    /// When the event happened, by the provider's clock. What an event tells that is older than what another one told before
    /// changes nothing. None for callers: what they say counts now.
    pub at: Option<OffsetDateTime>,
    /// The outer option says whether it is changed, the inner one is the new value. Spaces around a name do not count, and an
    /// empty one is none.
    pub max_first_name: Option<Option<String>>,
    /// See `max_first_name`.
    pub max_last_name: Option<Option<String>>,
    /// See `max_first_name`.
    pub user_provided_name: Option<Option<String>>,
    /// E.164. Only events tell it.
    pub phone: Option<String>,
}

impl ProfileChange {
    /// A change of nothing yet.
    pub fn new(user_id: impl Into<String>, cause: Cause, actor: impl Into<String>) -> Self {
        Self {
            user_id: user_id.into(),
            cause,
            actor: actor.into(),
            witness: None,
            sender: None,
            at: None,
            max_first_name: None,
            max_last_name: None,
            user_provided_name: None,
            phone: None,
        }
    }
}

/// A row of `profiles`, as far as changes matter to it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) names: Names,
    pub(super) phone: Option<String>,
    pub(super) names_at: Option<OffsetDateTime>,
    pub(super) phone_at: Option<OffsetDateTime>,
}

impl State {
    /// Somebody of whom nothing is known.
    pub(super) fn unknown() -> Self {
        Self { names: Names::default(), phone: None, names_at: None, phone_at: None }
    }

    /// Whether the other one would be answered differently, or has another phone.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        self.names == other.names && self.phone == other.phone
    }

    pub(super) fn take_back_max_names(&mut self, old: &Self) {
        self.names.max_first_name.clone_from(&old.names.max_first_name);
        self.names.max_last_name.clone_from(&old.names.max_last_name);
        self.names_at = old.names_at;
    }

    /// Of two events at the same time the one that comes later counts. What a caller says, at `now`, is never too old.
    pub(super) fn apply(&mut self, change: &ProfileChange, now: OffsetDateTime) {
        let is_new =
            |before: Option<OffsetDateTime>| change.at.is_none_or(|at| before.is_none_or(|before| at >= before));
        let at = |before: Option<OffsetDateTime>| Some(change.at.unwrap_or(now)).max(before);
        let tells_names = change.max_first_name.is_some() || change.max_last_name.is_some();
        if tells_names && is_new(self.names_at) {
            set(&mut self.names.max_first_name, &change.max_first_name);
            set(&mut self.names.max_last_name, &change.max_last_name);
            self.names_at = at(self.names_at);
        }
        set(&mut self.names.user_provided_name, &change.user_provided_name);
        if change.phone.is_some() && is_new(self.phone_at) {
            self.phone.clone_from(&change.phone);
            self.phone_at = at(self.phone_at);
        }
    }
}

fn set(to_change: &mut Option<String>, to: &Option<Option<String>>) {
    if let Some(to) = to {
        *to_change = to.as_deref().and_then(name).map(str::to_owned);
    }
}

/// A name as it is kept.
pub(super) fn name(given: &str) -> Option<&str> {
    Some(given.trim()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-07-01 12:00 UTC);

    fn named(first: &str, at: Option<OffsetDateTime>) -> ProfileChange {
        ProfileChange {
            at,
            max_first_name: Some(Some(first.into())),
            max_last_name: Some(None),
            ..ProfileChange::new("7", Cause::Webhook, "")
        }
    }

    fn first_after(changes: &[ProfileChange]) -> Option<String> {
        let mut state = State::unknown();
        changes.iter().for_each(|change| state.apply(change, NOON));
        state.names.max_first_name
    }

    #[test]
    fn what_is_older_changes_nothing() {
        let (before, later) = (Some(NOON - time::Duration::SECOND), Some(NOON + time::Duration::SECOND));
        for (changes, expected) in [
            (vec![named("old", before), named("new", later)], "new"),
            (vec![named("new", later), named("old", before)], "new"),
            (vec![named("one", before), named("two", before)], "two"),
            // A caller at noon: events of the morning come too late, those of the afternoon do not.
            (vec![named("caller", None), named("old", before)], "caller"),
            (vec![named("caller", None), named("new", later)], "new"),
            (vec![named("new", later), named("caller", None)], "caller"),
        ] {
            assert_eq!(first_after(&changes).as_deref(), Some(expected));
        }
    }

    #[test]
    fn spaces_are_no_name() {
        assert_eq!(first_after(&[named(" Anna ", None), named("  ", None)]), None);
        assert_eq!(first_after(&[named(" Anna ", None)]).as_deref(), Some("Anna"));
    }
}
