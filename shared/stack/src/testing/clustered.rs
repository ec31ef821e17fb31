//! A Redis Cluster of private servers.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::servers::started;
use super::{Scratch, eventually, scratch};
use crate::redis::probe;
use crate::{RedisOptions, RedisServer, StackError, free_port, private};

const SLOTS: usize = 16_384;
/// Starting, finding each other and failing over take seconds; this is for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT_TRIES: usize = 8;
/// Keys that move in one step.
const STEP: &str = "200";

/// What to start. Every server has the settings of `deploy/redis.conf`.
pub struct Clustered {
    /// Servers that share the slots evenly. Default 3.
    pub primaries: usize,
    /// Replicas of each. Default 0.
    pub replicas: usize,
    /// Time without an answer after which the others take a server to be down. Default 5 s.
    pub node_timeout: Duration,
    /// Whether nobody serves anything while a slot has no primary, as is the default of Redis. Default no.
    pub full_coverage: bool,
    /// Whether every server has a port for TLS too, over which they speak with each other; the rest of what that takes is
    /// in `settings`. Default no.
    pub tls: bool,
    /// The password of all; by default a random one.
    pub password: Option<String>,
    /// More lines of configuration of every server, as (name, arguments).
    pub settings: Vec<(&'static str, String)>,
}

impl Default for Clustered {
    fn default() -> Clustered {
        Clustered {
            primaries: 3,
            replicas: 0,
            node_timeout: Duration::from_secs(5),
            full_coverage: false,
            tls: false,
            password: None,
            settings: Vec::new(),
        }
    }
}

/// A running cluster. Dropping it kills all of its servers.
#[derive(Debug)]
pub struct ClusteredRedis {
    /// The servers: first those that begin as primaries, then the replicas of the first one, of the second one …
    pub nodes: Vec<RedisServer>,
    bus_ports: Vec<u16>,
    tls_ports: Option<Vec<u16>>,
    primaries: usize,
    password: String,
    settings: Vec<(String, String)>,
    // Goes after the servers.
    scratch: Scratch,
}

impl Clustered {
    /// Starts all of them and waits until everybody knows everybody and all slots are served.
    ///
    /// # Panics
    /// If one does not start.
    pub async fn start(self) -> ClusteredRedis {
        let (settings, scratch) = (self.settings(), scratch());
        let password = match self.password {
            Some(password) => password,
            None => started(private::password(&scratch.path().join("password"))),
        };
        let (nodes, bus_ports, tls_ports) = (Vec::new(), Vec::new(), self.tls.then(Vec::new));
        let primaries = self.primaries;
        let mut set = ClusteredRedis { nodes, bus_ports, tls_ports, primaries, password, settings, scratch };
        for _ in 0..self.primaries * (1 + self.replicas) {
            set.add_node().await;
        }
        for node in 0..self.primaries {
            let slots = set.first_slots(node);
            let (from, to) = (slots.start().to_string(), slots.end().to_string());
            set.done(node, &["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await;
            set.done(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(node + 1).to_string()]).await;
        }
        set.introduce(1..set.nodes.len()).await;
        for node in self.primaries..set.nodes.len() {
            let primary = (node - self.primaries) / self.replicas;
            set.follow(node, primary).await;
        }
        for primary in 0..self.primaries {
            eventually("the replicas follow", PATIENCE, async || {
                set.ask(primary, &["INFO", "replication"]).await.matches("state=online").count() == self.replicas
            })
            .await;
        }
        set.is_whole().await;
        set
    }

    fn settings(&self) -> Vec<(String, String)> {
        let mut settings = vec![
            ("cluster-enabled".to_owned(), "yes".to_owned()),
            ("cluster-node-timeout".to_owned(), self.node_timeout.as_millis().to_string()),
            ("cluster-require-full-coverage".to_owned(), if self.full_coverage { "yes" } else { "no" }.to_owned()),
            ("repl-diskless-sync-delay".to_owned(), "0".to_owned()),
        ];
        if self.tls {
            settings.push(("tls-cluster".to_owned(), "yes".to_owned()));
        }
        settings.extend(self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        settings
    }
}

impl ClusteredRedis {
    /// The URL that names all nodes. It holds the password: do not log it.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://:{}@{}/", self.password, hosts.join(","))
    }

    /// The same over TLS, by this name of the machine.
    ///
    /// # Panics
    /// If TLS was not asked for.
    pub fn tls_url(&self, host: &str) -> String {
        let ports = self.tls_ports.as_ref().expect("ports for TLS");
        let hosts: Vec<_> = ports.iter().map(|port| format!("{host}:{port}")).collect();
        format!("rediss-cluster://:{}@{}/", self.password, hosts.join(","))
    }

    /// Where a node is reached, as the others say it.
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[node].port())
    }

    /// The slots that a primary has at the beginning.
    fn first_slots(&self, node: usize) -> RangeInclusive<usize> {
        node * SLOTS / self.primaries..=(node + 1) * SLOTS / self.primaries - 1
    }

    /// Starts one more server, which knows nobody.
    async fn add_node(&mut self) {
        for _ in 1..PORT_TRIES {
            let bus_port = started(free_port());
            let mut options = RedisOptions::new(self.scratch.path().join(format!("node-{}", self.nodes.len())));
            options.settings = self.settings.clone();
            options.settings.push(("masterauth".into(), self.password.clone()));
            options.settings.push(("cluster-port".into(), bus_port.to_string()));
            let tls_port = started(free_port());
            if self.tls_ports.is_some() {
                options.settings.push(("tls-port".into(), tls_port.to_string()));
            }
            options.password = Some(self.password.clone());
            match RedisServer::start(options).await {
                // Most likely somebody has taken the port of the bus.
                Err(StackError::Ended { .. }) => {}
                node => {
                    self.nodes.push(started(node));
                    self.bus_ports.push(bus_port);
                    self.tls_ports.iter_mut().for_each(|ports| ports.push(tls_port));
                    return;
                }
            }
        }
        panic!("no port for the bus of a node of the cluster");
    }

    /// Makes nodes known to all.
    async fn introduce(&self, nodes: std::ops::Range<usize>) {
        for node in nodes {
            let (port, bus) = (self.nodes[node].port().to_string(), self.bus_ports[node].to_string());
            self.done(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        self.is_whole().await;
    }

    /// Starts one more primary, which has no slots yet; gives its number.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn join(&mut self) -> usize {
        self.add_node().await;
        let node = self.nodes.len() - 1;
        self.introduce(node..node + 1).await;
        node
    }

    async fn follow(&self, node: usize, primary: usize) {
        let id = self.id(primary).await;
        eventually("the replica is told its primary", PATIENCE, async || {
            self.ask(node, &["CLUSTER", "REPLICATE", &id]).await.ends_with("+OK\r\n+OK\r\n")
        })
        .await;
    }

    /// Waits until every node that runs knows of all and serves.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    pub async fn is_whole(&self) {
        let known = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        eventually("the cluster is whole", PATIENCE, async || {
            for (number, node) in self.nodes.iter().enumerate() {
                if !node.runs() {
                    continue;
                }
                let about = self.ask(number, &["CLUSTER", "INFO"]).await;
                let facts = ["cluster_state:ok", "cluster_slots_assigned:16384\r\n", &known];
                if !facts.iter().all(|fact| about.contains(fact)) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// The raw reply of one node to one command; empty if there is none.
    pub async fn ask(&self, node: usize, words: &[&str]) -> String {
        probe::request(self.nodes[node].port(), &self.password, words).await.unwrap_or_default()
    }

    async fn done(&self, node: usize, words: &[&str]) {
        let reply = self.ask(node, words).await;
        assert!(reply.ends_with("+OK\r\n+OK\r\n"), "{words:?}: {reply}");
    }

    async fn id(&self, node: usize) -> String {
        let reply = self.ask(node, &["CLUSTER", "MYID"]).await;
        reply.lines().last().expect("an id").to_owned()
    }

    /// The slot of a key.
    ///
    /// # Panics
    /// If the first node does not say.
    pub async fn slot(&self, key: &str) -> u16 {
        let reply = self.ask(0, &["CLUSTER", "KEYSLOT", key]).await;
        reply.lines().last().and_then(|line| line.strip_prefix(':')?.parse().ok()).expect("a slot")
    }

    /// The node that says that it is the primary of a slot; the last one if several do.
    pub async fn holder(&self, slot: u16) -> Option<usize> {
        let mut holder = None;
        for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].runs()) {
            let about = self.ask(node, &["CLUSTER", "NODES"]).await;
            let myself = about.lines().find(|line| line.contains("myself,master")).unwrap_or_default();
            if myself.split(' ').skip(8).any(|range| has(range, slot)) {
                holder = Some(node);
            }
        }
        holder
    }

    /// Waits until a slot has another primary than `old` and all is served; gives that one.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    pub async fn promoted(&self, slot: u16, old: usize) -> usize {
        let mut new = None;
        eventually("a replica is promoted", PATIENCE, async || {
            new = self.holder(slot).await.filter(|node| *node != old);
            match new {
                Some(node) => self.ask(node, &["CLUSTER", "INFO"]).await.contains("cluster_state:ok"),
                None => false,
            }
        })
        .await;
        new.expect("it was there a moment ago")
    }

    /// Moves a slot with everything in it, as operators' tools do.
    ///
    /// # Panics
    /// If a node refuses.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to).await;
        while self.move_some(slot, from, to).await {}
        self.end_move(slot, from, to).await;
    }

    /// From now on, what is not in the slot any more is to be asked for at its new place.
    ///
    /// # Panics
    /// If a node refuses.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        self.done(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from).await]).await;
        self.done(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to).await]).await;
    }

    /// Moves some keys; says whether there were any.
    ///
    /// # Panics
    /// If a node refuses.
    pub async fn move_some(&self, slot: u16, from: usize, to: usize) -> bool {
        let reply = self.ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), STEP]).await;
        let keys: Vec<&str> = reply.lines().filter(|line| !line.starts_with(['+', '*', '$'])).collect();
        if keys.is_empty() {
            return false;
        }
        let port = self.nodes[to].port().to_string();
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "AUTH", &self.password, "KEYS"];
        words.extend(keys);
        self.done(from, &words).await;
        true
    }

    /// The slot has its new place.
    ///
    /// # Panics
    /// If a node refuses.
    pub async fn end_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, id) = (slot.to_string(), self.id(to).await);
        for node in [to, from] {
            self.done(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await;
        }
    }
}

/// Whether `7` or `5-9` has the slot.
fn has(range: &str, slot: u16) -> bool {
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if (from..=to).contains(&slot))
}
