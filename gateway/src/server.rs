//! Sockets: accept, shake hands (`tls`), tell HTTP/1.1 from HTTP/2, serve with deadlines (`deadline`, `streams`), stop in good order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use weir_core::alarm::guarded;
use weir_core::flood::{Allowance, FrameMeter};
use weir_core::ops::Health;
use weir_core::queue::enqueue::Enqueuer;
use weir_core::queue::{Queue, QueueError};
use weir_core::shutdown::Shutdown;

use crate::config::{GatewayConfig, HttpConfig};
use crate::deadline::{Reading, Timed, dropped};
use crate::fallback::Fallback;
use crate::guard::{Guard, Watch};
use crate::http1::{self, Ended};
use crate::ignored::Ignored;
use crate::ingest::{DISCARD_TIME, Ingest};
use crate::listen;
use crate::peers::{Peers, Place};
use crate::stop::Stop;
use crate::streams::Streams;
use crate::tls::{self, Greeted, Tls, TlsError};
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
    /// A socket that was handed over is none to accept on.
    #[error(
        "socket {number} of those handed over (LISTEN_FDS) cannot be used: {error}; hand over listening TCP sockets, or \
         unset LISTEN_FDS"
    )]
    HandedOver {
        /// Its place among them, from 1.
        number: usize,
        /// What is wrong with it.
        error: io::Error,
    },
    /// The system does not let us accept on a socket.
    #[error("the gateway cannot accept on its socket: {0}")]
    Accept(io::Error),
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// See [`QueueError`].
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// A gateway that is bound and does not serve yet.
pub struct Gateway {
    config: GatewayConfig,
    listeners: Vec<TcpListener>,
    /// Somebody else holds the sockets too, and what waits in their queues is not lost when we close them.
    shared: bool,
    tls: Option<Arc<Tls>>,
    guard: Guard,
    watch: Watch,
    queue: Queue,
    batches: Queue,
    fallback: Option<Arc<dyn Fallback>>,
}

/// Takes the sockets that were handed to this process, or binds the addresses. Redis need not be there: the gateway
/// answers 503 until it is. Must be called within a tokio runtime.
///
/// # Errors
/// When an address cannot be bound, what was handed over is no listening socket, or a certificate cannot be used.
pub fn build(config: GatewayConfig, queue: &Queue) -> Result<Gateway, GatewayError> {
    let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
    let (sockets, shared) = match listen::handed_over()? {
        Some(sockets) => (sockets, true),
        None => (listen::bind(&config.listen)?, false),
    };
    let listeners = sockets.into_iter().map(TcpListener::from_std).collect::<Result<_, _>>();
    let listeners = listeners.map_err(GatewayError::Accept)?;
    let batches = queue.on_own_link(config.http.batch_timeout);
    let (guard, watch) = Guard::new(queue.clone(), batches.clone(), config.clone());
    Ok(Gateway { config, listeners, shared, tls, guard, watch, queue: queue.clone(), batches, fallback: None })
}

/// How long a connection that says nothing is kept after the signal to stop. Its sender may be writing at this very
/// moment: it gets an answer and is told that it was the last one.
const LINGER: Duration = Duration::from_secs(1);

impl Gateway {
    /// The addresses that were bound, in the order of the configuration; real ports where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Whether it can accept messages, as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.watch.health.clone()
    }

    /// Has what is no webhook served by somebody else, on the same addresses. Otherwise such paths are not found.
    pub fn with_fallback(self, fallback: Arc<dyn Fallback>) -> Self {
        Self { fallback: Some(fallback), ..self }
    }

    /// Serves until `shutdown`. Then it accepts no more connections, answers what is under way and what still comes
    /// over the open ones, which is the last on each, and ends within the time that the configuration gives.
    ///
    /// # Panics
    /// When a part that all requests need has panicked, once the rest is finished: the process has to be started again.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { config, listeners, shared, tls, guard, watch, queue, batches, fallback } = self;
        let enqueuer = Enqueuer::new(batches, config.bounds);
        // Without any of its parts a gateway would go on answering, and wrongly.
        let shutdown = shutdown.child_token();
        let (writer, writing) = Writer::start(enqueuer, &config.http, watch.trouble.clone());
        let (ended, looked) = (Shutdown::new(), watch.health.clone());
        let writing = on_own_thread(guarded("writer", shutdown.clone(), writing), shutdown.clone());
        let guarding = guard.run(watch.trouble.clone(), shutdown.clone(), ended.clone());
        let guarding = tokio::spawn(guarded("guard", shutdown.clone(), guarding));
        let gauge = tokio::spawn(export_in_flight(writer.clone(), ended.clone()));
        let following = tls.clone().map(|tls| tokio::spawn(tls.follow(ended.clone())));
        let ignored = Ignored::default();
        let counting = tokio::spawn(ignored.clone().run(queue, ended.clone()));
        let ingest = Arc::new(Ingest::new(&config, watch, writer, ignored, fallback));
        let connections = TaskTracker::new();
        let (closing, cut) = (Stop::new(), Stop::new());
        let slots = Arc::new(Semaphore::new(config.http.connections));
        let peers = Peers::new(config.http.connections_per_address, config.trusted_proxies.clone());
        let accepting: Vec<JoinHandle<()>> = listeners
            .into_iter()
            .map(|listener| {
                let server = Arc::new(Server {
                    ingest: ingest.clone(),
                    tls: tls.clone(),
                    http: config.http.clone(),
                    connections: connections.clone(),
                    slots: slots.clone(),
                    peers: peers.clone(),
                    shutdown: shutdown.clone(),
                    closing: closing.clone(),
                    cut: cut.clone(),
                });
                let accepting = server.accept(listener, shared, looked.clone());
                tokio::spawn(guarded("accept", shutdown.clone(), accepting))
            })
            .collect();
        shutdown.cancelled().await;
        let mut ends = Vec::new();
        for task in accepting {
            ends.push(task.await);
        }
        drop(ingest);
        drain(&connections, config.drain, &closing, &cut).await;
        ended.cancel();
        for task in [guarding, gauge, counting].into_iter().chain(following) {
            ends.push(task.await);
        }
        // Nobody waits for these batches any more, but they were taken: they have as long as any batch has.
        if let Ok(ended) = timeout(config.http.batch_timeout, writing).await {
            ends.push(ended);
        }
        tracing::info!("the gateway has stopped");
        for end in ends {
            if let Err(error) = end
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Runs what must not wait behind requests: with many of them at hand, hundreds come before whoever is woken last.
fn on_own_thread(work: impl Future<Output = ()> + Send + 'static, broken: Shutdown) -> JoinHandle<()> {
    let logs = tracing::dispatcher::get_default(Clone::clone);
    tokio::task::spawn_blocking(move || {
        let _logs = tracing::dispatcher::set_default(&logs);
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(work),
            Err(error) => {
                tracing::error!(%error, "the gateway cannot start the thread that writes to Redis");
                broken.cancel();
            }
        }
    })
}

/// Waits until all connections have ended: idle ones are closed after a moment, all of them after `limit`.
async fn drain(connections: &TaskTracker, limit: Duration, closing: &Stop, cut: &Stop) {
    connections.close();
    let deadline = Instant::now() + limit;
    if timeout(LINGER.min(limit / 2), connections.wait()).await.is_ok() {
        return;
    }
    closing.give();
    if timeout_at(deadline, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections are cut: they did not finish in time");
        cut.give();
        connections.wait().await;
    }
}

async fn export_in_flight(writer: Writer, shutdown: Shutdown) {
    let gauge = metrics::gauge!("weir_gateway_in_flight");
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        gauge.set(writer.in_flight() as f64);
    }
}

/// Headers of one request, both in HTTP/1 and in HTTP/2. Webhooks have a dozen with some hundred bytes; proxies in front
/// of us allow about as much as this. More is answered with 431.
pub(crate) const HEADERS: usize = 100;
pub(crate) const HEADER_BYTES: usize = 16 << 10;

/// A client that gives up on all the requests it may have open (256) a few times in a row is no flood, and one that measures
/// its connection sends some tens of PINGs a second.
const IDLE_TALK: Allowance = Allowance { burst: 1000.0, per_second: 100.0, per_request: 1.0 };

/// What serves the connections of one listener.
struct Server {
    ingest: Arc<Ingest>,
    tls: Option<Arc<Tls>>,
    http: HttpConfig,
    connections: TaskTracker,
    slots: Arc<Semaphore>,
    peers: Arc<Peers>,
    /// No more connections; the next answer on each is its last.
    shutdown: Shutdown,
    /// Ends connections that are idle.
    closing: Stop,
    /// Ends connections whatever they are doing.
    cut: Stop,
}

impl Server {
    /// Accepts until shutdown. What then waits in a queue that nobody shares with us is accepted too: it would be reset.
    async fn accept(self: Arc<Self>, listener: TcpListener, shared: bool, mut looked: watch::Receiver<Health>) {
        // Before Redis was looked at, all it could say is 503, where another gateway that shares the socket can do better.
        self.shutdown.run_until_cancelled(looked.changed()).await;
        self.accept_until_shutdown(&listener).await;
        if !shared && let Err(error) = self.accept_waiting(listener) {
            tracing::warn!(%error, "connections that waited may have been lost");
        }
    }

    fn accept_waiting(self: &Arc<Self>, listener: TcpListener) -> io::Result<()> {
        // Only the system knows what waits there: the runtime may not have heard of it yet.
        let listener = listener.into_std()?;
        while let Ok(slot) = self.slots.clone().try_acquire_owned() {
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            self.start(TcpStream::from_std(stream)?, peer, slot);
        }
        Ok(())
    }

    async fn accept_until_shutdown(self: &Arc<Self>, listener: &TcpListener) {
        let mut failures = Failures::default();
        loop {
            let slot = self.shutdown.run_until_cancelled(self.slots.clone().acquire_owned());
            let Some(Ok(slot)) = slot.await else { return };
            match self.shutdown.run_until_cancelled(listener.accept()).await {
                None => return,
                Some(Ok((stream, peer))) => self.start(stream, peer, slot),
                Some(Err(error)) => {
                    failures.note(&error);
                    // Out of file descriptors, most likely: give connections a moment to end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Serves a connection, unless its address has all that it may have.
    fn start(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let Some(place) = self.peers.admit(peer.ip()) else {
            dropped("address");
            return;
        };
        let (cut, served) = (self.cut.clone(), self.clone().serve(stream, peer, (slot, place)));
        // In a box: what is given to `or` takes its place twice.
        let served = Box::pin(served);
        self.connections.spawn(async move { cut.or(served).await });
    }

    /// What few connections need is in boxes: each has a task as large as the largest of its states.
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, held: (OwnedSemaphorePermit, Place)) {
        drop(stream.set_nodelay(true));
        let ended = match &self.tls {
            Some(tls) => Box::pin(self.serve_tls(tls, stream, peer)).await,
            None => self.serve_plain(stream, peer).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection");
        }
        drop(held);
    }

    async fn serve_plain(&self, stream: TcpStream, peer: SocketAddr) -> Ended {
        let by = Instant::now() + self.http.header_timeout;
        let hello = timeout_at(by, speaks_http2(&stream));
        match self.closing.or(hello).await {
            Some(Ok(Ok(true))) => Box::pin(self.serve_http2(stream, peer, by)).await,
            Some(Ok(Ok(false))) => self.serve_http1(stream, peer, by).await,
            Some(Err(_)) => {
                dropped("header");
                Ok(())
            }
            Some(Ok(Err(_))) | None => Ok(()),
        }
    }

    async fn serve_tls(&self, tls: &Tls, stream: TcpStream, peer: SocketAddr) -> Ended {
        let by = Instant::now() + self.http.header_timeout;
        match self.closing.or(Box::pin(tls.greet(stream, by))).await {
            Some(Ok(Greeted::Http1(stream))) => self.serve_http1(stream, peer, by).await,
            Some(Ok(Greeted::Http2(stream))) => Box::pin(self.serve_http2(tls::with_preface(stream), peer, by)).await,
            Some(Err(error)) => {
                if error.kind() == io::ErrorKind::TimedOut {
                    dropped("header");
                }
                metrics::counter!("weir_tls_handshakes_failed_total").increment(1);
                tracing::debug!(%error, "handshake");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Serves a connection whose first head has to be there at `by`.
    async fn serve_http1(&self, stream: impl http1::Stream, peer: SocketAddr, by: Instant) -> Ended {
        let address = peer.ip();
        let answer = move |request| async move {
            let mut answer = self.ingest.answer(address, request).await;
            if self.shutdown.is_cancelled() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        };
        http1::serve(stream, by, (&self.http, &self.closing), answer).await
    }

    /// Serves a connection whose first request has to be there at `by`. HTTP/2 can say that no more is wanted and still
    /// serve what was sent before the other side heard it.
    async fn serve_http2(&self, stream: impl Stream, peer: SocketAddr, by: Instant) -> Ended {
        let stream = Timed::new(stream, Reading::Metered(FrameMeter::new(IDLE_TALK)), &self.http, self.closing.clone());
        let ingest = self.ingest.clone();
        let service = service_fn(move |request| {
            let ingest = ingest.clone();
            async move { Ok::<_, Infallible>(ingest.answer(peer.ip(), request).await) }
        });
        let streams = Streams::new(self.stream_limit());
        let connection = http2::Builder::new(streams.clone())
            .max_concurrent_streams(256)
            .max_header_list_size(HEADER_BYTES as u32)
            .max_frame_size(16 << 10)
            // What all streams may have sent without our having read it, and one of them: two of the largest messages.
            .initial_connection_window_size(1 << 20)
            .initial_stream_window_size(128 << 10)
            // What a client may leave untaken of one answer.
            .max_send_buf_size(64 << 10)
            // Requests taken back before they were looked at (CVE-2023-44487): h2's own default.
            .max_pending_accept_reset_streams(20)
            // Streams that we reset because they break the protocol (CVE-2025-8671): no client does that, so a few.
            .max_local_error_reset_streams(32)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                return Ok(connection.await?);
            }
            () = streams.quiet(by.saturating_duration_since(Instant::now()), self.http.idle_timeout) => {}
        }
        connection.as_mut().graceful_shutdown();
        dropped("idle");
        // Who is going to leave says so at once.
        Ok(timeout(self.http.header_timeout, connection).await.unwrap_or(Ok(()))?)
    }

    /// What all the parts of a request may take together.
    fn stream_limit(&self) -> Duration {
        self.http.body_timeout + DISCARD_TIME + self.http.batch_timeout + self.http.write_timeout
    }
}

/// Connections that could not be accepted: counted each, told of once a second.
#[derive(Default)]
struct Failures {
    told: Option<Instant>,
    since: u64,
}

impl Failures {
    fn note(&mut self, error: &io::Error) {
        metrics::counter!("weir_gateway_accept_errors_total").increment(1);
        self.since += 1;
        if self.told.is_none_or(|told| told.elapsed() >= Duration::from_secs(1)) {
            tracing::warn!(
                %error,
                times = self.since,
                "connections cannot be accepted: raise the limit of open files (LimitNOFILE, ulimit -n) or lower http.connections"
            );
            (self.told, self.since) = (Some(Instant::now()), 0);
        }
    }
}

/// What HTTP is spoken over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// What every HTTP/2 client sends first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
