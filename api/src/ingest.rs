//! What the gateway takes in, described beside the rest. None of these functions is ever called.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::routes::Table;

pub(crate) fn routes() -> Table {
    Table::new("Ingest", "Webhooks of providers. They are answered by the gateway, once they are safe on disk.")
        .gateway(routes!(ready))
        .gateway(routes!(webhook))
        .gateway(routes!(max_ready))
        .gateway(routes!(max))
}

/// A message of the messenger. Fields beyond these are kept with it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Webhook {
    /// The sender's id: with the source it decides what is the same message.
    #[schema(pattern = r"^[A-Za-z0-9_.:-]{1,128}$")]
    external_message_id: String,
    /// The sender's id of the client.
    #[schema(pattern = r"^[A-Za-z0-9_.:-]{1,128}$")]
    external_client_id: String,
    /// E.164, `+` and 7 to 15 digits; spaces, dashes and brackets are removed.
    #[schema(pattern = r"^\+[1-9][0-9]{6,14}$")]
    client_phone: String,
    /// 1 to 4096 characters without NUL.
    #[schema(min_length = 1, max_length = 4096, pattern = r"^[^\u0000]+$")]
    message_text: String,
    /// Unix seconds, from 2000-01-01 to a day ahead.
    #[schema(minimum = 946_684_800)]
    send_at: i64,
}

/// A message that was taken in.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Accepted {
    /// `accepted`, or `duplicate` for one that was there.
    status: String,
    /// Where it is in the queue: partition and entry.
    message_id: String,
    /// What the answer to a new one promises: `memory`, `disk` or `replica`.
    #[schema(required = false)]
    durability: Option<String>,
}

/// Whether messages can be accepted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Ready {
    /// `ready`.
    status: String,
    /// What a 2xx promises.
    durability: String,
}

/// What became of an update of MAX.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct MaxAnswer {
    /// `accepted`, `duplicate` or `ignored`.
    status: String,
    /// Why it was ignored.
    #[schema(required = false)]
    reason: Option<String>,
    /// Where it is in the queue.
    #[schema(required = false)]
    message_id: Option<String>,
    /// What the answer promises: `memory`, `disk` or `replica`.
    #[schema(required = false)]
    durability: Option<String>,
    /// How many were taken in, if several came at once.
    #[schema(required = false)]
    accepted: Option<u64>,
    /// How many of them were there already.
    #[schema(required = false)]
    duplicates: Option<u64>,
    /// How many of them were ignored.
    #[schema(required = false)]
    ignored: Option<u64>,
}

/// Whether a message could be accepted now.
#[utoipa::path(get, path = "/api/v1/webhook", responses(
    (status = 200, description = "it could", body = Ready, example = json!({"status": "ready", "durability": "disk"})),
))]
async fn ready() {}

/// One message of the messenger.
#[utoipa::path(post, path = "/api/v1/webhook", request_body(content = Webhook, example = json!({
        "external_message_id": "1a2b3c4d5e6f7890abcdef1234567890",
        "external_client_id": "client-42",
        "client_phone": "+79991234567",
        "message_text": "Good day",
        "send_at": 1_640_995_200
    })), responses(
    (status = 202, description = "it is safe", body = Accepted,
     example = json!({"status": "accepted", "message_id": "3-1732233600000-12", "durability": "disk"})),
    (status = 200, description = "it was there already: the same id and content", body = Accepted,
     example = json!({"status": "duplicate", "message_id": "3-1732233600000-12"})),
    (status = 409, description = "the id was accepted with other content"),
))]
async fn webhook() {}

/// Whether an update of MAX could be accepted now.
#[utoipa::path(get, path = "/webhook/max", responses(
    (status = 200, description = "it could", body = Ready, example = json!({"status": "ready", "durability": "disk"})),
))]
async fn max_ready() {}

/// One update of MAX.
///
/// In the official format (`update_type`) or the short one (`type`). Whatever can be read, or is to be ignored, is answered
/// with exactly 200.
#[utoipa::path(post, path = "/webhook/max",
    params(("X-Max-Bot-Api-Secret" = Option<String>, Header, description = "the secret, where one is set")),
    request_body(content = Object, example = json!({
        "update_type": "message_created",
        "timestamp": 1_732_233_600_000_i64,
        "message": {
            "sender": {"user_id": 12345, "first_name": "Anna", "last_name": "Petrova", "is_bot": false},
            "recipient": {"chat_id": 77, "chat_type": "dialog"},
            "timestamp": 1_732_233_600_000_i64,
            "body": {"mid": "mid.1", "seq": 1, "text": "Good day"}
        }
    })), responses(
    (status = 200, description = "it is safe, or was ignored", body = MaxAnswer,
     example = json!({"status": "accepted", "message_id": "3-1732233600000-12"})),
    (status = 401, description = "the secret is wrong"),
))]
async fn max() {}
