//! A TCP proxy whose faults a test steers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A pattern may be this long at most.
const LONGEST_PATTERN: usize = 4 * 1024;
const CHUNK: usize = 16 * 1024;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Reply,
}

/// A proxy on a free port of 127.0.0.1, in front of a server. It passes everything on until told otherwise through the
/// methods of [`Faults`]. Dropping it closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    faults: Faults,
    accept: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy in front of `target`, on the runtime of the caller.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(target: SocketAddr) -> FaultProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port for a proxy");
        let addr = listener.local_addr().expect("the proxy's own address");
        let faults = Faults::default();
        let accept = tokio::spawn(accept(listener, target, faults.clone()));
        FaultProxy { addr, faults, accept }
    }

    /// Where clients connect instead of to the server.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A handle to the faults, for another task or for the callback of a watch.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }
}

impl Deref for FaultProxy {
    type Target = Faults;

    fn deref(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// What goes wrong in a [`FaultProxy`]. All faults are off at first; what is set holds for old and new connections.
#[derive(Clone, Default)]
pub struct Faults(Arc<State>);

#[derive(Default)]
struct State {
    refuse: AtomicBool,
    swallow: AtomicBool,
    stall: watch::Sender<bool>,
    /// How long replies are held back: at least, and at most so much longer.
    delay: Mutex<(Duration, Duration)>,
    /// Counts the cuts.
    cut: watch::Sender<u64>,
    watches: Mutex<Vec<Arc<Watch>>>,
}

struct Watch {
    pattern: Vec<u8>,
    direction: Direction,
    callback: Box<dyn Fn() + Send + Sync>,
}

impl Faults {
    /// Closes all connections; new ones are accepted.
    pub fn cut(&self) {
        self.0.cut.send_modify(|count| *count += 1);
    }

    /// While on, new connections are closed as soon as they are accepted.
    pub fn refuse(&self, on: bool) {
        self.0.refuse.store(on, Ordering::SeqCst);
    }

    /// While on, nothing is passed on in either direction; connections stay open and nothing is lost.
    pub fn stall(&self, on: bool) {
        self.0.stall.send_replace(on);
    }

    /// Holds every piece of a reply back for `least` and a random part of `jitter`; zero for both ends that.
    pub fn delay(&self, least: Duration, jitter: Duration) {
        *self.0.delay.lock().unwrap_or_else(PoisonError::into_inner) = (least, jitter);
    }

    /// While on, requests reach the server and its replies are thrown away.
    pub fn swallow_replies(&self, on: bool) {
        self.0.swallow.store(on, Ordering::SeqCst);
    }

    /// Calls `callback` whenever `pattern` has been seen in that direction on one connection, *before* the bytes that
    /// complete it are passed on: once per chunk of bytes, from the task that moves them. A fault that the callback
    /// sets holds for those bytes: after a `cut` they never arrive.
    ///
    /// # Panics
    /// If the pattern is empty or longer than 4 KiB.
    pub fn watch(
        &self,
        pattern: impl Into<Vec<u8>>,
        direction: Direction,
        callback: impl Fn() + Send + Sync + 'static,
    ) {
        let pattern = pattern.into();
        assert!((1..=LONGEST_PATTERN).contains(&pattern.len()), "a pattern of 1 to {LONGEST_PATTERN} bytes");
        let watch = Watch { pattern, direction, callback: Box::new(callback) };
        self.watches().push(Arc::new(watch));
    }

    fn watches(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Watch>>> {
        self.0.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that `seen` completes with its bytes from `fresh` on.
    fn completed(&self, direction: Direction, seen: &[u8], fresh: usize) -> Vec<Arc<Watch>> {
        self.watches()
            .iter()
            .filter(|watch| watch.direction == direction && completes(seen, fresh, &watch.pattern))
            .cloned()
            .collect()
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults")
            .field("refuse", &self.0.refuse)
            .field("swallow_replies", &self.0.swallow)
            .field("stall", &*self.0.stall.borrow())
            .finish_non_exhaustive()
    }
}

fn completes(seen: &[u8], fresh: usize, pattern: &[u8]) -> bool {
    let start = fresh.saturating_sub(pattern.len() - 1);
    seen[start..].windows(pattern.len()).any(|window| window == pattern)
}

/// The connections live in a set that ends with this task.
async fn accept(listener: TcpListener, target: SocketAddr, faults: Faults) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others need the processor to give theirs back.
            tokio::task::yield_now().await;
            continue;
        };
        if !faults.0.refuse.load(Ordering::SeqCst) {
            connections.spawn(serve(client, target, faults.clone(), faults.0.cut.subscribe()));
        }
    }
}

/// Passes bytes until one side fails or the connection is cut. A side that merely stops sending keeps receiving.
async fn serve(client: TcpStream, target: SocketAddr, faults: Faults, mut cut: watch::Receiver<u64>) {
    let cut_seen = cut.clone();
    let pass = async {
        let server = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let pump = |direction| Pump { direction, faults: faults.clone(), cut: cut_seen.clone(), seen: Vec::new() };
        tokio::try_join!(
            pump(Direction::Request).run(from_client, to_server),
            pump(Direction::Reply).run(from_server, to_client),
        )
    };
    tokio::select! {
        _ = cut.changed() => {}
        _ = pass => {}
    }
}

/// One direction of one connection.
struct Pump {
    direction: Direction,
    faults: Faults,
    cut: watch::Receiver<u64>,
    /// The end of what has passed, for patterns that span chunks.
    seen: Vec<u8>,
}

impl Pump {
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await?;
            if length == 0 {
                self.unstalled().await;
                return to.shutdown().await;
            }
            self.notify(&chunk[..length]);
            self.delayed().await;
            self.unstalled().await;
            if self.cut.has_changed().unwrap_or(true) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if !self.swallows() {
                to.write_all(&chunk[..length]).await?;
            }
        }
    }

    fn notify(&mut self, chunk: &[u8]) {
        let fresh = self.seen.len();
        self.seen.extend_from_slice(chunk);
        for watch in self.faults.completed(self.direction, &self.seen, fresh) {
            (watch.callback)();
        }
        let excess = self.seen.len().saturating_sub(LONGEST_PATTERN - 1);
        self.seen.drain(..excess);
    }

    async fn delayed(&self) {
        let (least, jitter) = *self.faults.0.delay.lock().unwrap_or_else(PoisonError::into_inner);
        if self.direction == Direction::Reply && !(least + jitter).is_zero() {
            tokio::time::sleep(least + jitter.mul_f64(rand::random())).await;
        }
    }

    async fn unstalled(&self) {
        let mut stall = self.faults.0.stall.subscribe();
        // It fails only when the sender is gone, and we hold one.
        let _ = stall.wait_for(|on| !on).await;
    }

    fn swallows(&self) -> bool {
        self.direction == Direction::Reply && self.faults.0.swallow.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::completes;

    #[test]
    fn only_fresh_bytes_complete_a_pattern() {
        assert!(completes(b"COMMIT", 3, b"COMMIT"));
        assert!(completes(b"xxCOMMIT", 0, b"COMMIT"));
        assert!(!completes(b"COMMITx", 6, b"COMMIT"));
        assert!(completes(b"ab", 1, b"b"));
        assert!(!completes(b"ab", 2, b"b"));
    }
}
