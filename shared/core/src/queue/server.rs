//! What the Redis server promises: checked against the durability that we promise to senders.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::error::NO_CLUSTER;
use super::{Node, Queue, QueueError};

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
    /// Its address, if it is one of a Redis Cluster.
    pub address: Option<String>,
    config: HashMap<String, String>,
    info: HashMap<String, String>,
    /// The [`Self::past`] in which the append-only file was seen whole.
    whole: Option<String>,
}

/// The servers that hold partitions: one, or some primaries of a Redis Cluster.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    /// Those that answered.
    pub states: Vec<ServerState>,
    /// The others, and why.
    pub away: Vec<(Node, QueueError)>,
}

impl Servers {
    /// See [`ServerState::learn_from`].
    pub fn learn_from(&mut self, earlier: &Self) {
        let unknown = ServerState::default();
        for state in &mut self.states {
            let seen = earlier.states.iter().find(|seen| seen.address == state.address);
            state.learn_from(seen.unwrap_or(&unknown));
        }
    }

    /// See [`ServerState::weaknesses`]; of a cluster, each with the address.
    pub fn weaknesses(&self, wanted: Durability, replicas: u32) -> Vec<String> {
        self.states.iter().flat_map(|state| state.weaknesses(wanted, replicas)).collect()
    }

    /// The server whose memory is the fullest.
    pub fn fullest(&self) -> Option<&ServerState> {
        self.states.iter().max_by(|one, other| one.memory_share().total_cmp(&other.memory_share()))
    }
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
    /// Reads what the primary promises, after asking the sentinels, if there are any, which server that is; of a cluster
    /// one of them.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn server_state(&self) -> Result<ServerState, QueueError> {
        let servers = self.servers().await?;
        servers.states.into_iter().next().ok_or_else(|| QueueError::reply(&"no server"))
    }

    /// Reads what every server that holds partitions promises, after asking who that is. Some of a cluster may be away:
    /// nothing is sent to those until a look finds them again.
    ///
    /// # Errors
    /// When none can be asked, or one will not answer however long we wait.
    pub async fn servers(&self) -> Result<Servers, QueueError> {
        self.link.follow().await;
        let nodes = self.holders().await?;
        let looks = join_all(nodes.iter().map(|node| self.look_at(node))).await;
        let mut servers = Servers::default();
        for (node, look) in nodes.into_iter().zip(looks) {
            self.link.note(&node, look.as_ref().err());
            match look {
                Ok(state) => servers.states.push(state),
                Err(error @ QueueError::Deployment(_)) => return Err(error),
                Err(error) => servers.away.push((node, error)),
            }
        }
        match (servers.states.is_empty(), servers.away.first()) {
            (true, Some((_, error))) => Err(error.clone()),
            _ => Ok(servers),
        }
    }

    async fn look_at(&self, node: &Node) -> Result<ServerState, QueueError> {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg(&SETTINGS);
        let config = self.link.command_at(node, &ask).await?;
        let state = self.read_info(node, config).await?;
        if !state.is_primary() {
            self.link.look_elsewhere();
        }
        // What it holds is not to be asked for yet.
        if node.address().is_some() && state.info("loading") == "1" {
            return Err(QueueError::Refused { code: "LOADING".into(), text: "it is reading its log".into() });
        }
        Ok(state)
    }

    async fn read_info(&self, node: &Node, config: HashMap<String, String>) -> Result<ServerState, QueueError> {
        let text: String = self.link.command_at(node, redis::cmd("INFO").arg("everything")).await?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        let info = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Ok(ServerState { address: node.address().map(str::to_owned), config, info, whole: None })
    }

    /// The servers that hold partitions, each once: the only one, or some primaries of a Redis Cluster.
    async fn holders(&self) -> Result<Vec<Node>, QueueError> {
        let mut holders = Vec::new();
        for partition in 0..self.partitions() {
            let holder = self.holder(partition).await?;
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
        Ok(holders)
    }

    /// The server that holds a partition, as far as we know.
    ///
    /// # Errors
    /// When no node of a cluster answers or none has its slot.
    pub async fn holder(&self, partition: u16) -> Result<Node, QueueError> {
        self.link.holder(&self.keys(partition).ingest).await
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

    /// The share of the memory that is in use, 0 to 1 and a little more.
    pub fn memory_share(&self) -> f64 {
        self.used_memory() as f64 / self.memory_limit().max(1) as f64
    }

    /// A text about this server that names it where there are several.
    pub fn named(&self, text: impl fmt::Display) -> String {
        self.address.as_ref().map_or_else(|| text.to_string(), |address| format!("{address}: {text}"))
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
                reasons.push(self.named(reason));
            }
        };
        let policy = self.setting("maxmemory-policy");
        need(
            policy == "noeviction",
            format!("maxmemory-policy is {policy}: a queue must not be evicted; set noeviction"),
        );
        need(self.is_primary(), format!("the server is a {}: give the address of the primary", self.info("role")));
        let in_cluster = self.info("redis_mode") == "cluster";
        need(!in_cluster || self.address.is_some(), NO_CLUSTER.into());
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
