//! The ops listener: `/metrics`, `/live`, `/ready` and `/health`, for Prometheus and orchestrators. Not for the public.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::shutdown::Shutdown;

/// Whether a process can do its work.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Health {
    /// It can.
    pub ready: bool,
    /// Why not; empty when it can.
    pub reasons: Vec<String>,
    /// Anything worth knowing, by name.
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl Health {
    /// Not ready for one reason.
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self { ready: false, reasons: vec![reason.into()], ..Self::default() }
    }
}

/// Gives the metrics in Prometheus' text format.
pub type Metrics = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// What the listener answers with.
#[derive(Clone)]
pub struct Ops {
    /// The process' health as last found.
    pub health: watch::Receiver<Health>,
    /// Its metrics.
    pub metrics: Metrics,
}

impl Ops {
    /// Serves until shutdown. Connections are few and short: each has ten seconds for its headers.
    pub async fn serve(self, listener: TcpListener, shutdown: Shutdown) {
        while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (ops, stop) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let ops = ops.clone();
                    async move { Ok::<_, Infallible>(ops.answer(&request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service);
                if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                    tracing::debug!(%error, "ops connection");
                }
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4", (self.metrics)().await),
            "/live" => text(StatusCode::OK, "text/plain", "alive\n".into()),
            "/ready" | "/health" => {
                let health = self.health.borrow().clone();
                let ok = health.ready || request.uri().path() == "/health";
                let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, "application/json", serde_json::to_string(&health).unwrap_or_default())
            }
            _ => text(StatusCode::NOT_FOUND, "text/plain", "try /metrics, /live, /ready or /health\n".into()),
        }
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
