//! A primary, its replicas and the sentinels that watch them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::servers::started;
use super::{Scratch, eventually, scratch};
use crate::log::RunLog;
use crate::redis::probe::{self, Answer};
use crate::{FaultProxy, Process, RedisOptions, RedisServer, Result, StackError, free_port, private, program, tied};

const SERVER: &str = "redis-server";
const NAME: &str = "mymaster";
/// Letters, and what has to be encoded in a URL.
const PASSWORD: &str = "of+the/sentinels";
/// Starting, finding each other and failing over take seconds; this is for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const PORT_TRIES: usize = 8;

/// What to start. Every server has the settings of `deploy/redis.conf`.
pub struct Replicated {
    /// Replicas of the primary. Default 2.
    pub replicas: usize,
    /// Default 3, of which two have to agree.
    pub sentinels: usize,
    /// Time without an answer after which a sentinel takes a server to be down. Default 1 s.
    pub down_after: Duration,
    /// More lines of configuration of every server, as (name, arguments).
    pub settings: Vec<(&'static str, String)>,
    /// Others know the first primary by the address of a proxy, so that it can be cut off from them. Default no.
    pub behind_proxy: bool,
}

impl Default for Replicated {
    fn default() -> Replicated {
        Replicated {
            replicas: 2,
            sentinels: 3,
            down_after: Duration::from_secs(1),
            settings: Vec::new(),
            behind_proxy: false,
        }
    }
}

/// Servers that replace their primary by themselves. Dropping it kills all of them.
#[derive(Debug)]
pub struct ReplicatedRedis {
    // In this order: sentinels have nothing to mend while the servers go, and the folder goes last.
    sentinels: Vec<Sentinel>,
    /// The servers; the first one begins as the primary.
    pub nodes: Vec<RedisServer>,
    /// Between the first server and all others, if it was asked for.
    pub proxy: Option<FaultProxy>,
    _scratch: Scratch,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    _process: Process,
}

impl Replicated {
    /// Starts all of them and waits until every replica follows and the sentinels know of all.
    ///
    /// # Panics
    /// If one does not start.
    pub async fn start(self) -> ReplicatedRedis {
        let scratch = scratch();
        let (first, proxy) = self.first(&scratch).await;
        let known_as = proxy.as_ref().map_or(first.port(), |proxy| proxy.addr().port());
        let mut nodes = vec![first];
        for number in 1..=self.replicas {
            let options = self.options(&scratch, number, &nodes[0], known_as);
            nodes.push(started(RedisServer::start(options).await));
        }
        let mut set = ReplicatedRedis { sentinels: Vec::new(), nodes, proxy, _scratch: scratch };
        set.replicas_online(0, self.replicas).await;
        for number in 0..self.sentinels {
            let sentinel = self.sentinel(&set, number, known_as).await;
            set.sentinels.push(started(sentinel));
        }
        set.sentinels_know(self.replicas).await;
        set
    }

    fn common(&self) -> Vec<(String, String)> {
        let mut settings = vec![("repl-diskless-sync-delay".to_owned(), "0".to_owned())];
        settings.extend(self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        settings
    }

    async fn first(&self, scratch: &Scratch) -> (RedisServer, Option<FaultProxy>) {
        let mut options = RedisOptions::new(scratch.path().join("node-0"));
        options.settings = self.common();
        // Its password is the password of all.
        let password = scratch.path().join("password");
        let password = started(private::password(&password));
        options.settings.push(("masterauth".into(), password.clone()));
        options.password = Some(password);
        let mut proxy = None;
        if self.behind_proxy {
            let port = started(free_port());
            let between = FaultProxy::start((Ipv4Addr::LOCALHOST, port).into()).await;
            options.port = Some(port);
            options.settings.push(("replica-announce-ip".into(), "127.0.0.1".into()));
            options.settings.push(("replica-announce-port".into(), between.addr().port().to_string()));
            proxy = Some(between);
        }
        (started(RedisServer::start(options).await), proxy)
    }

    fn options(&self, scratch: &Scratch, number: usize, first: &RedisServer, known_as: u16) -> RedisOptions {
        let mut options = RedisOptions::new(scratch.path().join(format!("node-{number}")));
        options.settings = self.common();
        options.settings.push(("masterauth".into(), first.password().into()));
        options.settings.push(("replicaof".into(), format!("127.0.0.1 {known_as}")));
        options.password = Some(first.password().into());
        options
    }

    async fn sentinel(&self, set: &ReplicatedRedis, number: usize, known_as: u16) -> Result<Sentinel> {
        let dir = set._scratch.path().join(format!("sentinel-{number}"));
        std::fs::create_dir_all(&dir).map_err(StackError::at("create the folder", &dir))?;
        let mut tries = 0;
        loop {
            let port = free_port()?;
            private::write(&dir.join("sentinel.conf"), &self.configuration(set, &dir, port, known_as))?;
            tries += 1;
            match launch(&dir, port).await {
                Err(error) if error.is_port_taken() && tries < PORT_TRIES => {}
                done => return done,
            }
        }
    }

    fn configuration(&self, set: &ReplicatedRedis, dir: &Path, port: u16, known_as: u16) -> String {
        let quorum = self.sentinels / 2 + 1;
        let down_after = self.down_after.as_millis();
        format!(
            "bind 127.0.0.1\nport {port}\ndir \"{}\"\nrequirepass \"{PASSWORD}\"\n\
             sentinel monitor {NAME} 127.0.0.1 {known_as} {quorum}\n\
             sentinel auth-pass {NAME} {}\n\
             sentinel down-after-milliseconds {NAME} {down_after}\n\
             sentinel failover-timeout {NAME} 6000\n\
             sentinel parallel-syncs {NAME} {}\n",
            dir.display(),
            set.nodes[0].password(),
            self.replicas.max(1),
        )
    }
}

async fn launch(dir: &Path, port: u16) -> Result<Sentinel> {
    let log = RunLog::open(&dir.join("sentinel.log"))?;
    let program = program::find(SERVER, "apt-get install redis-server")?;
    let mut command = tied::server_command(&program, "KILL", None)?;
    command.arg(dir.join("sentinel.conf")).arg("--sentinel").current_dir(dir);
    command.stdout(log.stdio()?).stderr(log.stdio()?);
    let process = Process::spawn(command)?;
    let ready = async {
        while !matches!(probe::ping(port, PASSWORD).await, Answer::Ready) && process.exited().is_none() {
            tokio::time::sleep(POLL).await;
        }
    };
    let reason = match tokio::time::timeout(PATIENCE, ready).await {
        Ok(()) => None,
        Err(_) => Some("no answer to PING".to_owned()),
    };
    let path = log.path().to_owned();
    match (process.exited(), reason) {
        (Some(status), _) => Err(StackError::Ended { server: SERVER, status, log: path, tail: log.quote() }),
        (None, Some(reason)) => Err(StackError::Silent { server: SERVER, port, waited: PATIENCE, reason, log: path }),
        (None, None) => Ok(Sentinel { port, _process: process }),
    }
}

impl ReplicatedRedis {
    /// The URL that names the sentinels. It holds passwords: do not log it.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        let (login, own) = (self.nodes[0].password(), private::percent_encode(PASSWORD));
        format!("redis+sentinel://:{login}@{}/{NAME}/0?sentinel_password={own}", hosts.join(","))
    }

    /// Where others reach a server.
    pub fn address(&self, node: usize) -> SocketAddr {
        match &self.proxy {
            Some(proxy) if node == 0 => proxy.addr(),
            _ => (Ipv4Addr::LOCALHOST, self.nodes[node].port()).into(),
        }
    }

    /// The server that all sentinels name, if they agree.
    pub async fn primary(&self) -> Option<usize> {
        let mut ports = Vec::new();
        for sentinel in &self.sentinels {
            let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
            let reply = probe::request(sentinel.port, PASSWORD, &words).await.ok()?;
            ports.push(reply.lines().filter_map(|line| line.parse::<u16>().ok()).next_back()?);
        }
        ports.dedup();
        let [port] = ports.as_slice() else { return None };
        (0..self.nodes.len()).find(|node| self.address(*node).port() == *port)
    }

    /// Waits until all sentinels name another server than `old`; gives that one.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    pub async fn promoted(&self, old: usize) -> usize {
        eventually("another server is promoted", PATIENCE, async || {
            self.primary().await.is_some_and(|primary| primary != old)
        })
        .await;
        self.primary().await.expect("they agreed a moment ago")
    }

    /// Tells the sentinels, all at once, that the primary is another server, whatever the servers say themselves.
    ///
    /// # Panics
    /// If one refuses.
    pub async fn point_at(&self, node: usize) {
        let port = self.address(node).port().to_string();
        for sentinel in &self.sentinels {
            for words in [
                &["SENTINEL", "REMOVE", NAME][..],
                &["SENTINEL", "MONITOR", NAME, "127.0.0.1", &port, "2"],
                &["SENTINEL", "SET", NAME, "auth-pass", self.nodes[0].password()],
            ] {
                let reply = probe::request(sentinel.port, PASSWORD, words).await.expect("a sentinel");
                assert!(!reply.contains("-ERR"), "{words:?}: {reply}");
            }
        }
    }

    /// Waits until the server that all sentinels name has so many replicas; gives that server.
    ///
    /// # Panics
    /// If it takes longer than two minutes: an old primary becomes a replica when the sentinels have looked at it twice.
    pub async fn settled(&self, replicas: usize) -> usize {
        let mut settled = None;
        eventually("the servers agree again", PATIENCE * 2, async || {
            settled = self.primary().await;
            match settled {
                Some(node) => self.has_replicas(node, replicas).await,
                None => false,
            }
        })
        .await;
        settled.expect("they agreed a moment ago")
    }

    async fn has_replicas(&self, node: usize, replicas: usize) -> bool {
        let reply = self.ask(node, &["INFO", "replication"]).await;
        reply.contains("role:master") && reply.matches("state=online").count() == replicas
    }

    /// Waits until so many replicas receive the writes of `node`.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    async fn replicas_online(&self, node: usize, replicas: usize) {
        eventually("the replicas follow", PATIENCE, async || self.has_replicas(node, replicas).await).await;
    }

    /// The raw reply of one server to one command; empty if there is none.
    pub async fn ask(&self, node: usize, words: &[&str]) -> String {
        let node = &self.nodes[node];
        probe::request(node.port(), node.password(), words).await.unwrap_or_default()
    }

    async fn sentinels_know(&self, replicas: usize) {
        let others = self.sentinels.len().saturating_sub(1);
        let facts = [("num-slaves", replicas), ("num-other-sentinels", others)]
            .map(|(name, n)| format!("{name}\r\n${}\r\n{n}\r\n", n.to_string().len()));
        eventually("the sentinels know of all", PATIENCE, async || {
            for sentinel in &self.sentinels {
                let about = probe::request(sentinel.port, PASSWORD, &["SENTINEL", "MASTER", NAME]).await;
                let about = about.unwrap_or_default();
                if !facts.iter().all(|fact| about.contains(fact)) {
                    return false;
                }
            }
            true
        })
        .await;
    }
}
