//! What the cache's server says of itself.

use std::time::{Duration, Instant};

use super::{CacheError, ProfileCache};

/// A server that holds the cache, and maybe more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheServer {
    /// Bytes that it uses.
    pub used: u64,
    /// Bytes that it may use; none if nothing bounds it.
    pub limit: Option<u64>,
    /// How long it took to say so.
    pub took: Duration,
}

impl ProfileCache {
    /// Asks the server.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn server(&self) -> Result<CacheServer, CacheError> {
        if !self.config.enabled {
            return Err(CacheError::Off);
        }
        let asked = Instant::now();
        let info: String = self.bounded(self.queue.command(redis::cmd("INFO").arg("memory"))).await?;
        let number = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_default()
        };
        let limit = Some(number("maxmemory")).filter(|limit| *limit > 0);
        Ok(CacheServer { used: number("used_memory"), limit, took: asked.elapsed() })
    }
}
