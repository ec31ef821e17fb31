//! A sender's side of HTTP: one kept-alive connection, one request at a time, and an exact account of what is known
//! about each.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Longer than any batch may take at the gateway.
const PATIENCE: Duration = Duration::from_secs(8);

/// What came of a request.
pub(crate) enum Reply {
    /// An answer.
    Answer { status: u16, body: Value },
    /// There was no connection: nothing was sent.
    NotSent,
    /// Something was sent, and no answer came.
    Unknown,
}

/// A sender's connection.
pub(crate) struct Connection {
    address: SocketAddr,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, open: None }
    }

    /// Posts JSON.
    pub(crate) async fn post(&mut self, path: &str, body: String) -> Reply {
        let mut sender = match self.open.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => match tokio::time::timeout(PATIENCE, connect(self.address)).await {
                Ok(Ok(sender)) => sender,
                _ => return Reply::NotSent,
            },
        };
        let exchange = async {
            let request = Request::builder()
                .method(Method::POST)
                .uri(path)
                .header("host", "weir")
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body)))?;
            sender.ready().await?;
            let answer = sender.send_request(request).await?;
            let status = answer.status().as_u16();
            let bytes = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok((status, body))) => {
                self.open = Some(sender);
                Reply::Answer { status, body }
            }
            _ => Reply::Unknown,
        }
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("handshake")?;
    tokio::spawn(connection);
    Ok(sender)
}
