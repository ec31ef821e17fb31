//! The little of an HTTP client that is needed here: one kept-alive HTTP/1.1 connection to a role.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(3);
/// Time until the answer is complete.
const ANSWER: Duration = Duration::from_secs(15);
/// The longest answer that is read: a batch of a thousand takes a tenth of it.
const LONGEST: usize = 4 << 20;

/// Where to send: `http://host:port/path` or `https://host:port/path`.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    authority: String,
    host: HeaderValue,
    path: String,
    tls: Option<Tls>,
}

/// How a target proves who it is.
#[derive(Debug, Clone)]
struct Tls {
    name: ServerName<'static>,
    client: Arc<ClientConfig>,
}

impl Target {
    /// Reads a URL; a path of its own is kept in front of every path asked for. Over TLS the very certificate in
    /// `certificate` is believed, or one of a known authority.
    pub(crate) fn parse(url: &str, certificate: Option<&Path>) -> Result<Self> {
        let Ok(uri) = url.parse::<Uri>() else { bail!("{url} is no URL; it looks like http://127.0.0.1:8095") };
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("{url} is no URL; it looks like http://127.0.0.1:8095")
        };
        let tls = match scheme {
            "https" => Some(Tls {
                name: ServerName::try_from(authority.host().trim_matches(['[', ']']).to_owned())?,
                client: tls::client(certificate)?,
            }),
            _ => None,
        };
        let host = HeaderValue::try_from(authority.as_str())?;
        let authority = match authority.port_u16() {
            Some(_) => authority.as_str().to_owned(),
            None => format!("{authority}:{}", if tls.is_some() { 443 } else { 80 }),
        };
        Ok(Self { authority, host, path: uri.path().trim_end_matches('/').to_owned(), tls })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Seconds after which to try again, if the answer says so.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silence {
    /// Nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// It may have been received or not.
    #[error("no answer: {0}")]
    Unknown(String),
}

/// One connection, made when it is needed and again after it broke.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Target,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, sender: None }
    }

    /// Asks.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, Silence> {
        self.exchange(Method::GET, path, &HeaderMap::new(), Bytes::new()).await
    }

    /// Sends JSON.
    pub(crate) async fn post(&mut self, path: &str, headers: &HeaderMap, body: Bytes) -> Result<Answer, Silence> {
        self.exchange(Method::POST, path, headers, body).await
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Silence> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => connect(&self.target).await?,
        };
        let request = self.request(method, path, headers, body)?;
        let exchange = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head, body))
        };
        match tokio::time::timeout(ANSWER, exchange).await {
            Ok(Ok((head, body))) => {
                self.sender = Some(sender);
                Ok(Answer { status: head.status, retry_after: retry_after(&head.headers), body })
            }
            Ok(Err(error)) => Err(Silence::Unknown(error.to_string())),
            Err(_) => Err(Silence::Unknown(format!("after {} s", ANSWER.as_secs()))),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap<HeaderValue>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Silence> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.target.path)
            .parse()
            .map_err(|_| Silence::Unreachable(format!("{path} cannot stand in a URL")))?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(HOST, self.target.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(request)
    }
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>, Silence> {
    let unreachable = |reason: String| Silence::Unreachable(format!("{target}: {reason}"));
    let connecting = async {
        let stream = TcpStream::connect(&target.authority).await.map_err(|error| unreachable(error.to_string()))?;
        drop(stream.set_nodelay(true));
        match &target.tls {
            None => speak(stream).await.map_err(|error| unreachable(error.to_string())),
            Some(tls) => {
                let shaking = TlsConnector::from(tls.client.clone()).connect(tls.name.clone(), stream);
                let stream = shaking.await.map_err(|error| unreachable(format!("TLS: {error}")))?;
                speak(stream).await.map_err(|error| unreachable(error.to_string()))
            }
        }
    };
    let connected = tokio::time::timeout(CONNECT, connecting).await;
    connected.unwrap_or_else(|_| Err(unreachable(format!("no answer in {} s", CONNECT.as_secs()))))
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection");
        }
    });
    Ok(sender)
}

fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_http_url() {
        let parse = |url| Target::parse(url, None).map(|target| target.to_string());
        assert_eq!(parse("http://example.org/weir/").unwrap(), "http://example.org:80/weir");
        assert_eq!(parse("https://example.org").unwrap(), "https://example.org:443");
        for same in ["http://[::1]:8095", "https://[::1]:8095"] {
            assert_eq!(parse(same).unwrap(), same);
        }
        for wrong in ["127.0.0.1:8095", "redis://x", "", "http://", "https://"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
