//! The search for messages.

use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use weir_store::{FoundMessage, MessageFilter, SearchError};

use super::{Message, moment_of, place, sources};
use crate::api::App;
use crate::extract::{Json, Query};
use crate::moment::Moment;
use crate::page::{self, Limit};
use crate::problem::Problem;

/// How long one page may be searched for by time alone.
const PATIENCE: Duration = Duration::from_secs(2);

/// The period unless the caller names one, where no phone is given.
const USUAL_PERIOD: time::Duration = time::Duration::hours(24);

/// The first moment that a message can have been sent at.
const FIRST: OffsetDateTime = time::macros::datetime!(2000-01-01 0:00 UTC);

/// What is looked for. All that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    /// Of clients with exactly this phone, in E.164.
    #[param(pattern = r"^\+?[0-9]{7,15}$", example = "+79991234567")]
    phone: Option<String>,
    /// Of this source.
    #[param(pattern = "^[a-z0-9_-]{1,64}$", example = "messenger")]
    source: Option<String>,
    /// Sent at this time or later. Without: a day before `to` or now, or with a phone any time.
    #[param(value_type = Option<String>, format = DateTime, example = "2024-11-22T00:00:00Z")]
    from: Option<Moment>,
    /// Sent before this time. Without: any time.
    #[param(value_type = Option<String>, format = DateTime, example = "2024-11-23T00:00:00Z")]
    to: Option<Moment>,
    /// `next` of the page before; the rest of the question must be the same.
    cursor: Option<String>,
    /// Messages on a page.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 500, default = 50, required = false)]
    limit: Limit,
}

/// A message that was found, and whose it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Hit {
    #[serde(flatten)]
    message: Message,
    /// Who sent it to us.
    source: String,
    /// The provider's id of the client.
    external_client_id: String,
    /// The provider's id of the dialog; empty if the source knows no dialogs.
    external_dialog_id: String,
}

/// A page of what was found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HitPage {
    /// Newest first.
    items: Vec<Hit>,
    /// `cursor` of the next page; null on the last. A page can be short, or empty, and have one.
    next: Option<String>,
}

/// Where a search goes on, and from where it began: `now` moves.
type Cursor = (super::Place, i64);

/// Search messages by phone, time and source, newest first.
///
/// A search by time alone ends after two seconds with what it has found, and goes on with `next`.
#[utoipa::path(get, path = "/api/v1/search", params(Search), responses(
    (status = 200, description = "a page of what was found", body = HitPage, example = json!({"items": [
        {"id": 1001, "dialog_id": 7, "external_message_id": "m-1", "text": "Good day", "extra": null,
         "sent_at": "2024-11-22T00:00:00.000000Z", "accepted_at": "2024-11-22T00:00:00.000000Z",
         "stored_at": "2024-11-22T00:00:00.017000Z", "edited_at": null, "removed_at": null, "trace_id": null,
         "source": "messenger", "external_client_id": "client-42", "external_dialog_id": ""}], "next": null})),
))]
pub(super) async fn search(State(app): State<App>, Query(asked): Query<Search>) -> Result<Json<HitPage>, Problem> {
    let phone = asked.phone.as_deref().map(phone).transpose()?;
    if let Some(source) = asked.source.as_deref() {
        sources(Some(source))?;
    }
    let cursor: Option<Cursor> = page::decode("cursor", asked.cursor.as_deref())?;
    // Nothing can have been sent later than a day ahead: an accepted message is from before then.
    let now = OffsetDateTime::now_utc();
    let latest = now + time::Duration::days(2);
    let to = asked.to.map_or(latest, |to| to.0.min(latest));
    let usual = if phone.is_some() { FIRST } else { to.min(now).checked_sub(USUAL_PERIOD).unwrap_or(FIRST) };
    let from = match (cursor, asked.from) {
        (Some((_, from)), _) => moment_of((from, 0), "cursor")?.at,
        (None, Some(from)) => from.0,
        (None, None) => usual,
    };
    let before = match cursor {
        Some((place, _)) => moment_of(place, "cursor")?,
        None => weir_store::Moment::before(to),
    };
    let filter = MessageFilter { phone, source: asked.source, from: from.max(FIRST) };
    let found = app.store.search_messages(&filter, before, asked.limit.0, PATIENCE).await.map_err(problem)?;
    let from = place(weir_store::Moment { at: filter.from, id: 0 }).0;
    let next = found.next.map(|next| page::encode(&(place(next), from)));
    Ok(Json(HitPage { items: found.messages.into_iter().map(Hit::of).collect(), next }))
}

/// In a query a bare + is a blank.
fn phone(text: &str) -> Result<String, Problem> {
    let digits = text.strip_prefix(['+', ' ']).unwrap_or(text);
    if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::invalid("phone", "is no phone such as +79991234567: + and 7 to 15 digits"));
    }
    Ok(format!("+{digits}"))
}

fn problem(error: SearchError) -> Problem {
    match error {
        SearchError::TooCommon => {
            Problem::invalid("phone", "belongs to more than a thousand dialogs; name a source, or search by time")
        }
        SearchError::Store(error) => error.into(),
    }
}

impl Hit {
    fn of(found: FoundMessage) -> Self {
        Self {
            message: Message::of(found.message),
            source: found.source,
            external_client_id: found.external_client_id,
            external_dialog_id: found.external_dialog_id,
        }
    }
}
