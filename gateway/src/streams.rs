//! The requests of one HTTP/2 connection: how many are under way, and that none is so for ever.

use std::future::Future;
use std::time::Duration;

use hyper::rt::Executor;
use tokio::sync::watch;

use crate::deadline::dropped;

/// Runs the requests of one connection. hyper waits for a client's window without any deadline; here a stream that
/// takes longer than all its parts may is reset.
#[derive(Clone)]
pub(crate) struct Streams {
    open: watch::Sender<usize>,
    limit: Duration,
}

impl Streams {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { open: watch::Sender::new(0), limit }
    }

    /// Ends when no request has begun for `first` at the beginning, or for `idle` while none was under way.
    pub(crate) async fn quiet(&self, first: Duration, idle: Duration) {
        let (mut open, mut patience) = (self.open.subscribe(), first);
        // It fails only when the sender is gone, and we hold one.
        while open.wait_for(|open| *open == 0).await.is_ok() {
            if tokio::time::timeout(patience, open.changed()).await.is_err() {
                return;
            }
            patience = idle;
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let open = Open::new(self.open.clone());
        let limit = self.limit;
        tokio::spawn(async move {
            if tokio::time::timeout(limit, stream).await.is_err() {
                dropped("stream");
            }
            drop(open);
        });
    }
}

/// One request under way.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(open: watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
