//! The signal to stop.

use std::fs::File;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
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
                crate::log::flush();
                std::process::exit(130);
            }
        }
    });
    Ok(shutdown)
}

/// Tells each SIGHUP, which daemons take as the wish to start anew. Nothing comes from it where the process was started
/// with the signal ignored (`nohup`).
///
/// # Errors
/// When the handler cannot be installed. Must be called within a tokio runtime.
pub fn hangups() -> io::Result<Hangups> {
    let signal = if hangups_are_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(Hangups { signal, had_terminal: has_terminal() })
}

/// See [`hangups`].
pub struct Hangups {
    signal: Option<Signal>,
    had_terminal: bool,
}

/// What a SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// Somebody sent it.
    Wish,
    /// The terminal that the process was started from is gone.
    NoTerminal,
}

impl Hangups {
    /// Waits for the next one.
    pub async fn next(&mut self) -> Hangup {
        match &mut self.signal {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        };
        if self.had_terminal && !has_terminal() { Hangup::NoTerminal } else { Hangup::Wish }
    }
}

fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// The signal is the lowest bit of the mask.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1)
}
