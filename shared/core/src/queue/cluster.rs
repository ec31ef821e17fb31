//! A Redis Cluster: which of its primaries has which slot, as far as we know.
//!
//! `redis-cluster://user:password@host:7000,host:7001/` names some of its nodes, whose login is that of all;
//! `rediss-cluster` speaks TLS with them. Nodes name each other: over TLS by names that their certificates hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline, Value};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::link::open;
use super::slots::{SlotMap, slot_of_meta};
use super::{QueueError, Roots};

/// Time that a node has to say who has which slot, connecting included.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two questions of those who cannot reach a primary.
const REST: Duration = Duration::from_millis(500);

const PORT: u16 = 6379;

/// What the links of a queue share about its cluster.
pub(super) struct Cluster {
    /// The nodes that the URL names, with login and TLS of all.
    seeds: Vec<ConnectionInfo>,
    map: SyncMutex<SlotMap>,
    /// Primaries that did not answer when they were looked at, and why: nothing is sent to them until they do.
    away: SyncMutex<HashMap<Arc<str>, String>>,
    /// When the nodes were asked last; held while they are.
    asked: Mutex<Option<Instant>>,
}

/// What one node knows.
struct Told {
    /// Whether it belongs to the majority, and every slot that has to be is served.
    is_ok: bool,
    /// Grows with every failover and every slot that moves.
    epoch: u64,
    map: SlotMap,
}

impl Cluster {
    /// Reads what follows the scheme, which is `redis` or `rediss`.
    ///
    /// # Errors
    /// What is wrong with it, without anything secret.
    pub(super) fn of(scheme: &str, rest: &str) -> Result<Self, String> {
        const LIKE: &str = "it looks like redis-cluster://user:password@host:7000,host:7001/";
        let (rest, fragment) = rest.split_once('#').map_or((rest, String::new()), |(rest, f)| (rest, format!("#{f}")));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(database, "" | "0") {
            return Err("a Redis Cluster has one database only, and its URL no query: end it with the servers".into());
        }
        let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
        let at = if login.is_empty() { "" } else { "@" };
        let seed = |host: &str| {
            let url = format!("{scheme}://{login}{at}{}/0{fragment}", with_port(host));
            url.into_connection_info().map_err(|_| LIKE.to_owned())
        };
        let seeds = hosts.split(',').map(seed).collect::<Result<_, _>>()?;
        Ok(Self::new(seeds))
    }

    fn new(seeds: Vec<ConnectionInfo>) -> Self {
        Self { seeds, map: SyncMutex::default(), away: SyncMutex::default(), asked: Mutex::default() }
    }

    /// The same, believing these authorities where TLS is spoken.
    pub(super) fn guarded(&self, roots: &Roots) -> Result<Self, QueueError> {
        Ok(Self::new(self.seeds.iter().map(|info| roots.guard(info.clone())).collect::<Result<_, _>>()?))
    }

    fn map(&self) -> MutexGuard<'_, SlotMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self) -> MutexGuard<'_, HashMap<Arc<str>, String>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The primary of a slot as last heard of. The nodes are only asked while nobody is known to have it.
    ///
    /// # Errors
    /// When no node answers or none has the slot: nothing was sent.
    pub(super) async fn owner(&self, slot: u16) -> Result<Arc<str>, QueueError> {
        if let Some(owner) = self.known_owner(slot) {
            return Ok(owner);
        }
        self.refresh().await?;
        self.known_owner(slot).ok_or_else(|| QueueError::Refused {
            code: "CLUSTERDOWN".into(),
            text: format!("no primary has slot {slot}; see `redis-cli --cluster check`"),
        })
    }

    pub(super) fn known_owner(&self, slot: u16) -> Option<Arc<str>> {
        self.map().owner(slot)
    }

    /// All primaries that have slots.
    ///
    /// # Errors
    /// When no node answers.
    pub(super) async fn primaries(&self) -> Result<Vec<Arc<str>>, QueueError> {
        if self.map().is_empty() {
            self.refresh().await?;
        }
        Ok(self.map().primaries())
    }

    /// How to connect to a node.
    pub(super) fn info(&self, address: &str) -> ConnectionInfo {
        let seed = &self.seeds[0];
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        seed.clone().set_addr(at(seed.addr(), host, port.parse().unwrap_or(PORT)))
    }

    /// What concerns no partition is asked there.
    pub(super) async fn meta(&self) -> Result<Arc<str>, QueueError> {
        self.owner(slot_of_meta()).await
    }

    /// A node said where a slot has gone.
    pub(super) fn moved(&self, slot: u16, to: &str) {
        tracing::debug!(slot, to, "a slot has another primary");
        self.map().set(slot, to);
    }

    /// Nothing is sent to a primary that is known not to answer.
    ///
    /// # Errors
    /// When this one is.
    pub(super) fn is_there(&self, address: &str) -> Result<(), QueueError> {
        match self.away().get(address) {
            Some(reason) => Err(QueueError::Unreachable(format!("{address} is away: {reason}"))),
            None => Ok(()),
        }
    }

    /// Notes whether a primary answers.
    pub(super) fn note(&self, address: &Arc<str>, trouble: Option<&QueueError>) {
        match trouble {
            Some(error) => drop(self.away().insert(address.clone(), error.to_string())),
            None => drop(self.away().remove(address)),
        }
    }

    /// Whether it is one of the primaries, as far as we know.
    pub(super) fn has(&self, address: &str) -> bool {
        self.map().has(address)
    }

    /// Asks the nodes who has which slot. Who comes while somebody asks waits for that answer.
    ///
    /// # Errors
    /// When no node answers.
    pub(super) async fn refresh(&self) -> Result<(), QueueError> {
        self.refresh_since(Instant::now()).await
    }

    /// The same, unless they were asked a moment ago: for everybody who cannot reach a primary, again and again.
    ///
    /// # Errors
    /// When no node answers.
    pub(super) async fn refresh_now_and_then(&self) -> Result<(), QueueError> {
        let now = Instant::now();
        self.refresh_since(now.checked_sub(REST).unwrap_or(now)).await
    }

    async fn refresh_since(&self, since: Instant) -> Result<(), QueueError> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at > since) && !self.map().is_empty() {
            return Ok(());
        }
        let told = self.ask_all().await;
        *asked = Some(Instant::now());
        let told = told?;
        let (before, now) = (self.map().primaries(), told.map.primaries());
        if before != now {
            tracing::info!(primaries = ?now, "the primaries of the cluster");
        }
        self.away().retain(|address, _| now.contains(address));
        *self.map() = told.map;
        Ok(())
    }

    /// Asks all at once and believes the newest answer of a majority: a node that was cut off knows of no failover since,
    /// and one that has just joined of few slots.
    async fn ask_all(&self) -> Result<Told, QueueError> {
        let nodes = self.nodes();
        let (count, mut asked) = (nodes.len(), JoinSet::new());
        for (address, info) in nodes {
            asked.spawn(ask(address, info));
        }
        let (mut answers, mut reason) = (Vec::new(), None);
        while let Some(answer) = asked.join_next().await {
            match answer.unwrap_or_else(|error| Err(QueueError::Unreachable(error.to_string()))) {
                Ok(told) => answers.push(told),
                Err(error) => reason = Some(error),
            }
            if answers.len() * 2 > count {
                break;
            }
        }
        match answers.into_iter().max_by_key(|told| (told.is_ok, told.epoch, told.map.assigned())) {
            Some(told) => Ok(told),
            None => Err(reason.unwrap_or_else(|| QueueError::Unreachable("no node of the cluster answers".into()))),
        }
    }

    /// Those that the URL names and those that are the primaries, each once.
    fn nodes(&self) -> BTreeMap<String, ConnectionInfo> {
        let primaries = self.map().primaries();
        let known = primaries.iter().map(|address| (address.to_string(), self.info(address)));
        self.seeds.iter().map(|seed| (seed.addr().to_string(), seed.clone())).chain(known).collect()
    }
}

/// The same way to another server.
fn at(addr: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    let mut addr = addr.clone();
    match &mut addr {
        ConnectionAddr::Tcp(old_host, old_port) | ConnectionAddr::TcpTls { host: old_host, port: old_port, .. } => {
            (*old_host, *old_port) = (host.to_owned(), port);
        }
        _ => {}
    }
    addr
}

fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok() && !host.ends_with(']'));
    if has_port { host.to_owned() } else { format!("{host}:{PORT}") }
}

/// Asks one node.
async fn ask(address: String, info: ConnectionInfo) -> Result<Told, QueueError> {
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned();
    let told = match tokio::time::timeout(PATIENCE, exchange(info)).await {
        Ok(Ok(replies)) => read(&replies, &host),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(QueueError::Unreachable(format!("no answer within {PATIENCE:?}"))),
    };
    told.map_err(|error| match error {
        QueueError::Deployment(text) => QueueError::Deployment(format!("node {address}: {text}")),
        error => QueueError::Unreachable(format!("node {address}: {error}")),
    })
}

async fn exchange(info: ConnectionInfo) -> Result<Vec<redis::RedisResult<Value>>, QueueError> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    let mut connection = open(info, &config).await?;
    let mut both = Pipeline::new();
    both.cmd("CLUSTER").arg("SLOTS");
    both.cmd("CLUSTER").arg("INFO");
    both.ignore_errors().query_async(&mut connection).await.map_err(|error| QueueError::from_redis(&error))
}

/// The slots come from the first reply; how new that is from the second, as 0 for who may not ask.
fn read(replies: &[redis::RedisResult<Value>], host: &str) -> Result<Told, QueueError> {
    let map = match replies.first() {
        Some(Ok(reply)) => SlotMap::read(reply, host).ok_or_else(|| QueueError::reply(&"cluster slots"))?,
        Some(Err(error)) if error.to_string().contains("cluster support disabled") => {
            let text = "it is no node of a Redis Cluster; write redis://, or rediss:// for TLS, in redis.url";
            return Err(QueueError::Deployment(text.into()));
        }
        Some(Err(error)) => return Err(QueueError::from_redis(error)),
        None => return Err(QueueError::reply(&"cluster slots")),
    };
    let about = match replies.get(1) {
        Some(Ok(value)) => redis::from_redis_value_ref::<String>(value).unwrap_or_default(),
        _ => String::new(),
    };
    let field = |name: &str| about.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let epoch = field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or_default();
    Ok(Told { is_ok: field("cluster_state") == Some("ok"), epoch, map })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_nodes_with_the_login_of_all() {
        let cluster = Cluster::of("rediss", "u:p%40ss@a:1,b,[::1]:3/#insecure").unwrap();
        let hosts: Vec<_> = cluster.seeds.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(hosts, ["a:1", "b:6379", "::1:3"]);
        let other = cluster.info("10.0.0.7:6380");
        assert!(
            matches!(other.addr(), ConnectionAddr::TcpTls { host, port: 6380, insecure: true, .. } if host == "10.0.0.7")
        );
        let login = other.redis_settings();
        assert_eq!((login.username(), login.password(), login.db()), (Some("u"), Some("p@ss"), 0));
        assert_eq!(cluster.info("::1:7").addr().to_string(), "::1:7");
        assert_eq!(Cluster::of("redis", "a").unwrap().seeds[0].redis_settings().password(), None);
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_secrets() {
        for rest in [":hunter2@a:1/1", ":hunter2@a:1/0?x=hunter2", ":hunter2@,a/", ":hunter2@a:x y/"] {
            let Err(error) = Cluster::of("redis", rest) else { panic!("{rest} is none") };
            assert!(!error.contains("hunter2") && error.len() > 20, "{error}");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_primary_that_does_not_answer() {
        let cluster = Cluster::of("redis", "a:1").unwrap();
        let address: Arc<str> = "a:1".into();
        cluster.is_there(&address).unwrap();
        cluster.note(&address, Some(&QueueError::Unknown("silent".into())));
        assert!(
            matches!(cluster.is_there(&address), Err(QueueError::Unreachable(text)) if text.contains("a:1 is away"))
        );
        cluster.note(&address, None);
        cluster.is_there(&address).unwrap();
    }
}
