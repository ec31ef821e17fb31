//! Everything that keeps a request from being accepted, and the answer to it.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use weir_core::message::MessageId;
use weir_core::queue::QueueError;
use weir_core::queue::enqueue::EnqueueError;

use crate::answer::Answer;
use crate::decode::Fault;

/// Why a request, or one message of a batch, is not accepted.
#[derive(Debug, Clone)]
pub(crate) enum Rejection {
    Malformed { detail: &'static str },
    UriTooLong { limit: usize },
    NotFound,
    Method,
    Unauthorized,
    MediaType,
    Encoding,
    TooLarge { limit: u64 },
    BodyTimeout,
    BodyBroken,
    NotJson { detail: String },
    Invalid { faults: Vec<Fault> },
    Conflict { first: MessageId },
    RateLimited { scope: &'static str, per_second: u32, burst: u32, wait: Duration },
    Unavailable { why: Unavailable, retry_after: u64 },
}

/// Why nothing can be accepted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// Redis is down, or weaker than promised.
    NotReady,
    /// Redis refused: out of memory, read-only, loading …
    Refused,
    /// Redis did not answer: the message may have been accepted or not.
    Unknown,
    /// The queue holds as much as it may.
    Backlog,
    /// Redis' memory is used up to its share.
    Memory,
    /// Too many messages between decode and answer.
    InFlight,
}

impl Unavailable {
    fn label(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Backlog => "backlog",
            Self::Memory => "memory",
            Self::InFlight => "in_flight",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::NotReady => "the queue cannot keep its promise at the moment; nothing was accepted, send it again",
            Self::Refused => "the queue cannot take messages at the moment; nothing was accepted, send it again",
            Self::Unknown => "it is not known whether the message was accepted; send it again with the same id",
            Self::Backlog => "the backlog is full; nothing was accepted, send it again later",
            Self::Memory => "the queue's memory is full; nothing was accepted, send it again later",
            Self::InFlight => "too many messages at once; nothing was accepted, send it again",
        }
    }
}

/// Every sender is told another time within half as long again, or within two seconds: those who were refused together must
/// not come back together.
fn spread(seconds: u64) -> u64 {
    rand::random_range(seconds..=seconds + (seconds / 2).max(2))
}

/// An answer in the form of RFC 9457.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
}

impl Rejection {
    /// Not accepted because of what happened at Redis; `retry_after` in seconds.
    pub(crate) fn of_queue(error: &EnqueueError, retry_after: u64) -> Self {
        let why = match error {
            EnqueueError::Full => Unavailable::Backlog,
            EnqueueError::Queue(QueueError::Unknown(_)) => Unavailable::Unknown,
            EnqueueError::Queue(QueueError::Refused { code, .. }) if code == "OOM" => Unavailable::Memory,
            EnqueueError::Queue(QueueError::Refused { .. }) => Unavailable::Refused,
            EnqueueError::Queue(QueueError::Unreachable(_) | QueueError::Deployment(_) | QueueError::Fenced) => {
                Unavailable::NotReady
            }
        };
        Self::Unavailable { why, retry_after }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } => StatusCode::BAD_REQUEST,
            Self::UriTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::MediaType | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken | Self::NotJson { .. } => StatusCode::BAD_REQUEST,
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The reason in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::UriTooLong { .. } => "uri_too_long",
            Self::NotFound => "not_found",
            Self::Method => "method",
            Self::Unauthorized => "unauthorized",
            Self::MediaType => "media_type",
            Self::Encoding => "encoding",
            Self::TooLarge { .. } => "too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBroken => "body_broken",
            Self::NotJson { .. } => "not_json",
            Self::Invalid { .. } => "invalid",
            Self::Conflict { .. } => "conflict",
            Self::RateLimited { scope: "client", .. } => "rate_client",
            Self::RateLimited { scope: "address", .. } => "rate_address",
            Self::RateLimited { .. } => "rate_source",
            Self::Unavailable { why, .. } => why.label(),
        }
    }

    fn words(&self) -> (&'static str, String) {
        match self {
            Self::Malformed { detail } => ("malformed request", (*detail).into()),
            Self::UriTooLong { limit } => ("URI too long", format!("path and query may have {limit} bytes")),
            Self::NotFound => ("not found", "there is no such path or source".into()),
            Self::Method => ("method not allowed", "messages come by POST; GET asks whether they could".into()),
            Self::Unauthorized => ("unauthorized", "the request does not prove that it comes from this source".into()),
            Self::MediaType => ("unsupported media type", "send application/json".into()),
            Self::Encoding => ("unsupported encoding", "send the body without Content-Encoding".into()),
            Self::TooLarge { limit } => ("body too large", format!("a body may have {limit} bytes")),
            Self::BodyTimeout => ("body too slow", "the body did not arrive in time".into()),
            Self::BodyBroken => ("body broken", "the body ended before its end or is badly framed".into()),
            Self::NotJson { detail } => ("not JSON", detail.clone()),
            Self::Invalid { faults } => {
                let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
                ("invalid message", format!("not valid: {}", fields.join(", ")))
            }
            Self::Conflict { .. } => ("conflict", "this id was accepted with other content".into()),
            Self::RateLimited { scope, .. } => ("too many requests", format!("the limit of this {scope} is reached")),
            Self::Unavailable { why, .. } => ("unavailable", why.detail().into()),
        }
    }

    pub(crate) fn problem(&self) -> Problem {
        let (title, detail) = self.words();
        let errors = if let Self::Invalid { faults } = self { faults.clone() } else { Vec::new() };
        let message_id = if let Self::Conflict { first } = self { Some(first.to_string()) } else { None };
        let r#type = format!("urn:weir:problem:{}", self.label().replace('_', "-"));
        Problem { r#type, title, status: self.status().as_u16(), detail, errors, message_id }
    }

    /// The answer. It is counted here.
    pub(crate) fn answer(&self) -> Answer {
        metrics::counter!("weir_refused_total", "reason" => self.label()).increment(1);
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = Answer::new(body.into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        set(CONTENT_TYPE, "application/problem+json".into());
        set(CACHE_CONTROL, "no-store".into());
        match self {
            Self::Method => set(ALLOW, "GET, HEAD, POST".into()),
            Self::RateLimited { scope, per_second, burst, wait } => {
                let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
                let window = (*burst).div_ceil(*per_second).max(1);
                set(RETRY_AFTER, seconds.to_string());
                set(HeaderName::from_static("ratelimit-policy"), format!("\"{scope}\";q={burst};w={window}"));
                set(HeaderName::from_static("ratelimit"), format!("\"{scope}\";r=0;t={seconds}"));
            }
            Self::Unavailable { retry_after, .. } => set(RETRY_AFTER, spread(*retry_after).to_string()),
            Self::Malformed { .. }
            | Self::UriTooLong { .. }
            | Self::NotFound
            | Self::Unauthorized
            | Self::MediaType
            | Self::Encoding
            | Self::TooLarge { .. }
            | Self::BodyTimeout
            | Self::BodyBroken
            | Self::NotJson { .. }
            | Self::Invalid { .. }
            | Self::Conflict { .. } => {}
        }
        response
    }
}
