//! The gateway: axum and serde check a message, apalis puts it into Redis, and only then comes the 202.

use apalis::prelude::{TaskBuilder, TaskSink as _};
use apalis_redis::RedisStorage;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::message::{Message, now_ms};
use crate::{Outcome, storage, terminated};

pub async fn run() -> Outcome {
    let app = Router::new()
        .route("/api/v1/webhook", post(webhook))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(storage().await?);
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], std::env::var("PORT")?.parse()?).into())?;
    let listener = socket.listen(4096)?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, app).with_graceful_shutdown(async { drop(terminated().await) }).await?;
    Ok(())
}

async fn webhook(
    State(mut storage): State<RedisStorage<Message>>,
    Json(mut message): Json<Message>,
) -> (StatusCode, Json<Value>) {
    message.accepted_ms = now_ms();
    // With a letter in front, because apalis takes an id of digits for a number and writes it anew.
    let id = format!("m-{}", message.external_message_id);
    let task = TaskBuilder::new(message).task_id(id.clone().into()).build();
    match storage.push_task(task).await {
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({ "status": "accepted", "message_id": id }))),
        Err(error) => {
            eprintln!("serve: {error}");
            let words = "not known whether it was accepted: send it again";
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": words })))
        }
    }
}
