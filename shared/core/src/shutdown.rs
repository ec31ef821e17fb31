//! The signal to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Asks every part of a process to stop; cloned freely.
pub type Shutdown = CancellationToken;

/// A shutdown that is cancelled by SIGTERM or SIGINT. A second signal ends the process at once with code 130.
///
/// # Errors
/// When the handlers cannot be installed. Must be called within a tokio runtime.
pub fn on_signals() -> io::Result<Shutdown> {
    let shutdown = Shutdown::new();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = term.recv() => (), _ = int.recv() => () }
            if first {
                stop.cancel();
            } else {
                tracing::warn!("second signal, ending without a drain");
                std::process::exit(130);
            }
        }
    });
    Ok(shutdown)
}
