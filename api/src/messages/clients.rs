//! Who writes to us, and in which conversations.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Where, check_id, sources};
use crate::api::App;
use crate::extract::{Json, Path, Query};
use crate::moment;
use crate::page::{self, Limit};
use crate::problem::Problem;

/// Which dialogs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Dialogs {
    /// Who sent them. Without: `messenger`, else `max`.
    #[param(pattern = "^[a-z0-9_-]{1,64}$", example = "messenger")]
    source: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Dialogs on a page.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 500, default = 50, required = false)]
    limit: Limit,
}

/// Someone who writes to us.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Client {
    /// Of the row.
    id: i64,
    /// Who sent them to us.
    source: String,
    /// The provider's id.
    external_client_id: String,
    /// When their first message was accepted.
    #[schema(format = DateTime)]
    first_seen_at: String,
    /// When a message of theirs was last accepted, a minute behind at most.
    #[schema(format = DateTime)]
    last_seen_at: String,
}

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Dialog {
    /// Of the row; its messages are at `/api/v1/dialogs/{id}/messages`.
    id: i64,
    /// The provider's id; empty if the source knows no dialogs, and has one for each client.
    external_dialog_id: String,
}

/// A page of dialogs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DialogPage {
    /// In the order of the provider's ids.
    items: Vec<Dialog>,
    /// `cursor` of the next page; null on the last.
    next: Option<String>,
}

const UNKNOWN: &str = "no message of this client was stored";

async fn find(app: &App, source: Option<&str>, id: &str) -> Result<weir_store::Client, Problem> {
    check_id("external_client_id", id)?;
    let found = app.store.find_client(&sources(source)?, id).await?;
    found.ok_or_else(|| Problem::not_found(UNKNOWN))
}

/// A client, by the provider's id.
#[utoipa::path(get, path = "/api/v1/clients/{external_client_id}",
    params(("external_client_id" = String, min_length = 1, max_length = 1000, pattern = r"^[^\u0000]+$", description = "the provider's id", example = "client-42"), Where),
    responses(
        (status = 200, description = "the client", body = Client, example = json!({"id": 3, "source": "messenger",
            "external_client_id": "client-42", "first_seen_at": "2024-11-22T00:00:00.000000Z",
            "last_seen_at": "2024-11-22T00:01:00.000000Z"})),
        (status = 404, description = "no such client"),
    ))]
pub(super) async fn client(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(place): Query<Where>,
) -> Result<Json<Client>, Problem> {
    let client = find(&app, place.source.as_deref(), &id).await?;
    Ok(Json(Client {
        id: client.id,
        source: client.source,
        external_client_id: client.external_client_id,
        first_seen_at: moment::text(client.first_seen_at),
        last_seen_at: moment::text(client.last_seen_at),
    }))
}

/// The dialogs of a client.
#[utoipa::path(get, path = "/api/v1/clients/{external_client_id}/dialogs",
    params(("external_client_id" = String, min_length = 1, max_length = 1000, pattern = r"^[^\u0000]+$", description = "the provider's id", example = "client-42"), Dialogs),
    responses(
        (status = 200, description = "a page of them", body = DialogPage,
         example = json!({"items": [{"id": 7, "external_dialog_id": ""}], "next": null})),
        (status = 404, description = "no such client"),
    ))]
pub(super) async fn dialogs(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(asked): Query<Dialogs>,
) -> Result<Json<DialogPage>, Problem> {
    let after: Option<String> = page::decode("cursor", asked.cursor.as_deref())?;
    let client = find(&app, asked.source.as_deref(), &id).await?;
    let mut rows = app.store.dialogs_of_client(client.id, after.as_deref(), asked.limit.and_one()).await?;
    let next = asked.limit.cut(&mut rows).map(|last| page::encode(&last.external_dialog_id));
    let items = rows.into_iter().map(|row| Dialog { id: row.id, external_dialog_id: row.external_dialog_id });
    Ok(Json(DialogPage { items: items.collect(), next }))
}
