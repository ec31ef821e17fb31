//! Whether the server has room for profiles. One that never evicts may hold the queue too, and then the cache must leave
//! most of the memory to it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::queue::{Queue, QueueError};

/// Share of a server's memory above which nothing is cached if it evicts nothing: well below the share from which on
/// gateways accept nothing.
const SHARE: f64 = 0.5;

/// How long an answer counts.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Option<(Instant, bool)>>);

impl Room {
    pub(super) async fn is_there(&self, queue: &Queue) -> Result<bool, QueueError> {
        if let Some((at, is_there)) = *self.0.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < LOOK_EVERY
        {
            return Ok(is_there);
        }
        let info: String = queue.command(redis::cmd("INFO").arg("memory")).await?;
        let is_there = has_room(&info);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), is_there));
        Ok(is_there)
    }
}

/// Reads the section `memory` of `INFO`.
fn has_room(info: &str) -> bool {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let number = |name: &str| field(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    let limit = number("maxmemory");
    limit == 0.0 || field("maxmemory_policy") != Some("noeviction") || number("used_memory") < limit * SHARE
}

#[cfg(test)]
mod tests {
    use super::has_room;

    #[test]
    fn only_a_server_that_evicts_nothing_and_is_half_full_has_no_room() {
        let info = |used: u32, limit: u32, policy: &str| {
            format!("# Memory\r\nused_memory:{used}\r\nmaxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n")
        };
        assert!(has_room(&info(499, 1000, "noeviction")) && !has_room(&info(500, 1000, "noeviction")));
        assert!(has_room(&info(999, 1000, "allkeys-lru")) && has_room(&info(999, 0, "noeviction")));
    }
}
