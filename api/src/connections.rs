//! The connections of a server: so many at once, and ended in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use weir_core::shutdown::Shutdown;

use crate::config::ApiConfig;

/// Who accepts them, and how they end. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    slots: Arc<Semaphore>,
    open: TaskTracker,
    /// No more connections; whoever serves one lets it end.
    stop: Shutdown,
    /// Ends connections whatever they are doing.
    cut: Shutdown,
}

impl Connections {
    pub(crate) fn new(config: &ApiConfig, stop: Shutdown) -> Self {
        let slots = Arc::new(Semaphore::new(config.connections.min(Semaphore::MAX_PERMITS)));
        Self { slots, open: TaskTracker::new(), stop, cut: Shutdown::new() }
    }

    /// Accepts until it is to stop, and has each connection served by a task of its own.
    pub(crate) async fn accept<F>(&self, listener: TcpListener, serve: impl Fn(TcpStream, SocketAddr) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let slot = self.stop.run_until_cancelled(self.slots.clone().acquire_owned());
            let Some(Ok(slot)) = slot.await else { return };
            match self.stop.run_until_cancelled(listener.accept()).await {
                None => return,
                Some(Ok((stream, peer))) => {
                    drop(stream.set_nodelay(true));
                    let (cut, served) = (self.cut.clone(), serve(stream, peer));
                    self.open.spawn(async move {
                        cut.run_until_cancelled(served).await;
                        drop(slot);
                    });
                }
                Some(Err(error)) => {
                    // Out of file descriptors, most likely: give connections a moment to end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Waits for what is under way, and cuts what takes longer.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.open.close();
        if tokio::time::timeout(limit, self.open.wait()).await.is_err() {
            tracing::warn!(open = self.open.len(), "connections are cut: they did not finish in time");
            self.cut.cancel();
            self.open.wait().await;
        }
    }
}
