//! What became of messages, by the provider's ids.
//!
//! What is stored is answered by PostgreSQL alone. The queue is asked for the rest, and what has left it meanwhile is
//! looked for in PostgreSQL once more.

use std::collections::HashMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use weir_core::event::id_of_message;
use weir_core::message::MessageKey;
use weir_core::queue::trail::{self, Found, FoundAll, Standpoint};
use weir_store::{KeptMessage, Place};

use super::{Where, check_id, sources};
use crate::api::App;
use crate::extract::{Json, Path, Query};
use crate::moment;
use crate::problem::{Fault, Problem};

/// Ids in one question at most.
const MOST: usize = 1000;

/// Which of these messages are there?
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Lookup {
    /// Who sent them. Without: `messenger`, else `max`, for each.
    #[serde(default)]
    #[schema(pattern = "^[a-z0-9_-]{1,64}$", example = "messenger")]
    source: Option<String>,
    /// The provider's ids.
    #[schema(min_items = 1, max_items = 1000, value_type = Vec<ExternalId>)]
    ids: Vec<String>,
}

/// A provider's id of a message.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 1000, pattern = r"^[^\u0000]+$", example = "m-1")]
#[expect(dead_code, reason = "describes what is read as text")]
pub(super) struct ExternalId(String);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// It waits for a worker, or one is at it.
    Queued,
    /// It is a row, or was one until its month was taken away.
    Stored,
    /// It failed, and is tried again.
    Retrying,
    /// It waits for a newer worker that understands it.
    Parked,
    /// It failed for good, and waits for an operator.
    Dead,
    /// It was accepted, and an operator has removed it since.
    Gone,
    /// Nothing is known of it.
    Unknown,
}

/// A message, as far as it is known where it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageState {
    /// The provider's id.
    external_message_id: String,
    /// Who sent it; null while nothing is known of it.
    source: Option<String>,
    /// What became of it.
    state: Phase,
    /// Where it was accepted, as the gateway answered: partition and entry.
    message_id: Option<String>,
    /// When it was sent, by the provider's clock; once it is stored.
    #[schema(format = DateTime)]
    sent_at: Option<String>,
    /// When the gateway accepted it; null if that was too long ago for one that is not stored.
    #[schema(format = DateTime)]
    accepted_at: Option<String>,
    /// When it was stored.
    #[schema(format = DateTime)]
    stored_at: Option<String>,
    /// When it was last changed at the provider.
    #[schema(format = DateTime)]
    edited_at: Option<String>,
    /// When it was removed at the provider.
    #[schema(format = DateTime)]
    removed_at: Option<String>,
    /// When it became dead, or was parked.
    #[schema(format = DateTime)]
    failed_at: Option<String>,
    /// Failed attempts of one that is tried again.
    attempts: Option<u32>,
    /// When the next attempt is due; null while it is under way.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// Why it is dead: conflict, crash, decode, data, constraint, timeout, internal.
    error_class: Option<String>,
    /// The dialog that it belongs to.
    dialog_id: Option<i64>,
    /// Of the row.
    id: Option<i64>,
    /// The trace that it was accepted under.
    trace_id: Option<String>,
}

/// What became of many messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LookedUp {
    /// One for each id, in the order of the question.
    items: Vec<MessageState>,
    /// Whether there are so many dead letters or retries that not all could be looked at: what is unknown may be among them.
    incomplete: bool,
}

/// What became of one message.
#[utoipa::path(get, path = "/api/v1/messages/{external_message_id}",
    params(("external_message_id" = String, min_length = 1, max_length = 1000, pattern = r"^[^\u0000]+$", description = "the provider's id", example = "1a2b3c4d5e6f7890abcdef1234567890"), Where),
    responses(
        (status = 200, description = "where it is", body = MessageState, example = json!({
            "external_message_id": "1a2b3c4d5e6f7890abcdef1234567890", "source": "messenger", "state": "stored",
            "message_id": "3-1732233600000-12", "sent_at": "2024-11-22T00:00:00.000000Z",
            "accepted_at": "2024-11-22T00:00:00.000000Z", "stored_at": "2024-11-22T00:00:00.017000Z", "edited_at": null,
            "removed_at": null, "failed_at": null, "attempts": null, "next_attempt_at": null, "error_class": null,
            "dialog_id": 7, "id": 1001, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"})),
        (status = 404, description = "nothing is known of it"),
    ))]
pub(super) async fn message(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(place): Query<Where>,
) -> Result<Json<MessageState>, Problem> {
    check_id("external_message_id", &id)?;
    let sources = sources(place.source.as_deref())?;
    let known = Known::look(&app, &sources, std::slice::from_ref(&id)).await?;
    let state = known.state(&sources, id);
    if state.state == Phase::Unknown {
        return Err(Problem::not_found("no message of this id was accepted, or it was purged long ago"));
    }
    Ok(Json(state))
}

/// What became of up to 1000 messages: a provider's reconciliation.
#[utoipa::path(post, path = "/api/v1/messages/lookup",
    request_body(content = Lookup, example = json!({"source": "messenger", "ids": ["m-1", "m-2"]})),
    responses((status = 200, description = "one state for each id", body = LookedUp, example = json!({
        "items": [
            {"external_message_id": "m-1", "source": "messenger", "state": "queued", "message_id": "3-1732233600000-12",
             "sent_at": null, "accepted_at": "2024-11-22T00:00:00.000000Z", "stored_at": null, "edited_at": null,
             "removed_at": null, "failed_at": null, "attempts": null, "next_attempt_at": null, "error_class": null,
             "dialog_id": null, "id": null, "trace_id": null},
            {"external_message_id": "m-2", "source": null, "state": "unknown", "message_id": null, "sent_at": null,
             "accepted_at": null, "stored_at": null, "edited_at": null, "removed_at": null, "failed_at": null,
             "attempts": null, "next_attempt_at": null, "error_class": null, "dialog_id": null, "id": null,
             "trace_id": null}],
        "incomplete": false}))))]
pub(super) async fn lookup(State(app): State<App>, Json(asked): Json<Lookup>) -> Result<Json<LookedUp>, Problem> {
    if asked.ids.is_empty() || asked.ids.len() > MOST {
        return Err(Problem::invalid("ids", format!("has 1 to {MOST} ids")));
    }
    let faults: Vec<Fault> = (0..).zip(&asked.ids).filter_map(|(place, id)| fault(place, id)).collect();
    if !faults.is_empty() {
        return Err(Problem::Invalid { faults });
    }
    let sources = sources(asked.source.as_deref())?;
    let known = Known::look(&app, &sources, &asked.ids).await?;
    let items = asked.ids.into_iter().map(|id| known.state(&sources, id)).collect();
    Ok(Json(LookedUp { items, incomplete: known.queue.is_cut }))
}

fn fault(place: usize, id: &str) -> Option<Fault> {
    match check_id(format!("ids[{place}]"), id) {
        Err(Problem::Invalid { faults }) => faults.into_iter().next(),
        _ => None,
    }
}

fn digest(source: &str, id: &str) -> Uuid {
    Uuid::from_bytes(MessageKey::new(source, &id_of_message(source, id)).0)
}

/// What is known of the messages of a question.
struct Known {
    stored: HashMap<Uuid, KeptMessage>,
    queue: FoundAll,
}

impl Known {
    async fn look(app: &App, sources: &[String], ids: &[String]) -> Result<Self, Problem> {
        let pairs = || ids.iter().flat_map(|id| sources.iter().map(move |source| (source, id)));
        let keys: Vec<Uuid> = pairs().map(|(source, id)| digest(source, id)).collect();
        let mut stored = by_key(app.store.find_messages(&keys).await?);
        let is_stored = |id: &String| sources.iter().any(|source| stored.contains_key(&digest(source, id)));
        let rest: Vec<(String, String)> = pairs()
            .filter(|(_, id)| !is_stored(id))
            .map(|(source, id)| (source.clone(), id_of_message(source, id)))
            .collect();
        if rest.is_empty() {
            return Ok(Self { stored, queue: FoundAll::default() });
        }
        let queue = trail::find_all(&app.queue, &rest).await?;
        // What was in the queue a moment ago may be stored by now.
        let left = queue.found.iter().filter(|(_, found)| found.standpoint == Standpoint::Left);
        let left: Vec<Uuid> = left.map(|((source, key), _)| Uuid::from_bytes(MessageKey::new(source, key).0)).collect();
        if !left.is_empty() {
            stored.extend(by_key(app.store.find_messages(&left).await?));
        }
        Ok(Self { stored, queue })
    }

    /// Of the first source that knows the id.
    fn state(&self, sources: &[String], id: String) -> MessageState {
        for source in sources {
            if let Some(row) = self.stored.get(&digest(source, &id)) {
                return MessageState::stored(id, source, row);
            }
        }
        for source in sources {
            if let Some(found) = self.queue.found.get(&(source.clone(), id_of_message(source, &id))) {
                return MessageState::queued(id, source, found);
            }
        }
        MessageState::new(id, Phase::Unknown)
    }
}

fn by_key(rows: Vec<KeptMessage>) -> HashMap<Uuid, KeptMessage> {
    rows.into_iter().map(|row| (row.key, row)).collect()
}

impl MessageState {
    fn new(external_message_id: String, state: Phase) -> Self {
        Self {
            external_message_id,
            source: None,
            state,
            message_id: None,
            sent_at: None,
            accepted_at: None,
            stored_at: None,
            edited_at: None,
            removed_at: None,
            failed_at: None,
            attempts: None,
            next_attempt_at: None,
            error_class: None,
            dialog_id: None,
            id: None,
            trace_id: None,
        }
    }

    fn stored(id: String, source: &str, row: &KeptMessage) -> Self {
        let Place { partition, ms, seq } = row.place;
        Self {
            source: Some(source.to_owned()),
            message_id: Some(format!("{partition}-{ms}-{seq}")),
            sent_at: Some(moment::text(row.send_at)),
            accepted_at: Some(moment::text(row.place.accepted_at())),
            stored_at: row.stored_at.map(moment::text),
            edited_at: row.edited_at.map(moment::text),
            removed_at: row.removed_at.map(moment::text),
            dialog_id: row.dialog_id,
            id: row.message_id,
            trace_id: row.trace_id.map(|trace| trace.simple().to_string()),
            ..Self::new(id, Phase::Stored)
        }
    }

    fn queued(id: String, source: &str, found: &Found) -> Self {
        let phase = match found.standpoint {
            Standpoint::Queued => Phase::Queued,
            Standpoint::Retrying { .. } => Phase::Retrying,
            Standpoint::Parked { .. } => Phase::Parked,
            Standpoint::Dead { .. } => Phase::Dead,
            Standpoint::Left => Phase::Gone,
        };
        let mut state = Self {
            source: Some(source.to_owned()),
            message_id: found.origin.map(|origin| origin.to_string()),
            accepted_at: found.origin.map(|origin| moment::of_ms(origin.ms)),
            ..Self::new(id, phase)
        };
        match &found.standpoint {
            Standpoint::Retrying { attempts, due_ms } => {
                state.attempts = Some(*attempts);
                state.next_attempt_at = due_ms.map(moment::of_ms);
            }
            Standpoint::Parked { since_ms } => state.failed_at = Some(moment::of_ms(*since_ms)),
            Standpoint::Dead { since_ms, class } => {
                state.failed_at = Some(moment::of_ms(*since_ms));
                state.error_class = Some(class.clone());
            }
            Standpoint::Queued | Standpoint::Left => {}
        }
        state
    }
}
