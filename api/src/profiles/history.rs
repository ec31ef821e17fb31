use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_store::{Names, ProfileEvent};

use super::{UserId, show};
use crate::api::App;
use crate::extract::{Json, Path, Query};
use crate::moment;
use crate::page::{self, Limit};
use crate::problem::{Problem, ProblemBody};

/// Which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// `next` of the page before; empty for the first.
    cursor: Option<String>,
    /// Changes on a page, 1 to 500.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 500, default = 50)]
    limit: Limit,
}

/// Changes of a profile, the newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfileHistory)]
pub(super) struct HistoryPage {
    items: Vec<Change>,
    /// The cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<String>,
}

/// One change of a profile.
#[derive(Serialize, ToSchema)]
#[schema(as = ProfileChange)]
struct Change {
    /// When it was made: `last_updated` of the profile after it.
    #[schema(example = "2026-07-01T12:00:00.000000Z", format = DateTime)]
    changed_at: String,
    /// When the event happened that told it, by the provider's clock.
    #[schema(required = true, format = DateTime)]
    event_at: Option<String>,
    /// `webhook` (an event), `user_input` (the user) or `manual` (an administrator).
    #[schema(example = "webhook")]
    cause: String,
    /// The message id of the event, or the name of the caller's key.
    #[schema(example = "1-1782864000000-0")]
    actor: String,
    /// The names before; null if there was no profile.
    #[schema(required = true)]
    old: Option<NamesThen>,
    /// The names after.
    new: NamesThen,
    /// Whether the phone is another one since.
    phone_changed: bool,
}

/// The names of a profile at a time; empty where there was none.
#[derive(Serialize, ToSchema)]
#[schema(as = NamesThen)]
struct NamesThen {
    max_first_name: String,
    max_last_name: String,
    user_provided_name: String,
}

impl From<Names> for NamesThen {
    fn from(names: Names) -> Self {
        Self {
            max_first_name: names.max_first_name.unwrap_or_default(),
            max_last_name: names.max_last_name.unwrap_or_default(),
            user_provided_name: names.user_provided_name.unwrap_or_default(),
        }
    }
}

impl From<ProfileEvent> for Change {
    fn from(event: ProfileEvent) -> Self {
        Self {
            changed_at: moment::text(event.changed_at),
            event_at: event.event_at.map(moment::text),
            cause: event.cause,
            actor: event.actor,
            old: event.old.map(NamesThen::from),
            new: event.new.into(),
            phone_changed: event.phone_changed,
        }
    }
}

/// Everything that changed in a profile
///
/// When, from which event or caller, and the names before and after. The newest first.
#[utoipa::path(get, path = "/profiles/{user_id}/history",
    params(("user_id" = String, pattern = "^[A-Za-z0-9._@-]{1,64}$", description = "the provider's id", example = "12345"), HistoryQuery),
    responses(
        (status = 200, description = "a page of changes", body = HistoryPage, example = json!({"items": [{
            "changed_at": "2026-07-01T12:00:00.000000Z", "event_at": "2026-07-01T11:59:58.000000Z", "cause": "webhook",
            "actor": "1-1782907198000-0", "old": null,
            "new": {"max_first_name": "Иван", "max_last_name": "Петров", "user_provided_name": ""},
            "phone_changed": false
        }], "next": null})),
        (status = 404, description = "this id was never seen", body = ProblemBody, content_type = "application/problem+json",
         example = json!({"type": "urn:weir:problem:not-found", "title": "not found", "status": 404,
             "detail": "this user id was never seen"})),
    ))]
pub(super) async fn history(
    State(app): State<App>,
    Path(user_id): Path<String>,
    Query(HistoryQuery { cursor, limit }): Query<HistoryQuery>,
) -> Result<Json<HistoryPage>, Problem> {
    let user_id = UserId::of_path(&user_id)?;
    let before = page::decode("cursor", cursor.as_deref())?;
    let mut events = app.store.profile_history(user_id.as_str(), before, limit.and_one()).await?;
    if events.is_empty() && app.profiles.get(user_id.as_str()).await?.is_none() {
        return Err(show::unknown());
    }
    let next = limit.cut(&mut events).map(|event| page::encode(&event.id));
    Ok(Json(HistoryPage { items: events.into_iter().map(Change::from).collect(), next }))
}
