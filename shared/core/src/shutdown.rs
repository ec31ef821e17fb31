//! The signal to stop, and the bond between a role and the supervisor that started it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Asks every part of a process to stop; cloned freely.
pub type Shutdown = CancellationToken;

/// Environment variable in which a supervisor gives its process id to the roles it starts.
pub const PARENT_PID: &str = "WEIR_PARENT_PID";

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

/// Makes this process get SIGTERM when the supervisor that started it is gone, however it ended.
///
/// Does nothing when no supervisor announced itself in [`PARENT_PID`]. Must be called from the main thread, early.
///
/// # Errors
/// When the supervisor is gone already, or the kernel refuses.
pub fn follow_parent() -> io::Result<()> {
    let Ok(parent) = std::env::var(PARENT_PID) else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    let actual = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().to_string());
    if actual.as_deref() != Some(parent.as_str()) {
        return Err(io::Error::other(format!("the supervisor (process {parent}) is gone")));
    }
    Ok(())
}
