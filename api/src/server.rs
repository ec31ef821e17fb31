//! Sockets of an API that runs by itself: HTTP/1.1, as reverse proxies speak it to what stands behind them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service as _;
use weir_core::shutdown::Shutdown;

use crate::config::ApiConfig;
use crate::connections::Connections;

/// The other end of a request's connection: who it is that needs no key in development.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The API as a function from request to answer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service(Router);

impl Service {
    pub(crate) fn new(router: Router) -> Self {
        Self(router)
    }

    /// Answers one request that came over a connection with `peer`. Never fails: what goes wrong is an answer too. An
    /// upgrade works if the connection that the request came by allows one.
    pub async fn answer<B>(&self, peer: SocketAddr, mut request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        request.extensions_mut().insert(Peer(peer));
        let mut router = self.0.clone();
        match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Headers of one request, and bytes of them with everything else that is read at once. More is answered with 431.
const HEADERS: usize = 100;
const BUFFER: usize = 64 << 10;

/// What serves connections.
#[derive(Clone)]
pub(crate) struct Server {
    service: Service,
    idle: Duration,
    connections: Connections,
    /// The next answer on each is its last.
    stop: Shutdown,
}

impl Server {
    pub(crate) fn new(config: &ApiConfig, service: Service, stop: Shutdown) -> Self {
        Self { service, idle: config.idle_timeout, connections: Connections::new(config, stop.clone()), stop }
    }

    /// Accepts until it is to stop.
    pub(crate) async fn accept(self, listener: TcpListener) {
        self.connections.accept(listener, |stream, peer| self.clone().serve(stream, peer)).await;
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let service = service_fn(|request: Request<Incoming>| {
            let service = self.service.clone();
            async move { Ok::<_, Infallible>(service.answer(peer, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.idle)
            .max_headers(HEADERS)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection");
        }
    }

    /// Waits for the requests under way, and cuts what takes longer.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.connections.drain(limit).await;
    }
}
