//! The answers to requests that are not refused.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use weir_core::queue::server::Durability;

use crate::fallback::{AnswerBody, AnswerError};
use crate::rejection::{Problem, Rejection};

/// An answer of ours, or of who serves the rest of the paths.
pub(crate) type Answer = Response<Reply>;

/// The body of an answer.
pub(crate) enum Reply {
    Ours(Full<Bytes>),
    Theirs(AnswerBody),
}

impl From<Vec<u8>> for Reply {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Ours(Full::new(Bytes::from(bytes)))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            Self::Ours(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Theirs(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ours(body) => body.is_end_stream(),
            Self::Theirs(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(body) => body.size_hint(),
            Self::Theirs(body) => body.size_hint(),
        }
    }
}

/// The answer to the question whether a message could be accepted.
#[derive(Serialize)]
pub(crate) struct Ready {
    pub(crate) status: &'static str,
    pub(crate) durability: Durability,
}

/// The answer to a webhook that was looked at and not taken, as its sender may know.
#[derive(Serialize)]
pub(crate) struct NotTaken {
    pub(crate) status: &'static str,
    pub(crate) reason: &'static str,
}

impl NotTaken {
    pub(crate) fn because(reason: &'static str) -> Self {
        Self { status: "ignored", reason }
    }
}

/// The answer to several updates that came together, once all that could be read are safe.
#[derive(Serialize)]
pub(crate) struct Updates {
    pub(crate) status: &'static str,
    pub(crate) accepted: usize,
    pub(crate) duplicates: usize,
    pub(crate) ignored: usize,
}

/// The answer to a message that is safe.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) status: &'static str,
    pub(crate) message_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durability: Option<Durability>,
}

impl Outcome {
    pub(crate) fn code(&self) -> StatusCode {
        if self.durability.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK }
    }
}

/// An answer for each message of a batch, in their order.
#[derive(Serialize)]
pub(crate) struct BatchAnswer {
    pub(crate) results: Vec<ItemAnswer>,
}

/// The answer to one message of a batch: the status it would have got alone, and the same body.
#[derive(Serialize)]
pub(crate) struct ItemAnswer {
    pub(crate) code: u16,
    #[serde(flatten)]
    body: ItemBody,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ItemBody {
    Safe(Outcome),
    Problem { status: &'static str, problem: Problem },
}

impl From<Result<Outcome, Rejection>> for ItemAnswer {
    fn from(result: Result<Outcome, Rejection>) -> Self {
        match result {
            Ok(outcome) => Self { code: outcome.code().as_u16(), body: ItemBody::Safe(outcome) },
            Err(rejection) => {
                metrics::counter!("weir_refused_total", "reason" => rejection.label()).increment(1);
                let problem = rejection.problem();
                Self { code: rejection.status().as_u16(), body: ItemBody::Problem { status: "rejected", problem } }
            }
        }
    }
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Reply::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
