//! Deadlines on a connection's bytes, which hyper does not have: a head has its time from its first byte on, a connection
//! may be idle for longer than that, and answers have to be taken.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::HttpConfig;
use crate::flood::FrameMeter;
use weir_core::shutdown::Shutdown;

/// How long a connection that we have closed is still read from: bytes that nobody read would make the kernel reset it,
/// and the answer that was sent last would be lost with it.
const LINGER: Duration = Duration::from_secs(1);

/// And how many bytes: more than the buffers on the way hold at once.
const LINGER_BYTES: usize = 256 << 10;

/// What a connection is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The first byte of a request.
    Idle,
    /// The rest of a request's head.
    Head,
    /// Nothing: a request is under way, which has deadlines of its own.
    Busy,
}

/// What an HTTP/1 connection is waited for and until when: set by who serves it, and watched where its bytes come in.
pub(crate) struct Pace {
    head: Duration,
    idle: Duration,
    now: Mutex<(Stage, Option<Instant>)>,
}

impl Pace {
    /// A new connection, which said something at once or is given up at `by`.
    pub(crate) fn new(http: &HttpConfig, by: Instant) -> Arc<Self> {
        let now = Mutex::new((Stage::Head, Some(by)));
        Arc::new(Self { head: http.header_timeout, idle: http.idle_timeout, now })
    }

    fn now(&self) -> MutexGuard<'_, (Stage, Option<Instant>)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head is there, and its request is being answered.
    pub(crate) fn busy(&self) {
        *self.now() = (Stage::Busy, None);
    }

    /// The answer is there.
    pub(crate) fn idle(&self) {
        *self.now() = (Stage::Idle, Some(Instant::now() + self.idle));
    }

    fn bytes_came(&self) {
        let mut now = self.now();
        if now.0 == Stage::Idle {
            *now = (Stage::Head, Some(Instant::now() + self.head));
        }
    }
}

/// What is held against the bytes that come in.
pub(crate) enum Reading {
    /// HTTP/1: the deadlines of its heads.
    Paced(Arc<Pace>),
    /// HTTP/2: that not too many of its frames are idle talk.
    Metered(FrameMeter),
}

/// A connection's bytes, with deadlines.
pub(crate) struct Timed<T> {
    io: T,
    reading: Reading,
    read_by: Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
    /// Set while bytes wait to be taken; how long it is since they wait.
    write_by: Option<Pin<Box<Sleep>>>,
    shutdown: Shutdown,
    /// Our side is closed; the other one is read until then, and so many bytes.
    linger: Option<(Instant, usize)>,
}

impl<T> Timed<T> {
    pub(crate) fn new(io: T, reading: Reading, http: &HttpConfig, shutdown: Shutdown) -> Self {
        let write_timeout = http.write_timeout;
        Self { io, reading, read_by: None, write_timeout, write_by: None, shutdown, linger: None }
    }

    /// Nothing came. Ends an idle connection as if its client had, and fails one whose head is overdue.
    ///
    /// hyper looks for bytes while a request is under way and then not again before some are there. So the timer always
    /// runs, and who it belongs to is asked when it ends; that also spares most requests the setting of a timer.
    fn nothing_came(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Reading::Paced(pace) = &self.reading else { return Poll::Pending };
        let (stage, by) = *pace.now();
        let by = by.unwrap_or_else(|| Instant::now() + pace.idle);
        let sleep = self.read_by.get_or_insert_with(|| Box::pin(sleep_until(by)));
        if by < sleep.deadline() {
            sleep.as_mut().reset(by);
        }
        ready!(sleep.as_mut().poll(cx));
        while Instant::now() < by {
            sleep.as_mut().reset(by);
            ready!(sleep.as_mut().poll(cx));
        }
        if stage == Stage::Idle {
            dropped("idle");
            return Poll::Ready(Ok(()));
        }
        dropped("header");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Fails when what is to be written has waited for too long, from the moment on when some of it had to wait until
    /// the last of it was taken: who reads a byte now and then does not begin anew with each.
    fn not_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let by = Instant::now() + self.write_timeout;
        ready!(self.write_by.get_or_insert_with(|| Box::pin(sleep_until(by))).as_mut().poll(cx));
        dropped("write");
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn or_not_taken<R>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if done.is_pending() { self.not_taken(cx).map(Err) } else { done }
    }
}

/// Counts a connection that was given up.
pub(crate) fn dropped(reason: &'static str) {
    metrics::counter!("weir_gateway_connections_dropped_total", "reason" => reason).increment(1);
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let before = buf.filled().len();
        if Pin::new(&mut me.io).poll_read(cx, buf)?.is_pending() {
            return me.nothing_came(cx);
        }
        let fresh = &buf.filled()[before..];
        match &mut me.reading {
            Reading::Paced(pace) if !fresh.is_empty() => pace.bytes_came(),
            Reading::Paced(_) => {}
            Reading::Metered(meter) => {
                meter.read(fresh, Instant::now()).map_err(|_| {
                    dropped("flood");
                    io::Error::other("more idle talk than HTTP/2 needs")
                })?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(cx, buf);
        self.or_not_taken(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.or_not_taken(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has written all it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(cx);
        if done.is_ready() {
            self.write_by = None;
        }
        self.or_not_taken(cx, done)
    }

    /// Closes our side, then reads what the client still sends, for a moment; not when the gateway is stopping.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let (until, mut left) = match me.linger {
            Some(linger) => linger,
            None => {
                let done = Pin::new(&mut me.io).poll_shutdown(cx);
                ready!(me.or_not_taken(cx, done))?;
                (Instant::now() + LINGER, LINGER_BYTES)
            }
        };
        let mut rest = [0; 4096];
        while left > 0 && !me.shutdown.is_cancelled() && Instant::now() < until {
            let mut rest = ReadBuf::new(&mut rest);
            match Pin::new(&mut me.io).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => left = left.saturating_sub(rest.filled().len()),
                Poll::Ready(_) => break,
                Poll::Pending => {
                    me.linger = Some((until, left));
                    let sleep = me.read_by.get_or_insert_with(|| Box::pin(sleep_until(until)));
                    if sleep.deadline() != until {
                        sleep.as_mut().reset(until);
                    }
                    ready!(sleep.as_mut().poll(cx));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
