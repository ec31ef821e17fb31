//! The signal to stop, for futures that are polled several times a request.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use weir_core::shutdown::Shutdown;

/// Ends connections. To ask a [`Shutdown`] at every poll takes two locks that all connections share; this is one read.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    wakes: Shutdown,
    given: Arc<AtomicBool>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.wakes.cancel();
    }

    pub(crate) fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Runs a future until it is done or the signal is given.
    pub(crate) async fn or<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut wakes = pin!(self.wakes.cancelled());
        // Whom it wakes.
        let mut waker: Option<Waker> = None;
        poll_fn(|cx| {
            if self.is_given() {
                return Poll::Ready(None);
            }
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                if wakes.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                waker = Some(cx.waker().clone());
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_future_that_is_done_gives_its_value() {
        assert_eq!(Stop::new().or(async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_who_comes_later_does_not_begin() {
        let stop = Stop::new();
        let (begun, begins) = oneshot::channel();
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move {
                let waits = async {
                    begun.send(()).unwrap();
                    pending::<()>().await
                };
                stop.or(waits).await
            }
        });
        begins.await.unwrap();
        stop.give();
        assert_eq!(timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap(), None);
        assert_eq!(stop.or(async { 7 }).await, None);
    }

    #[tokio::test]
    async fn who_moves_to_another_task_is_woken_there() {
        let stop = Stop::new();
        let owned = stop.clone();
        let mut waiting = Box::pin(async move { owned.or(pending::<()>()).await });
        assert!(timeout(Duration::from_millis(1), &mut waiting).await.is_err());
        let (begun, begins) = oneshot::channel();
        let moved = tokio::spawn(async move {
            assert!(poll_once(&mut waiting).await.is_pending());
            begun.send(()).unwrap();
            waiting.await
        });
        begins.await.unwrap();
        stop.give();
        assert_eq!(timeout(Duration::from_secs(60), moved).await.unwrap().unwrap(), None);
    }

    /// One poll.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
    }
}
