//! `stack.json`: what `weir up` runs, and where. It holds passwords: only its owner can read it.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use weir_core::secret::SecretUrl;

/// Everything that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StackFile {
    /// Process id of `weir up`.
    pub(crate) pid: u32,
    /// Version of `weir up`.
    pub(crate) version: String,
    /// Unix milliseconds of its start.
    pub(crate) started_ms: u64,
    /// Addresses of the gateway, as URLs.
    pub(crate) gateway: Vec<String>,
    /// File with the gateway's certificate, when it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    /// URL of the ops listener, when there is one.
    pub(crate) ops: Option<String>,
    /// The queue's Redis.
    pub(crate) redis: Server,
    /// PostgreSQL.
    pub(crate) database: Server,
    /// Gateways and workers.
    pub(crate) processes: Vec<Role>,
}

/// A server. Its `Debug` shows no password.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Server {
    /// With its password.
    pub(crate) url: String,
    /// `None` when it was there before us.
    pub(crate) pid: Option<u32>,
}

impl Server {
    /// The URL as it may be shown.
    pub(crate) fn shown(&self) -> String {
        SecretUrl::new(self.url.clone()).to_string()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.shown()).field("pid", &self.pid).finish()
    }
}

/// A process of the fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Role {
    /// Its place, `gateway` or `worker-1`. While its process is replaced there is `worker-1 next`, then `worker-1 old`.
    pub(crate) name: String,
    /// `gateway` or `worker`.
    pub(crate) role: String,
    /// Process id; `None` while it is not running.
    pub(crate) pid: Option<u32>,
    /// `starting`, `running`, `restarting`, `stopping` or `given up`.
    pub(crate) state: String,
    /// URL of its own ops listener.
    pub(crate) ops: Option<String>,
    /// Starts after it ended by itself.
    pub(crate) restarts: u32,
    /// File with its log.
    pub(crate) log: PathBuf,
}

impl StackFile {
    /// Where it is in a data folder.
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("stack.json")
    }

    /// The same without the passwords, for people and programs that look.
    pub(crate) fn without_passwords(mut self) -> Self {
        for server in [&mut self.redis, &mut self.database] {
            server.url = server.shown();
        }
        self
    }

    /// Reads it; `None` when there is none.
    pub(crate) fn read(data: &Path) -> Result<Option<Self>> {
        let path = Self::path(data);
        match fs::read(&path) {
            Ok(bytes) => {
                Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{} is broken", path.display()))?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// Writes it in one step: a reader sees the old one or the new one.
    pub(crate) fn write(&self, data: &Path) -> Result<()> {
        let path = Self::path(data);
        let draft = path.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            fs::rename(&draft, &path)
        };
        write().with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Removes it; there may be none.
    pub(crate) fn remove(data: &Path) {
        if let Err(error) = fs::remove_file(Self::path(data)) {
            tracing::debug!(%error, "stack.json was not removed");
        }
    }
}
