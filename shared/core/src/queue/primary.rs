//! Where the primary is: at an address that does not change, or where the sentinels say. For the many of a Redis Cluster
//! see `cluster.rs`.
//!
//! `redis+sentinel://user:password@host:26379,host:26379/mymaster/0?sentinel_user=…&sentinel_password=…` names the
//! sentinels, what they call the primary, its database and its login; `rediss+sentinel` speaks TLS with all of them.

use std::sync::Arc;
use std::time::Duration;

use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline, Value};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::link::open;
use super::{QueueError, Roots};

/// Time that a sentinel has for its whole answer, connecting included.
const PATIENCE: Duration = Duration::from_secs(1);

const SENTINEL_PORT: &str = "26379";

/// Where the primary is to be found.
pub(super) enum Whereabouts {
    /// At the address of the URL.
    Fixed(ConnectionInfo),
    /// Where the sentinels say.
    Sentinels(Sentinels),
    /// There are several, each with a part of the keys.
    Cluster(Arc<Cluster>),
}

/// Servers that watch a primary and its replicas, and agree on who the primary is.
pub(super) struct Sentinels {
    sentinels: Vec<ConnectionInfo>,
    /// What they call the primary.
    name: String,
    /// Login, database and TLS of the primary, at the address of a sentinel.
    primary: ConnectionInfo,
}

/// A sentinel and where it sees the primary.
#[derive(Debug)]
pub struct Seen {
    /// The sentinel's address.
    pub sentinel: String,
    /// The primary's address, or why it says nothing.
    pub primary: Result<String, QueueError>,
}

/// What one sentinel knows: the address, and how new that is.
struct Named {
    host: String,
    port: u16,
    epoch: u64,
}

impl Whereabouts {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, without anything secret.
    pub(super) fn of(url: &str) -> Result<Self, String> {
        if let Some((scheme, rest)) = url.split_once("+sentinel://") {
            return Sentinels::of(scheme, rest).map(Self::Sentinels);
        }
        match url.split_once("-cluster://") {
            Some((scheme, rest)) => Cluster::of(scheme, rest).map(|cluster| Self::Cluster(Arc::new(cluster))),
            None => url.into_connection_info().map(Self::Fixed).map_err(|_| "it looks like redis://host:6379/0".into()),
        }
    }

    /// The same, believing these authorities where TLS is spoken.
    pub(super) fn guarded(self, roots: &Roots) -> Result<Self, QueueError> {
        match self {
            Self::Fixed(info) => roots.guard(info).map(Self::Fixed),
            Self::Sentinels(Sentinels { sentinels, name, primary }) => {
                let sentinels = sentinels.into_iter().map(|info| roots.guard(info)).collect::<Result<_, _>>()?;
                Ok(Self::Sentinels(Sentinels { sentinels, name, primary: roots.guard(primary)? }))
            }
            Self::Cluster(cluster) => Ok(Self::Cluster(Arc::new(cluster.guarded(roots)?))),
        }
    }

    /// Where the primary is now; of a cluster, the one that answers for all.
    ///
    /// # Errors
    /// When no sentinel knows.
    pub(super) async fn primary(&self) -> Result<ConnectionInfo, QueueError> {
        match self {
            Self::Fixed(info) => Ok(info.clone()),
            Self::Sentinels(sentinels) => sentinels.primary().await,
            Self::Cluster(cluster) => Ok(cluster.info(&cluster.meta().await?)),
        }
    }

    /// The address comes from sentinels.
    pub(super) fn may_change(&self) -> bool {
        matches!(self, Self::Sentinels(_))
    }

    /// What each sentinel says; empty without sentinels.
    pub(super) async fn seen(&self) -> Vec<Seen> {
        let Self::Sentinels(Sentinels { sentinels, name, .. }) = self else { return Vec::new() };
        let mut seen = Vec::new();
        for sentinel in sentinels {
            let primary =
                ask(sentinel.clone(), name.clone()).await.map(|named| format!("{}:{}", named.host, named.port));
            seen.push(Seen { sentinel: sentinel.addr().to_string(), primary });
        }
        seen
    }
}

impl Sentinels {
    fn of(scheme: &str, rest: &str) -> Result<Self, String> {
        const LIKE: &str = "it looks like redis+sentinel://host:26379,host:26379/mymaster/0";
        let (rest, fragment) = rest.split_once('#').map_or((rest, String::new()), |(rest, f)| (rest, format!("#{f}")));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').ok_or(LIKE)?;
        let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
        let (name, database) = path.split_once('/').unwrap_or((path, "0"));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(plain) || database.parse::<u16>().is_err() {
            return Err(LIKE.into());
        }
        let sentinel_login = sentinel_login(query)?;
        let read = |login: &str, host: &str, database: &str| {
            let at = if login.is_empty() { "" } else { "@" };
            let url = format!("{scheme}://{login}{at}{}/{database}{fragment}", with_port(host));
            url.into_connection_info().map_err(|_| LIKE.to_owned())
        };
        let sentinels = hosts.split(',').map(|host| read(&sentinel_login, host, "0")).collect::<Result<Vec<_>, _>>()?;
        let primary = read(login, hosts.split(',').next().unwrap_or_default(), database)?;
        Ok(Self { sentinels, name: name.to_owned(), primary })
    }

    /// Asks all of them at once and believes the newest answer of a majority: one that was cut off together with an old
    /// primary still names that one. Without a majority whoever answers is better than nobody.
    async fn primary(&self) -> Result<ConnectionInfo, QueueError> {
        let mut asked = JoinSet::new();
        for sentinel in &self.sentinels {
            asked.spawn(ask(sentinel.clone(), self.name.clone()));
        }
        let (mut answers, mut reason) = (Vec::new(), None);
        while let Some(answer) = asked.join_next().await {
            match answer.unwrap_or_else(|error| Err(QueueError::Unreachable(error.to_string()))) {
                Ok(named) => answers.push(named),
                Err(error) => reason = Some(error),
            }
            if answers.len() * 2 > self.sentinels.len() {
                break;
            }
        }
        match answers.into_iter().max_by_key(|named| named.epoch) {
            Some(named) => Ok(self.at(named)),
            None => Err(reason.unwrap_or_else(|| QueueError::Unreachable("no sentinel answers".into()))),
        }
    }

    fn at(&self, named: Named) -> ConnectionInfo {
        let mut addr = self.primary.addr().clone();
        match &mut addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (*host, *port) = (named.host, named.port);
            }
            _ => {}
        }
        self.primary.clone().set_addr(addr)
    }
}

fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok() && !host.ends_with(']'));
    if has_port { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") }
}

/// `user:password` of the sentinels, percent-encoded, out of a query.
fn sentinel_login(query: &str) -> Result<String, String> {
    let (mut user, mut password) = (String::new(), None);
    for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")))
    {
        match name {
            "sentinel_user" => user = encoded(value),
            "sentinel_password" => password = Some(encoded(value)),
            _ => return Err("its query may have sentinel_user and sentinel_password, nothing else".into()),
        }
    }
    Ok(password.map_or(user.clone(), |password| format!("{user}:{password}")))
}

/// What a query may hold and a login may not, percent-encoded; what is encoded already stays.
fn encoded(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'%' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Asks one sentinel.
async fn ask(sentinel: ConnectionInfo, name: String) -> Result<Named, QueueError> {
    let address = sentinel.addr().to_string();
    let named = match tokio::time::timeout(PATIENCE, exchange(sentinel, &name)).await {
        Ok(Ok(reply)) => read(&reply).ok_or_else(|| {
            QueueError::Deployment(format!("it knows no primary called {name}; correct the URL or its configuration"))
        }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(QueueError::Unreachable(format!("no answer within {PATIENCE:?}"))),
    };
    named.map_err(|error| match error {
        QueueError::Deployment(text) => QueueError::Deployment(format!("sentinel {address}: {text}")),
        error => QueueError::Unreachable(format!("sentinel {address}: {error}")),
    })
}

async fn exchange(sentinel: ConnectionInfo, name: &str) -> Result<Vec<redis::RedisResult<Value>>, QueueError> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    let mut connection = open(sentinel, &config).await?;
    let mut both = Pipeline::new();
    both.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    both.cmd("SENTINEL").arg("MASTER").arg(name);
    both.ignore_errors().query_async(&mut connection).await.map_err(|error| QueueError::from_redis(&error))
}

/// The address comes from the first reply, which tells of a new primary before the second does; the epoch from the
/// second, as 0 for who may not ask.
fn read(replies: &[redis::RedisResult<Value>]) -> Option<Named> {
    let words = |at: usize| -> Vec<String> {
        match replies.get(at) {
            Some(Ok(value)) => redis::from_redis_value_ref(value).unwrap_or_default(),
            _ => Vec::new(),
        }
    };
    let address = words(0);
    let [host, port] = address.as_slice() else { return None };
    let about = words(1);
    let epoch = about.chunks_exact(2).find(|pair| pair[0] == "config-epoch").and_then(|pair| pair[1].parse().ok());
    Some(Named { host: host.clone(), port: port.parse().ok()?, epoch: epoch.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinels(url: &str) -> Sentinels {
        match Whereabouts::of(url) {
            Ok(Whereabouts::Sentinels(sentinels)) => sentinels,
            Ok(Whereabouts::Fixed(_) | Whereabouts::Cluster(_)) => panic!("{url} names no sentinels"),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    #[test]
    fn a_url_names_sentinels_the_primary_and_both_logins() {
        let url =
            "rediss+sentinel://u:p%40ss@a:1,b,[::1]:3/my-master/2?sentinel_user=s&sentinel_password=p@%3a+x#insecure";
        let found = sentinels(url);
        let hosts: Vec<_> = found.sentinels.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(hosts, ["a:1", "b:26379", "::1:3"]);
        for sentinel in &found.sentinels {
            let login = sentinel.redis_settings();
            assert_eq!((login.username(), login.password(), login.db()), (Some("s"), Some("p@:+x"), 0));
        }
        assert_eq!(found.name, "my-master");
        let primary = found.at(Named { host: "10.0.0.7".into(), port: 6380, epoch: 1 });
        assert!(
            matches!(primary.addr(), ConnectionAddr::TcpTls { host, port: 6380, insecure: true, .. } if host == "10.0.0.7")
        );
        let login = primary.redis_settings();
        assert_eq!((login.username(), login.password(), login.db()), (Some("u"), Some("p@ss"), 2));
    }

    #[test]
    fn logins_and_database_may_be_left_out() {
        let found = sentinels("redis+sentinel://a/m");
        assert_eq!(found.sentinels[0].redis_settings().password(), None);
        assert_eq!((found.primary.redis_settings().password(), found.primary.redis_settings().db()), (None, 0));
        let found = sentinels("redis+sentinel://:pw@a/m?sentinel_password=other");
        assert_eq!(found.sentinels[0].redis_settings().password(), Some("other"));
        assert_eq!(found.primary.redis_settings().password(), Some("pw"));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_secrets() {
        for url in [
            "redis+sentinel://:hunter2@a:1",
            "redis+sentinel://:hunter2@a:1/",
            "redis+sentinel://:hunter2@a:1/m/x",
            "redis+sentinel://:hunter2@,a/m",
            "http+sentinel://:hunter2@a/m",
            "redis+sentinel://:hunter2@a/m?password=hunter2",
            "redis://:hunter2@/x y",
            "redis-cluster://:hunter2@a:1/1",
            "http-cluster://:hunter2@a:1/",
        ] {
            let Err(error) = Whereabouts::of(url) else { panic!("{url} is none") };
            assert!(!error.contains("hunter2") && error.len() > 20, "{error}");
        }
    }
}
