//! The ops listener of a role's own process.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_core::ops::{Health, Ops};
use weir_core::shutdown::Shutdown;
use weir_core::telemetry;

use crate::context::Context;

/// A listener that is being served. It outlives the signal to stop: probes are answered while the role drains.
pub(crate) struct Serving {
    stop: Shutdown,
    task: Option<JoinHandle<()>>,
}

impl Serving {
    /// Ends the listener.
    pub(crate) async fn ended(self) {
        self.stop.cancel();
        if let Some(Err(error)) = match self.task {
            Some(task) => Some(task.await),
            None => None,
        } {
            tracing::error!(%error, "the ops listener ended badly");
        }
    }
}

/// Starts metrics, and the ops listener where one is configured.
pub(crate) async fn serve_ops(
    context: &Context,
    process: &str,
    health: watch::Receiver<Health>,
    shutdown: &Shutdown,
) -> Result<Serving> {
    let handle = telemetry::start_metrics(process, shutdown);
    let stop = Shutdown::new();
    let Some(address) = context.settings.ops else { return Ok(Serving { stop, task: None }) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("the ops listener cannot use {address}; set ops.listen to another address, or ops.enabled to false")
    })?;
    let metrics = Arc::new(move || {
        let text = telemetry::render(&handle);
        Box::pin(async move { text }) as _
    });
    let ops = Ops { health, metrics };
    let task = Some(tokio::spawn(ops.serve(listener, stop.clone())));
    Ok(Serving { stop, task })
}
