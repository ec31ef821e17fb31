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
const LASTING: [&str; 5] = ["WRONGTYPE", "NOPERM", "WRONGPASS", "NOAUTH", "CROSSSLOT"];

impl QueueError {
    /// Classifies an error of a command that may have been sent.
    pub(super) fn from_redis(error: &RedisError) -> Self {
        let code = error.code().unwrap_or_default().to_owned();
        let text = error.detail().unwrap_or_default().to_owned();
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension if LASTING.contains(&code.as_str()) => {
                Self::Deployment(format!("Redis refuses: {code} {text}"))
            }
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused { code, text },
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => Self::Deployment(error.to_string()),
            _ => Self::Unknown(error.to_string()),
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

    /// The stream or its consumer group is gone.
    pub fn is_missing_group(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "NOGROUP")
    }
}
