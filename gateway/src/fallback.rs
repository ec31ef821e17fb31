//! Somebody else who serves on the gateway's addresses what is no webhook: the API, where both run in one process.
//!
//! It has a runtime of its own, so that a slow query takes no time from webhooks, and limits of its own: of a request's body,
//! and of the time that it takes. It may take a connection of HTTP/1.1 over by an upgrade (`upgrade`).

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};

use crate::upgrade;

/// What went wrong while an answer was sent.
#[derive(Debug)]
pub struct AnswerError(pub Box<dyn Error + Send + Sync>);

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for AnswerError {}

/// The body of an answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, AnswerError>;

/// An answer that is on its way.
pub type Answering = Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>;

/// Serves what is no webhook.
pub trait Fallback: Send + Sync {
    /// Answers a request of `peer`, which may be a proxy. It may be dropped before it has ended. An answer of 101 takes the
    /// connection over, by [`hyper::upgrade::on`] the request.
    fn serve(&self, peer: IpAddr, request: Request<RequestBody>) -> Answering;
}

/// The body of a request that is served elsewhere.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    ended: Arc<AtomicBool>,
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        let ended = Arc::new(AtomicBool::new(body.is_end_stream()));
        Self { body, ended }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if self.body.is_end_stream() || matches!(frame, Poll::Ready(None)) {
            self.ended.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Has a request served, and says whether its body was read to its end.
pub(crate) async fn serve(
    fallback: &Arc<dyn Fallback>,
    peer: IpAddr,
    head: Parts,
    body: Incoming,
) -> (Response<AnswerBody>, bool) {
    let upgrades = upgrade::is_wanted(&head);
    let body = RequestBody::from(body);
    let ended = body.ended.clone();
    let request = Request::from_parts(head, body);
    let response = if upgrades {
        upgrade::serve(fallback.clone(), peer, request).await.map_or_else(not_answered, |response| {
            response.map(|body| body.map_err(|error| AnswerError(error.into())).boxed_unsync())
        })
    } else {
        fallback.serve(peer, request).await
    };
    (response, ended.load(Ordering::Relaxed))
}

fn not_answered(error: hyper::Error) -> Response<AnswerBody> {
    tracing::error!(%error, "a request for another protocol was not answered");
    let mut response = Response::new(AnswerBody::default());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
