//! The other systems, as far as they can be installed and go on working.

use anyhow::Error;

use crate::peers::{self, Peer};
use crate::report::Report;

/// Those that take part.
pub(super) struct Rivals {
    ready: Vec<Peer>,
}

impl Rivals {
    pub(super) fn none() -> Self {
        Self { ready: Vec::new() }
    }

    /// Installs all of them, which takes minutes at the first time. Who fails is named and takes no part.
    pub(super) async fn install(report: &mut Report) -> Self {
        let mut ready = Vec::new();
        for peer in peers::ALL {
            report.step(format_args!("installing {}", peer.name));
            match peer.install().await {
                Ok(()) => ready.push(peer),
                Err(error) => report.fail(peer.name, &error),
            }
        }
        Self { ready }
    }

    pub(super) fn all(&self) -> Vec<Peer> {
        self.ready.clone()
    }

    /// It failed: the part says so and goes on without it.
    pub(super) fn failed(&mut self, report: &mut Report, part: &str, peer: Peer, error: &Error) {
        report.fail(format!("{part}: {}", peer.name), error);
        self.ready.retain(|other| other.folder != peer.folder);
    }
}
