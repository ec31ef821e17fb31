//! Sockets: as many connections as the API's own, each with the limits that HTTP/2 has at the gateway.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tonic::service::Routes;
use weir_core::shutdown::Shutdown;

use super::calls::{Calls, OpenCalls};
use super::door::Door;
use super::wire::Wire;
use crate::api::App;
use crate::connections::Connections;

/// Calls under way on one connection; a client that wants more waits.
const STREAMS: u32 = 200;

/// Metadata of one call: the key is the longest of it.
const HEADER_BYTES: u32 = 16 << 10;

/// Serves calls on all addresses. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    calls: Calls,
    connections: Connections,
    idle: Duration,
    alive: Duration,
    stop: Shutdown,
}

impl Server {
    pub(super) fn new(app: App, routes: Routes, stop: Shutdown) -> Self {
        let connections = Connections::new(&app.config, stop.clone());
        let (idle, alive) = (app.config.idle_timeout, app.config.grpc_alive);
        Self { calls: Calls::new(app, routes), connections, idle, alive, stop }
    }

    /// Accepts until it is to stop.
    pub(crate) async fn accept(self, door: Door) {
        let Some(listener) = self.stop.run_until_cancelled(door.open()).await else { return };
        self.accept_at(listener).await;
    }

    async fn accept_at(self, listener: TcpListener) {
        let address = listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        tracing::info!(address, "profiles are answered over gRPC");
        self.connections.accept(listener, |stream, peer| self.clone().serve(stream, peer)).await;
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let open = OpenCalls::default();
        let service = service_fn(|request: Request<Incoming>| {
            let (calls, open) = (self.calls.clone(), open.clone());
            async move { Ok::<_, Infallible>(calls.answer(peer, &open, request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(self.alive)
            .keep_alive_timeout(self.alive)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADER_BYTES)
            .max_frame_size(16 << 10)
            // What all calls may have sent without our having read it, and one of them.
            .initial_connection_window_size(1 << 20)
            .initial_stream_window_size(128 << 10)
            // What a client may leave untaken of one answer.
            .max_send_buf_size(64 << 10)
            // Calls taken back before they were looked at (CVE-2023-44487), and streams that we reset because they break the
            // protocol (CVE-2025-8671): as at the gateway.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(32)
            .serve_connection(TokioIo::new(Wire::new(stream, self.alive)), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = open.quiet(self.idle) => {
                connection.as_mut().graceful_shutdown();
                // Who is there says so at once.
                tokio::time::timeout(self.alive, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection of gRPC");
        }
    }

    /// Waits for the calls under way, and cuts what takes longer.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.connections.drain(limit).await;
    }
}
