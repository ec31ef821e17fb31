//! The bytes of a connection. What comes is held against an allowance of idle talk; what goes has to be taken in time, which
//! neither HTTP/2 nor its pings see to: they wait behind what is not taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use weir_core::flood::{Allowance, FrameMeter};

/// Clients of gRPC talk more than others: they measure the connection with a PING for every few answers, open their window
/// for each, and take all they watch back when they leave.
const IDLE_TALK: Allowance = Allowance { burst: 10_000.0, per_second: 2000.0, per_request: 4.0 };

/// A connection's bytes.
pub(super) struct Wire<T> {
    io: T,
    meter: FrameMeter,
    /// How long bytes may wait to be taken.
    patience: Duration,
    /// Set while some wait; from the first that had to until the last is taken.
    taken_by: Option<Pin<Box<Sleep>>>,
}

impl<T> Wire<T> {
    pub(super) fn new(io: T, patience: Duration) -> Self {
        Self { io, meter: FrameMeter::new(IDLE_TALK), patience, taken_by: None }
    }

    /// Fails what is not done once that has been so for too long.
    fn in_time<R>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if done.is_ready() {
            return done;
        }
        let patience = self.patience;
        ready!(self.taken_by.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut me.io).poll_read(cx, buf))?;
        let fresh = &buf.filled()[before..];
        let read = me.meter.read(fresh, Instant::now());
        Poll::Ready(read.map_err(|_| io::Error::other("more idle talk than HTTP/2 needs")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(cx, buf);
        self.in_time(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.in_time(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has written all it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(cx);
        if done.is_ready() {
            self.taken_by = None;
        }
        self.in_time(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_shutdown(cx);
        self.in_time(cx, done)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn who_takes_nothing_for_too_long_is_given_up() {
        let (here, _there) = duplex(10);
        let mut wire = Wire::new(here, PATIENCE);
        wire.write_all(&[7; 10]).await.unwrap();
        wire.flush().await.unwrap();
        assert_eq!(wire.write_all(&[7; 10]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_byte_now_and_then_is_not_enough() {
        let (here, mut there) = duplex(10);
        let mut wire = Wire::new(here, PATIENCE);
        let trickle = tokio::spawn(async move {
            while there.read_u8().await.is_ok() {
                tokio::time::sleep(PATIENCE / 5).await;
            }
        });
        assert_eq!(wire.write_all(&[7; 1000]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(wire);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn who_takes_all_of_it_begins_anew() {
        let (here, mut there) = duplex(10);
        let mut wire = Wire::new(here, Duration::from_secs(60));
        for _ in 0..2 {
            let (written, read) =
                tokio::join!(wire.write_all(&[7; 100]), async { there.read_exact(&mut [0; 100]).await });
            assert!(written.is_ok() && read.is_ok());
            assert!(wire.taken_by.is_some());
            wire.flush().await.unwrap();
            assert!(wire.taken_by.is_none());
        }
    }
}
