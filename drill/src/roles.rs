//! Gateways and workers as processes: started, struck, started again.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tokio::sync::Mutex;
use weir_stack::{Process, free_port, tied_command};

/// How the processes of a role are started.
pub(crate) struct Role {
    /// `gateway` or `worker`.
    pub(crate) name: &'static str,
    pub(crate) binary: PathBuf,
    /// Working folder, with `weir.toml` and the log.
    pub(crate) folder: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
}

/// A place in the fleet: the process that holds it, and how many did before.
pub(crate) struct Place {
    number: usize,
    /// Where a gateway listens.
    listen: Option<SocketAddr>,
    held: Mutex<Held>,
}

/// The process of a place.
pub(crate) struct Held {
    pub(crate) process: Process,
    /// A worker's name, by which it can be declared dead.
    pub(crate) name: String,
    starts: usize,
}

impl Role {
    /// Fills a place for the first time.
    pub(crate) fn place(&self, number: usize) -> Result<Place> {
        let listen = match self.name {
            "gateway" => Some(SocketAddr::from(([127, 0, 0, 1], free_port()?))),
            _ => None,
        };
        let held = Mutex::new(self.spawn(number, listen, 1)?);
        Ok(Place { number, listen, held })
    }

    /// Starts another process in a place; the one before must have ended.
    pub(crate) fn refill(&self, place: &Place, held: &mut Held) -> Result<()> {
        *held = self.spawn(place.number, place.listen, held.starts + 1)?;
        Ok(())
    }

    fn spawn(&self, number: usize, listen: Option<SocketAddr>, starts: usize) -> Result<Held> {
        let name = format!("drill-{}-{number}-{starts}", self.name);
        let log = self.folder.join(format!("{}-{number}.log", self.name));
        let log = OpenOptions::new().create(true).append(true).open(&log).context("the log of a role")?;
        let mut command = tied_command(&self.binary, "KILL")?;
        command.arg(self.name).current_dir(&self.folder).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(&self.env).env("WEIR_OPS_ENABLED", "false");
        match listen {
            Some(address) => command.env("WEIR_GATEWAY_LISTEN", address.to_string()),
            None => command.env("WEIR_WORKER_NAME", &name),
        };
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Held { process: Process::spawn(command)?, name, starts })
    }
}

impl Place {
    /// Where its gateway listens.
    pub(crate) fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    pub(crate) async fn held(&self) -> tokio::sync::MutexGuard<'_, Held> {
        self.held.lock().await
    }
}
