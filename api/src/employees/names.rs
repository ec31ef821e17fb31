//! Under which name somebody is an employee: the one in the request, else the one that counts in their profile.
//!
//! The profile is asked for no longer than the cache would be. Whatever it does, somebody who is to be an employee becomes
//! one: without a name they are `Неизвестно` until a backfill finds it.

use time::OffsetDateTime;
use weir_store::{FullName, NameSource, Profile};

use crate::api::App;

/// A name, where it comes from, and the version of the profile that it comes from.
pub(super) struct Named {
    pub(super) name: FullName,
    pub(super) source: NameSource,
    pub(super) version: Option<OffsetDateTime>,
    /// Whose profile it is.
    pub(super) max_id: Option<String>,
}

/// The name for somebody with this phone and this user id, if that is known.
pub(super) async fn resolve(app: &App, given: FullName, max_id: Option<&str>, phone: &str) -> Named {
    // The phone may tell who it is also where the name is given.
    if max_id.is_some() && !is_empty(&given) {
        return Named { name: given, source: NameSource::Manual, version: None, max_id: max_id.map(str::to_owned) };
    }
    let profile = profile(app, max_id, phone).await;
    let max_id = max_id.map(str::to_owned).or_else(|| profile.as_ref().map(|profile| profile.user_id.clone()));
    if !is_empty(&given) {
        return Named { name: given, source: NameSource::Manual, version: None, max_id };
    }
    let known = profile.and_then(|profile| Some((FullName::of(&profile.names)?, profile.last_updated)));
    match known {
        Some(((name, source), version)) => Named { name, source, version: Some(version), max_id },
        None => Named { name: FullName::nobody(), source: NameSource::Default, version: None, max_id },
    }
}

fn is_empty(name: &FullName) -> bool {
    name.first.is_empty() && name.last.is_empty()
}

/// The profile that may be used for them; none if there is none, or none in time.
async fn profile(app: &App, max_id: Option<&str>, phone: &str) -> Option<Profile> {
    let employees = &app.config.employees;
    if !employees.profiles || max_id.is_some_and(|id| !employees.includes(id)) {
        return None;
    }
    let look = async {
        match max_id {
            Some(id) => app.profiles.get(id).await,
            None => app.profiles.by_phone(phone).await,
        }
    };
    let limit = app.profiles.patience();
    let found = match tokio::time::timeout(limit, look).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(%error, "an employee has no name from a profile: profiles cannot be read");
            None
        }
        Err(_) => {
            tracing::warn!("an employee has no name from a profile: profiles cannot be read within {limit:?}");
            None
        }
    };
    found.filter(|profile| employees.includes(&profile.user_id))
}
