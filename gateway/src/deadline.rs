//! Deadlines on a connection's bytes, which hyper does not have: a head has its time from its first byte on, a connection
//! may be idle for longer than that, and answers have to be taken. And rest, which hyper does not know either: a connection
//! that is idle for a moment is taken from hyper, whose buffers are free for others, until more bytes come.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use weir_core::flood::FrameMeter;

use crate::config::HttpConfig;
use crate::stop::Stop;

/// How long a connection that we have closed is still read from: bytes that nobody read would make the kernel reset it,
/// and the answer that was sent last would be lost with it.
const LINGER: Duration = Duration::from_secs(1);

/// And how many bytes: more than the buffers on the way hold at once.
const LINGER_BYTES: usize = 256 << 10;

/// How long a connection is kept ready for its next request before it rests, once a request has come that soon after the
/// answer before it: to rest and to wake costs some microseconds. All others rest at once, so that many that come together
/// take memory one after the other.
const READY: Duration = Duration::from_secs(1);

/// What a connection is waited for.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The first byte of a request, since then.
    Idle(Instant),
    /// The rest of a request's head, until then.
    Head(Instant),
    /// Nothing: a request is under way, which has deadlines of its own.
    Busy,
    /// Nothing, or the rest of a body that was not wanted, until then: the last answer is there.
    Last(Instant),
}

/// What an HTTP/1 connection is waited for and until when: set by who serves it, and watched where its bytes come in.
pub(crate) struct Pace {
    head: Duration,
    idle: Duration,
    now: Mutex<Now>,
}

#[derive(Debug, Clone, Copy)]
struct Now {
    stage: Stage,
    /// How long it is kept ready when it is idle.
    ready: Duration,
}

impl Pace {
    /// A new connection, which said something at once or is given up at `by`.
    pub(crate) fn new(http: &HttpConfig, by: Instant) -> Arc<Self> {
        let now = Mutex::new(Now { stage: Stage::Head(by), ready: Duration::ZERO });
        Arc::new(Self { head: http.header_timeout, idle: http.idle_timeout, now })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head is there, and its request is being answered.
    pub(crate) fn busy(&self) {
        let mut now = self.now();
        if matches!(now.stage, Stage::Idle(_)) {
            // It was there before the last answer.
            now.ready = READY;
        }
        now.stage = Stage::Busy;
    }

    /// The answer is there, and its request was read to its end: what follows is another one.
    pub(crate) fn idle(&self) {
        self.now().stage = Stage::Idle(Instant::now());
    }

    /// The answer is there, and no other follows.
    pub(crate) fn last(&self) {
        self.now().stage = Stage::Last(Instant::now() + self.idle);
    }

    fn bytes_came(&self) {
        let mut now = self.now();
        if let Stage::Idle(since) = now.stage {
            let at = Instant::now();
            now.ready = if at < since + READY { READY } else { Duration::ZERO };
            now.stage = Stage::Head(at + self.head);
        }
    }
}

/// What can be watched without a buffer.
pub(crate) trait Watched {
    /// Whether a read would find something: bytes, the end or an error.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Watched for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
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
    closing: Stop,
    /// Some of what was written may not have been taken yet.
    unsent: bool,
    /// Our side is closed; the other one is read until then, and so many bytes.
    linger: Option<(Instant, usize)>,
    /// hyper was told of an end that is none.
    rests: bool,
    /// What hyper had read and not used when it was: the beginning of a head.
    unread: Bytes,
}

impl<T> Timed<T> {
    pub(crate) fn new(io: T, reading: Reading, http: &HttpConfig, closing: Stop) -> Self {
        let write_timeout = http.write_timeout;
        Self {
            io,
            reading,
            read_by: None,
            write_timeout,
            write_by: None,
            closing,
            unsent: false,
            linger: None,
            rests: false,
            unread: Bytes::new(),
        }
    }

    /// Nothing came. Lets an idle connection rest, and fails one whose head is overdue.
    ///
    /// hyper looks for bytes while a request is under way and then not again before some are there. So the timer always
    /// runs, and who it belongs to is asked when it ends; that also spares most requests the setting of a timer.
    fn nothing_came(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Reading::Paced(pace) = &self.reading else { return Poll::Pending };
        let Now { stage, ready } = *pace.now();
        let by = match stage {
            Stage::Head(by) | Stage::Last(by) => Some(by),
            Stage::Idle(since) if !self.unsent => Some(since + ready.min(pace.idle)),
            // The request has deadlines, or its answer has.
            Stage::Idle(_) | Stage::Busy => None,
        };
        while by.is_none_or(|by| Instant::now() < by) {
            let look = by.unwrap_or_else(|| Instant::now() + READY);
            let sleep = self.read_by.get_or_insert_with(|| Box::pin(sleep_until(look)));
            if look < sleep.deadline() || sleep.is_elapsed() {
                sleep.as_mut().reset(look);
            }
            ready!(sleep.as_mut().poll(cx));
        }
        match stage {
            Stage::Head(_) => Poll::Ready(Err(overdue())),
            Stage::Last(_) => {
                dropped("idle");
                Poll::Ready(Ok(()))
            }
            Stage::Idle(_) | Stage::Busy => {
                self.rests = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn rests_at_once(&self) -> bool {
        let Reading::Paced(pace) = &self.reading else { return false };
        let Now { stage, ready } = *pace.now();
        matches!(stage, Stage::Idle(_)) && ready.is_zero()
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

impl<T> Timed<T> {
    /// The connection without its deadlines, and what was read from it before and not used.
    pub(crate) fn into_inner(self) -> (T, Bytes) {
        (self.io, self.unread)
    }
}

impl<T: Watched> Timed<T> {
    /// Whether hyper gave it up only to let it rest; `unread` is what it had not used.
    pub(crate) fn rests(&mut self, unread: Bytes) -> bool {
        // Bytes keep all of hyper's buffer, also when they are none.
        self.unread = if unread.is_empty() { Bytes::new() } else { unread };
        self.read_by = None;
        self.rests
    }

    /// Waits until there is something to be read. False when nothing came in the time for that, or the gateway is stopping.
    pub(crate) async fn wakes(&mut self) -> io::Result<bool> {
        self.rests = false;
        Ok(!self.unread.is_empty() || self.becomes_readable().await?)
    }

    async fn becomes_readable(&mut self) -> io::Result<bool> {
        let Self { io, reading: Reading::Paced(pace), closing, .. } = self else { return Ok(true) };
        let by = match pace.now().stage {
            Stage::Idle(since) => since + pace.idle,
            Stage::Head(by) | Stage::Last(by) => by,
            Stage::Busy => return Ok(true),
        };
        let readable = timeout_at(by, poll_fn(|cx| io.poll_readable(cx)));
        match closing.or(readable).await {
            Some(Ok(readable)) => readable.map(|()| true),
            Some(Err(_)) if matches!(pace.now().stage, Stage::Head(_)) => Err(overdue()),
            Some(Err(_)) => {
                dropped("idle");
                Ok(false)
            }
            None => Ok(false),
        }
    }
}

fn overdue() -> io::Error {
    dropped("header");
    io::ErrorKind::TimedOut.into()
}

/// Counts a connection that was given up.
pub(crate) fn dropped(reason: &'static str) {
    metrics::counter!("weir_gateway_connections_dropped_total", "reason" => reason).increment(1);
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let before = buf.filled().len();
        if !me.unread.is_empty() {
            let n = buf.remaining().min(me.unread.len());
            buf.put_slice(&me.unread.split_to(n));
        } else if Pin::new(&mut me.io).poll_read(cx, buf)?.is_pending() {
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
        self.unsent = true;
        let done = Pin::new(&mut self.io).poll_write(cx, buf);
        self.or_not_taken(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unsent = true;
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
            if std::mem::take(&mut self.unsent) && self.rests_at_once() {
                // hyper would not look for bytes again before some are there.
                cx.waker().wake_by_ref();
            }
        }
        self.or_not_taken(cx, done)
    }

    /// Closes our side, then reads what the client still sends, for a moment; not when the gateway is stopping. Leaves open
    /// what only rests.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if me.rests {
            return Poll::Ready(Ok(()));
        }
        let (until, mut left) = match me.linger {
            Some(linger) => linger,
            None => {
                let done = Pin::new(&mut me.io).poll_shutdown(cx);
                ready!(me.or_not_taken(cx, done))?;
                (Instant::now() + LINGER, LINGER_BYTES)
            }
        };
        let mut rest = [0; 4096];
        while left > 0 && !me.closing.is_given() && Instant::now() < until {
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
