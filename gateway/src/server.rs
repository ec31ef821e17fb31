//! Sockets: accept, tell HTTP/1.1 from HTTP/2, serve with deadlines, stop in good order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use weir_core::ops::Health;
use weir_core::queue::enqueue::Enqueuer;
use weir_core::queue::{Queue, QueueError};
use weir_core::shutdown::Shutdown;

use crate::config::{GatewayConfig, HttpConfig};
use crate::guard::{Guard, Watch};
use crate::ingest::Ingest;
use crate::writer::Writer;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address is taken or not ours.
    #[error("the gateway cannot listen on {address}: {error}; stop what uses it, or set gateway.listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// See [`QueueError`].
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// A gateway that is bound and does not serve yet.
pub struct Gateway {
    config: GatewayConfig,
    listeners: Vec<TcpListener>,
    guard: Guard,
    watch: Watch,
    batches: Queue,
}

/// Binds the addresses. Redis need not be there: the gateway answers 503 until it is. Must be called within a tokio
/// runtime.
///
/// # Errors
/// When an address cannot be bound.
pub fn build(config: GatewayConfig, queue: &Queue) -> Result<Gateway, GatewayError> {
    let listen = |address: &SocketAddr| bind(*address).map_err(|error| GatewayError::Bind { address: *address, error });
    let listeners = config.listen.iter().map(listen).collect::<Result<_, _>>()?;
    let batches = queue.on_own_link(config.http.batch_timeout);
    let (guard, watch) = Guard::new(queue.clone(), batches.clone(), config.clone());
    Ok(Gateway { config, listeners, guard, watch, batches })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

impl Gateway {
    /// The addresses that were bound, in the order of the configuration; real ports where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Whether it can accept messages, as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.watch.health.clone()
    }

    /// Serves until `shutdown`, then finishes what is under way, for as long as the configuration says.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { config, listeners, guard, watch, batches } = self;
        let enqueuer = Enqueuer::new(batches, config.bounds);
        let (writer, writing) =
            Writer::start(enqueuer, config.http.batches, config.http.in_flight, watch.trouble.clone());
        let guarding = tokio::spawn(guard.run(watch.trouble.clone(), shutdown.clone()));
        let gauge = tokio::spawn(export_in_flight(writer.clone(), shutdown.clone()));
        let ingest = Arc::new(Ingest::new(&config, watch, writer));
        let connections = TaskTracker::new();
        let cut = Shutdown::new();
        let slots = Arc::new(Semaphore::new(config.http.connections));
        let accepting: Vec<JoinHandle<()>> = listeners
            .into_iter()
            .map(|listener| {
                let server = Server {
                    ingest: ingest.clone(),
                    http: config.http.clone(),
                    connections: connections.clone(),
                    cut: cut.clone(),
                    slots: slots.clone(),
                    shutdown: shutdown.clone(),
                };
                tokio::spawn(server.accept(listener))
            })
            .collect();
        shutdown.cancelled().await;
        for task in accepting.into_iter().chain([guarding, gauge]) {
            log_panic(task.await);
        }
        drop(ingest);
        connections.close();
        if tokio::time::timeout(config.drain, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "connections are cut: they did not finish in time");
            cut.cancel();
            connections.wait().await;
        }
        // Nobody waits for these batches any more, but they were taken: they have as long as any batch has.
        if let Ok(ended) = tokio::time::timeout(config.http.batch_timeout, writing).await {
            log_panic(ended);
        }
        tracing::info!("the gateway has stopped");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a part of the gateway ended badly");
    }
}

async fn export_in_flight(writer: Writer, shutdown: Shutdown) {
    let gauge = metrics::gauge!("weir_gateway_in_flight");
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        gauge.set(writer.in_flight() as f64);
    }
}

/// What serves the connections of one listener.
#[derive(Clone)]
struct Server {
    ingest: Arc<Ingest>,
    http: HttpConfig,
    connections: TaskTracker,
    slots: Arc<Semaphore>,
    shutdown: Shutdown,
    /// Ends connections whatever they are doing.
    cut: Shutdown,
}

impl Server {
    async fn accept(self, listener: TcpListener) {
        loop {
            let slot = self.shutdown.run_until_cancelled(self.slots.clone().acquire_owned());
            let Some(Ok(slot)) = slot.await else { return };
            match self.shutdown.run_until_cancelled(listener.accept()).await {
                None => return,
                Some(Ok((stream, peer))) => {
                    let served = self.clone().serve(stream, peer, slot);
                    self.connections.spawn(self.cut.clone().run_until_cancelled_owned(served));
                }
                Some(Err(error)) => {
                    // Out of file descriptors, most likely: give connections a moment to end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        drop(stream.set_nodelay(true));
        let hello = tokio::time::timeout(self.http.header_timeout, speaks_http2(&stream));
        let Some(Ok(Ok(http2))) = self.shutdown.run_until_cancelled(hello).await else { return };
        let ended = if http2 { self.serve_http2(stream, peer).await } else { self.serve_http1(stream, peer).await };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection");
        }
        drop(slot);
    }

    async fn serve_http1(&self, stream: TcpStream, peer: SocketAddr) -> hyper::Result<()> {
        let (ingest, address) = (&*self.ingest, peer.ip());
        let service = service_fn(async |request| Ok::<_, Infallible>(ingest.answer(address, request).await));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.http.header_timeout)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    async fn serve_http2(&self, stream: TcpStream, peer: SocketAddr) -> hyper::Result<()> {
        let ingest = self.ingest.clone();
        let service = service_fn(move |request| {
            let ingest = ingest.clone();
            async move { Ok::<_, Infallible>(ingest.answer(peer.ip(), request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(self.http.header_timeout)
            .keep_alive_timeout(self.http.header_timeout)
            .max_concurrent_streams(256)
            .max_header_list_size(16 << 10)
            .max_pending_accept_reset_streams(20)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

/// What every HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits for the first bytes and says whether they begin an HTTP/2 connection. It waits for the whole preface: hyper
/// has no deadline for it.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    let mut pause = Duration::from_millis(5);
    loop {
        let n = stream.peek(&mut first).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if n == first.len() || !PREFACE.starts_with(&first[..n]) {
            return Ok(first == PREFACE);
        }
        // The rest of the preface is on its way; peek cannot wait for it.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
