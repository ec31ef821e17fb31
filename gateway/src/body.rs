//! Reading a body: all of it, in time, at a pace, within what it may take of memory.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming};

use crate::limit::Held;
use crate::rejection::Rejection;

/// How long a body may take before its rate counts.
const START: Duration = Duration::from_secs(3);

/// How fast a body has to come.
pub(crate) struct Pace {
    pub(crate) started: Instant,
    /// For all of it.
    pub(crate) limit: Duration,
    /// Bytes a second; 0 is any.
    pub(crate) rate: u64,
}

impl Pace {
    /// Until when more has to come than these bytes.
    fn deadline(&self, bytes: usize) -> Instant {
        if self.rate == 0 {
            return self.started + self.limit;
        }
        let earned = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.started + (START + earned).min(self.limit)
    }
}

/// The whole body, or none if there is no memory for it. A body of one frame is neither copied nor counted.
pub(crate) async fn collect(
    body: &mut Incoming,
    limit: u64,
    pace: Pace,
    held: &mut Held,
) -> Result<Option<Bytes>, Rejection> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let by = pace.deadline(first.len() + rest.len());
        let Some(frame) = next_frame(body, by).await? else { break };
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length as u64 > limit {
            return Err(Rejection::TooLarge { limit });
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            let copied = if rest.is_empty() { length } else { data.len() };
            if !held.grow(copied) {
                return Ok(None);
            }
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(Some(if rest.is_empty() { first } else { rest.freeze() }))
}

/// The next piece of a body, or none after the last one. Most are there already and need no timer.
async fn next_frame(body: &mut Incoming, by: Instant) -> Result<Option<Frame<Bytes>>, Rejection> {
    if body.is_end_stream() {
        return Ok(None);
    }
    let there = poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;
    let next = match there {
        Poll::Ready(next) => next,
        Poll::Pending => tokio::time::timeout_at(by.into(), body.frame()).await.map_err(|_| Rejection::BodyTimeout)?,
    };
    next.transpose().map_err(|_| Rejection::BodyBroken)
}
