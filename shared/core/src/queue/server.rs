//! What the Redis server promises: checked against the durability that we promise to senders.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::NO_CLUSTER;
use super::{Queue, QueueError};

/// What a 2xx means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// In the memory of Redis.
    Memory,
    /// On disk, fsynced.
    Disk,
    /// On disk and received by a replica.
    Replica,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Memory => "memory",
            Durability::Disk => "disk",
            Durability::Replica => "replica",
        })
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "memory" => Ok(Durability::Memory),
            "disk" => Ok(Durability::Disk),
            "replica" => Ok(Durability::Replica),
            _ => Err("is none of memory, disk, replica".into()),
        }
    }
}

/// Settings and state of a Redis server.
#[derive(Debug, Clone, Default)]
pub struct ServerState {
    config: HashMap<String, String>,
    info: HashMap<String, String>,
    /// The [`Self::past`] in which the append-only file was seen whole.
    whole: Option<String>,
}

/// Commands that can switch the append-only file on, or make us forget that they did.
const SWITCHES: [&str; 4] = ["config|set", "config|resetstat", "replicaof", "slaveof"];

const SETTINGS: [&str; 7] = [
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "maxmemory-policy",
    "maxmemory",
    "min-replicas-to-write",
    "min-replicas-max-lag",
];

/// The largest `min-replicas-max-lag` in seconds: an old primary that was cut off takes writes for as long.
const MAX_LAG: u64 = 10;

impl Queue {
    /// Reads what the primary promises, after asking the sentinels, if there are any, which server that is.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn server_state(&self) -> Result<ServerState, QueueError> {
        self.link.follow().await;
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg(&SETTINGS);
        let config = self.command(&ask).await?;
        let text: String = self.command(redis::cmd("INFO").arg("everything")).await?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        let info = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let state = ServerState { config, info, whole: None };
        if !state.is_primary() {
            self.link.look_elsewhere();
        }
        Ok(state)
    }
}

impl ServerState {
    fn setting(&self, name: &str) -> &str {
        self.config.get(name).map_or("", String::as_str)
    }

    /// One value of `INFO`, empty when the server does not give it.
    pub fn info(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    fn info_number(&self, name: &str) -> u64 {
        self.info(name).parse().unwrap_or_default()
    }

    /// Bytes in use.
    pub fn used_memory(&self) -> u64 {
        self.info_number("used_memory")
    }

    /// Bytes that may be used: `maxmemory`, or what the machine has.
    pub fn memory_limit(&self) -> u64 {
        match self.setting("maxmemory").parse() {
            Ok(limit) if limit > 0 => limit,
            _ => self.info_number("total_system_memory"),
        }
    }

    fn is_primary(&self) -> bool {
        self.info("role") == "master"
    }

    fn setting_number(&self, name: &str) -> u64 {
        self.setting(name).parse().unwrap_or_default()
    }

    /// The server's clock when it answered, in Unix milliseconds; `None` when it does not tell.
    pub fn clock_ms(&self) -> Option<u64> {
        Some(self.info_number("server_time_usec") / 1000).filter(|ms| *ms > 0)
    }

    /// Replicas that receive the stream of writes; others may still be copying the data set.
    pub fn replicas_online(&self) -> u32 {
        let one = |n: &u32| self.info(&format!("slave{n}")).contains("state=online");
        (0..self.info_number("connected_slaves") as u32).filter(one).count() as u32
    }

    /// Takes over what an earlier look at the same server has shown. Who looks again and again calls this: a look that
    /// stands alone has to take any rewrite for the first one if the append-only file may have been switched on since
    /// the server started.
    pub fn learn_from(&mut self, earlier: &Self) {
        self.whole.clone_from(&earlier.whole);
        if self.setting("appendonly") == "yes" && !self.is_rewriting() {
            self.whole = Some(self.past());
        }
    }

    fn is_rewriting(&self) -> bool {
        self.info("aof_rewrite_in_progress") == "1" || self.info("aof_rewrite_scheduled") == "1"
    }

    /// How often a command of [`SWITCHES`] was called.
    fn switched(&self, command: &str) -> &str {
        self.info(&format!("cmdstat_{command}")).split(',').next().unwrap_or_default()
    }

    /// Stays the same for as long as nobody can have switched the append-only file on.
    fn past(&self) -> String {
        let calls = SWITCHES.map(|command| self.switched(command));
        format!("{} {}", self.info("run_id"), calls.join(" "))
    }

    /// The AOF is on but its first rewrite may not have ended: a kill now would lose what was acknowledged. No field of
    /// `INFO` tells that rewrite from any other, but its cause leaves a trace.
    fn is_first_rewrite_open(&self) -> bool {
        let on_since_start = SWITCHES.iter().all(|command| self.switched(command).is_empty());
        self.is_rewriting() && !on_since_start && self.whole.as_ref() != Some(&self.past())
    }

    /// Why this server is weaker than `wanted` promises; empty when it keeps the promise. Each text says what to set.
    pub fn weaknesses(&self, wanted: Durability, replicas: u32) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut need = |holds: bool, reason: String| {
            if !holds {
                reasons.push(reason);
            }
        };
        let policy = self.setting("maxmemory-policy");
        need(
            policy == "noeviction",
            format!("maxmemory-policy is {policy}: a queue must not be evicted; set noeviction"),
        );
        need(self.is_primary(), format!("the server is a {}: give the address of the primary", self.info("role")));
        need(self.info("redis_mode") != "cluster", NO_CLUSTER.into());
        if wanted != Durability::Memory {
            need(self.setting("appendonly") == "yes", "appendonly is no: nothing would be on disk; set yes".into());
            let fsync = self.setting("appendfsync");
            need(
                fsync == "always",
                format!("appendfsync is {fsync}: an acknowledged message could be lost; set always"),
            );
            let paused = self.setting("no-appendfsync-on-rewrite");
            need(paused == "no", "no-appendfsync-on-rewrite is yes: it suspends appendfsync always; set no".into());
            need(
                !self.is_first_rewrite_open(),
                "the append-only file is being written for the first time: wait".into(),
            );
            let write = self.info("aof_last_write_status");
            need(
                matches!(write, "ok" | ""),
                format!("aof_last_write_status is {write}: see the log of Redis, most likely the disk is full"),
            );
        }
        if wanted == Durability::Replica {
            let have = self.replicas_online();
            need(
                have >= replicas,
                format!("{have} of {replicas} replicas are online; start them, or lower gateway.replicas"),
            );
            let least = self.setting_number("min-replicas-to-write");
            need(
                least >= u64::from(replicas),
                format!("min-replicas-to-write is {least}: a primary that was cut off would go on; set {replicas}"),
            );
            let lag = self.setting_number("min-replicas-max-lag");
            need(
                (1..=MAX_LAG).contains(&lag),
                format!("min-replicas-max-lag is {lag}: a primary that was cut off would go on; set 1 to {MAX_LAG}"),
            );
        }
        reasons
    }
}
