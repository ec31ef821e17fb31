//! Everything that keeps a request from being done, and the answer to it.

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use weir_core::queue::QueueError;
use weir_store::{Class, Role, StoreError};

/// Why a request is not done.
#[derive(Debug, Clone)]
pub(crate) enum Problem {
    /// The request itself cannot be read.
    Malformed { detail: String },
    /// Nobody said who asks, or it is not true.
    Unauthorized { detail: &'static str },
    /// The caller may not.
    Forbidden { needs: Role },
    /// There is no such path.
    NoPath,
    /// There is no such thing; what, in words.
    NotFound { detail: String },
    /// The path knows other methods.
    Method,
    /// The body is no JSON by its own account.
    MediaType,
    /// The body is larger than allowed.
    TooLarge { limit: u64 },
    /// Fields that are not as they should be.
    Invalid { faults: Vec<Fault> },
    /// It took too long.
    Timeout,
    /// PostgreSQL or Redis is away.
    Unavailable { detail: &'static str },
    /// A bug, or a deployment that does not fit. Logged where it was found.
    Internal,
}

/// A field that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Fault {
    /// Its name, with its way from the top: `items[3].name`.
    #[schema(example = "limit")]
    pub(crate) field: String,
    /// For programs: `missing`, `unknown`, `duplicate`, `invalid` …
    #[schema(example = "invalid")]
    pub(crate) code: &'static str,
    /// For people.
    #[schema(example = "is not between 1 and 1000")]
    pub(crate) message: String,
}

/// An answer in the form of RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// Names the kind of problem.
    #[schema(example = "urn:weir:problem:invalid")]
    r#type: String,
    /// The kind of problem, for people.
    #[schema(example = "invalid request")]
    title: &'static str,
    /// The status of the answer.
    #[schema(example = 422)]
    status: u16,
    /// What is wrong this time, and what to do.
    #[schema(example = "not valid: limit")]
    detail: String,
    /// What is wrong with which field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<Fault>,
}

impl Problem {
    /// One field that is not as it should be.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { faults: vec![Fault { field: field.into(), code: "invalid", message: message.into() }] }
    }

    /// There is no such thing.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::NotFound { detail: detail.into() }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::NoPath | Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The last part of its type.
    fn label(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::NoPath | Self::NotFound { .. } => "not-found",
            Self::Method => "method",
            Self::MediaType => "media-type",
            Self::TooLarge { .. } => "too-large",
            Self::Invalid { .. } => "invalid",
            Self::Timeout => "timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal => "internal",
        }
    }

    fn words(&self) -> (&'static str, String) {
        match self {
            Self::Malformed { detail } => ("malformed request", detail.clone()),
            Self::Unauthorized { detail } => ("unauthorized", (*detail).into()),
            Self::Forbidden { needs } => ("forbidden", format!("this needs a key of the role {needs} or above")),
            Self::NoPath => ("not found", "there is no such path; /openapi.json names those that are".into()),
            Self::NotFound { detail } => ("not found", detail.clone()),
            Self::Method => ("method not allowed", "this path knows other methods; see Allow".into()),
            Self::MediaType => ("unsupported media type", "send application/json without Content-Encoding".into()),
            Self::TooLarge { limit } => ("body too large", format!("a body may have {limit} bytes")),
            Self::Invalid { faults } => {
                let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
                ("invalid request", format!("not valid: {}", fields.join(", ")))
            }
            Self::Timeout => ("timeout", "this took too long; whether it was done is not known".into()),
            Self::Unavailable { detail } => ("unavailable", (*detail).into()),
            Self::Internal => ("internal error", "this is a fault of the server; its log says more".into()),
        }
    }

    /// All of it in one sentence, for who gets no JSON.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Invalid { faults } => {
                let faults: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.field, fault.message)).collect();
                faults.join("; ")
            }
            _ => self.words().1,
        }
    }

    fn body(&self) -> ProblemBody {
        let (title, detail) = self.words();
        let errors = if let Self::Invalid { faults } = self { faults.clone() } else { Vec::new() };
        let r#type = format!("urn:weir:problem:{}", self.label());
        ProblemBody { r#type, title, status: self.status().as_u16(), detail, errors }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
        set(CONTENT_TYPE, "application/problem+json");
        match &self {
            Self::Unauthorized { .. } => drop(set(WWW_AUTHENTICATE, "Bearer realm=\"weir\"")),
            Self::Timeout | Self::Unavailable { .. } => drop(set(RETRY_AFTER, "5")),
            Self::Malformed { .. }
            | Self::Forbidden { .. }
            | Self::NoPath
            | Self::NotFound { .. }
            | Self::Method
            | Self::MediaType
            | Self::TooLarge { .. }
            | Self::Invalid { .. }
            | Self::Internal => {}
        }
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        (self.status(), headers, body).into_response()
    }
}

/// A path that does not know the method. The router adds which it knows.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::Method
}

/// A path that nobody knows.
pub(crate) async fn no_path() -> Problem {
    Problem::NoPath
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error.class {
            Class::Dependency => {
                tracing::warn!(%error, "PostgreSQL");
                Self::Unavailable { detail: "the database does not answer at the moment; try again" }
            }
            // NUL, a number out of range: the resource should have found it, but the caller can mend it all the same.
            Class::Message => {
                tracing::debug!(%error, "a value that PostgreSQL refuses");
                Self::invalid("request", "holds a value that cannot be stored or looked for, such as the character NUL")
            }
            Class::Deployment | Class::Batch | Class::Damage => {
                tracing::error!(%error, "PostgreSQL");
                Self::Internal
            }
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        tracing::warn!(%error, "Redis");
        Self::Unavailable { detail: "the queue does not answer at the moment; try again" }
    }
}
