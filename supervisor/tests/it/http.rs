//! A plain HTTP client for a gateway on this machine.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_stack::testing::eventually;

use crate::support::PATIENCE;

/// A message.
pub(crate) fn body(id: &str, client: &str, text: &str) -> String {
    serde_json::json!({
        "external_message_id": id,
        "external_client_id": client,
        "client_phone": "+79194961182",
        "message_text": text,
        "send_at": 1_640_995_200,
    })
    .to_string()
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Null when the body is no JSON.
    pub(crate) body: Value,
}

/// One request over a connection of its own.
pub(crate) async fn request(port: u16, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    request_with(port, method, path, "", body).await
}

/// The same with more headers, each with its line break.
pub(crate) async fn request_with(port: u16, method: &str, path: &str, headers: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    parse(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// What is at a path, with its head.
pub(crate) async fn get_text(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// An answer, once its head is complete.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default() })
}

/// Waits until the gateway on this port accepts messages.
pub(crate) async fn accepts(port: u16) {
    eventually("the gateway accepts", PATIENCE, async || {
        request(port, "GET", "/api/v1/webhook", "").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}
