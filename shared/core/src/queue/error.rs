use redis::{ErrorKind, RedisError};

/// What can go wrong between us and Redis. Texts hold no data of messages.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// No connection could be made: nothing was sent.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(String),
    /// Redis refused before it wrote anything: out of memory, loading, read-only, no replicas …
    #[error("Redis refuses: {code} {text}")]
    Refused {
        /// The error's first word, such as `OOM`.
        code: String,
        /// The rest.
        text: String,
    },
    /// The connection broke or the time was over after something was sent: it may have been done or not.
    #[error("Redis did not answer: {0}")]
    Unknown(String),
    /// Not a fault that passes by itself: another layout, a key of a wrong type, no permission.
    #[error("{0}")]
    Deployment(String),
    /// The caller has lost its lease; others have its entries.
    #[error("the lease is lost, other workers have taken over")]
    Fenced,
}

/// Refusals that no waiting cures.
const LASTING: [&str; 4] = ["WRONGTYPE", "NOPERM", "WRONGPASS", "NOAUTH"];

/// What only a node of a Redis Cluster says.
const CLUSTER: [&str; 5] = ["MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN", "TRYAGAIN"];

/// What a server says that is a replica, or has just become one.
const DEMOTED: [&str; 3] = ["READONLY", "UNBLOCKED", "MASTERDOWN"];

/// Why a node of a Redis Cluster is of no use to who takes it for a server of its own, and the way out.
pub(super) const NO_CLUSTER: &str = "the server is a node of a Redis Cluster, and redis.url does not say so; \
                                     write redis-cluster://host:port,host:port/, or rediss-cluster:// for TLS";

/// What ends a handshake, as rustls words it, and what to do. The first that fits counts.
const HANDSHAKE: [(&str, &str); 4] = [
    ("certificate not valid for name", "use a host name in redis.url that the server's certificate holds"),
    ("invalid peer certificate: Expired", "the server needs a new certificate"),
    ("invalid peer certificate", "name the file with its authority's certificate: redis.ca, WEIR_REDIS_CA"),
    ("fatal alert: CertificateRequired", "Weir has no certificate of its own: set tls-auth-clients no at the server"),
];

impl QueueError {
    /// Classifies an error of a command that may have been sent.
    pub(super) fn from_redis(error: &RedisError) -> Self {
        let code = error.code().unwrap_or_default().to_owned();
        let text = error.detail().unwrap_or_default().to_owned();
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension if CLUSTER.contains(&code.as_str()) => {
                Self::Deployment(format!("Redis refuses: {code}: {NO_CLUSTER}"))
            }
            ErrorKind::Server(_) | ErrorKind::Extension if LASTING.contains(&code.as_str()) => {
                Self::Deployment(format!("Redis refuses: {code} {text}"))
            }
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused { code, text },
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => Self::Deployment(error.to_string()),
            _ => Self::Unknown(error.to_string()),
        }
    }

    /// The same where nodes of a Redis Cluster are expected: what they say of slots is no mistake, and nothing was done.
    pub(super) fn from_cluster(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::Server(_), Some(code)) if CLUSTER.contains(&code) && code != "CROSSSLOT" => {
                Self::Refused { code: code.to_owned(), text: error.detail().unwrap_or_default().to_owned() }
            }
            (ErrorKind::Server(_), Some("CROSSSLOT")) => {
                Self::Deployment(format!("Redis refuses: {error}; a bug, please report it"))
            }
            _ => Self::from_redis(error),
        }
    }

    /// No connection was made. Over TLS the reason may be one that no waiting cures.
    pub(super) fn unreachable(text: String) -> Self {
        match HANDSHAKE.iter().find(|(reason, _)| text.contains(reason)) {
            Some((_, way_out)) => Self::Deployment(format!("Redis cannot be trusted: {text}; {way_out}")),
            None => Self::Unreachable(text),
        }
    }

    /// A reply that does not have the shape we expect.
    pub(super) fn reply(error: &impl std::fmt::Display) -> Self {
        Self::Deployment(format!("Redis answers in a form we do not know: {error}"))
    }

    /// The function library is not loaded.
    pub(super) fn is_missing_function(&self) -> bool {
        matches!(self, Self::Refused { text, .. } if text.contains("Function not found"))
    }

    /// The server is no primary (any more).
    pub(super) fn is_demotion(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if DEMOTED.contains(&code.as_str()))
    }

    /// The stream or its consumer group is gone.
    pub fn is_missing_group(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "NOGROUP")
    }
}
