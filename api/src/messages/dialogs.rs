//! The messages of a dialog.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Message, moment_of, place};
use crate::api::App;
use crate::extract::{Json, Path, Query};
use crate::moment::Moment;
use crate::page::{self, Limit};
use crate::problem::Problem;

/// Which messages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Messages {
    /// `next` of the page before, or a time: messages that were sent before it.
    #[param(example = "2024-11-22T00:00:00Z")]
    before: Option<String>,
    /// Messages on a page.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 500, default = 50, required = false)]
    limit: Limit,
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessagePage {
    /// Newest first.
    items: Vec<Message>,
    /// `before` of the next page; null on the last.
    next: Option<String>,
}

/// The messages of a dialog, newest first.
#[utoipa::path(get, path = "/api/v1/dialogs/{id}/messages",
    params(("id" = i64, description = "of the dialog", example = 7), Messages),
    responses(
        (status = 200, description = "a page of them", body = MessagePage, example = json!({"items": [
            {"id": 1001, "dialog_id": 7, "external_message_id": "m-1", "text": "Good day", "extra": null,
             "sent_at": "2024-11-22T00:00:00.000000Z", "accepted_at": "2024-11-22T00:00:00.000000Z",
             "stored_at": "2024-11-22T00:00:00.017000Z", "edited_at": null, "removed_at": null, "trace_id": null}],
            "next": null})),
        (status = 404, description = "no such dialog"),
    ))]
pub(super) async fn of_dialog(
    State(app): State<App>,
    Path(id): Path<i64>,
    Query(asked): Query<Messages>,
) -> Result<Json<MessagePage>, Problem> {
    let before = before(asked.before.as_deref())?;
    let mut rows = app.store.messages_of_dialog(id, before, asked.limit.and_one()).await?;
    if rows.is_empty() && !app.store.has_dialog(id).await? {
        return Err(Problem::not_found("there is no such dialog"));
    }
    let last = asked.limit.cut(&mut rows);
    let next = last.map(|last| page::encode(&place(weir_store::Moment { at: last.send_at, id: last.id })));
    Ok(Json(MessagePage { items: rows.into_iter().map(Message::of).collect(), next }))
}

/// A time, or else a cursor.
fn before(text: Option<&str>) -> Result<weir_store::Moment, Problem> {
    if let Some(Moment(time)) = text.and_then(Moment::parse) {
        return Ok(weir_store::Moment::before(time));
    }
    let place = page::decode("before", text)?;
    place.map_or(Ok(weir_store::Moment::NEWEST), |place| moment_of(place, "before"))
}
