//! A request's way from its first header to its answer.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, StatusCode, Version};
use ipnet::IpNet;
use metrics::{Counter, Histogram};
use serde_json::value::RawValue;
use smallvec::smallvec;
use weir_core::queue::enqueue::{Enqueued, NewEntry};
use weir_core::queue::server::Durability;
use weir_core::trace::TraceParent;

use crate::address::{client_address, is_trusted};
use crate::answer::{Answer, BatchAnswer, ItemAnswer, NotTaken, Outcome, Ready, Reply, json};
use crate::body::{Pace, collect};
use crate::config::{GatewayConfig, Kind};
use crate::decode::{DecodeError, Decoded, decode, split};
use crate::fallback::{self, Fallback};
use crate::guard::Watch;
use crate::ignored::Ignored;
use crate::limit::{AddressLimiter, BodyMemory, Held};
use crate::rejection::{Rejection, Unavailable};
use crate::source::{Route, Source, Sources};
use crate::writer::{self, Answers, Writer};

/// Bytes of path and query at most: what RFC 9110 asks everybody to support at least. No path of ours is longer than 80.
const URI_BYTES: usize = 8000;

/// Messages in one request at most.
const BATCH_ITEMS: usize = 1000;

/// How long the rest of a refused body is read before the connection is given up.
pub(crate) const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Everything that requests need.
pub(crate) struct Ingest {
    sources: Sources,
    addresses: AddressLimiter,
    trusted: Vec<IpNet>,
    durability: Durability,
    body_limit: u64,
    batch_body_limit: u64,
    body_timeout: Duration,
    body_rate: u64,
    body_memory: Arc<BodyMemory>,
    watch: Watch,
    pub(crate) writer: Writer,
    pub(crate) ignored: Ignored,
    fallback: Option<Arc<dyn Fallback>>,
    metrics: Metrics,
}

/// The series that every message touches, found once.
struct Metrics {
    taken: Counter,
    duplicates: Counter,
    conflicts: Counter,
    seconds: Histogram,
}

impl Metrics {
    fn new() -> Self {
        Self {
            taken: metrics::counter!("weir_gateway_accepted_total"),
            duplicates: metrics::counter!("weir_gateway_duplicates_total"),
            conflicts: metrics::counter!("weir_gateway_conflicts_total"),
            seconds: metrics::histogram!("weir_accept_seconds"),
        }
    }
}

/// What a request turns out to be that may go on.
enum Admitted {
    /// The question whether a message could be accepted now: a provider's reachability check.
    Probe,
    /// Something of a source that is switched off.
    Disabled,
    /// One message or a batch of them.
    Messages(Messages),
}

/// The body of a request that may go on.
struct Messages {
    route: Route,
    trace: TraceParent,
    body: Bytes,
    held: Held,
}

impl Ingest {
    pub(crate) fn new(
        config: &GatewayConfig,
        watch: Watch,
        writer: Writer,
        ignored: Ignored,
        fallback: Option<Arc<dyn Fallback>>,
    ) -> Self {
        Self {
            sources: Sources::new(config),
            addresses: AddressLimiter::new(config.per_address),
            trusted: config.trusted_proxies.clone(),
            durability: config.durability,
            body_limit: config.http.body_limit,
            batch_body_limit: config.http.batch_body_limit,
            body_timeout: config.http.body_timeout,
            body_rate: config.http.body_rate,
            body_memory: BodyMemory::new(config.http.body_memory),
            watch,
            writer,
            ignored,
            fallback,
            metrics: Metrics::new(),
        }
    }

    /// Answers one request. Never fails: what goes wrong is an answer too.
    pub(crate) async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let (head, mut body) = request.into_parts();
        let route = self.sources.route(head.uri.path());
        if let (None, Some(fallback)) = (&route, &self.fallback)
            && check_framing(&head).is_ok()
        {
            return pass_on(fallback, peer, head, body).await;
        }
        let admitted = match self.admit(peer, route, &head, &mut body, started).await {
            Ok(Admitted::Messages(admitted)) => admitted,
            Ok(Admitted::Probe) => {
                let answer = json(StatusCode::OK, &Ready { status: "ready", durability: self.durability });
                return last_unless(body.is_end_stream(), head.version, answer);
            }
            Ok(Admitted::Disabled) => {
                self.ignored.note("disabled");
                let answer = json(StatusCode::OK, &NotTaken::because("disabled"));
                return last_unless(self.discard(&head, body).await, head.version, answer);
            }
            Err(rejection) => {
                let answer = rejection.answer();
                return last_unless(self.discard_refused(&rejection, &head, body).await, head.version, answer);
            }
        };
        // Headers are a part of the connection's buffer too, which is free again while the messages wait.
        drop((head, body));
        match self.take(admitted).await {
            Ok(answer) => {
                self.metrics.seconds.record(started.elapsed());
                answer
            }
            Err(rejection) => rejection.answer(),
        }
    }

    /// Reads what is left of a refused body, within bounds, and says whether that was all. A sender that is still
    /// writing when the connection is closed may never see the answer.
    async fn discard_refused(&self, rejection: &Rejection, head: &Parts, body: Incoming) -> bool {
        match rejection {
            Rejection::BodyTimeout | Rejection::BodyBroken | Rejection::Malformed { .. } => false,
            _ => self.discard(head, body).await,
        }
    }

    async fn discard(&self, head: &Parts, mut body: Incoming) -> bool {
        if body.is_end_stream() {
            return true;
        }
        if head.headers.contains_key(EXPECT) || body.size_hint().lower() > self.batch_body_limit {
            return false;
        }
        let mut left = self.batch_body_limit;
        let read = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(rest) = left.checked_sub(length) else { return false };
                left = rest;
            }
            true
        };
        tokio::time::timeout(DISCARD_TIME, read).await.unwrap_or(false)
    }

    /// Everything up to the body's last byte: path, limits, media type, proof.
    async fn admit(
        &self,
        peer: IpAddr,
        route: Option<Route>,
        head: &Parts,
        body: &mut Incoming,
        started: Instant,
    ) -> Result<Admitted, Rejection> {
        check_framing(head)?;
        let route = route.ok_or(Rejection::NotFound)?;
        match head.method {
            Method::POST => {}
            Method::GET | Method::HEAD => return self.accepting().map(|()| Admitted::Probe),
            _ => return Err(Rejection::Method),
        }
        match route.source.kind {
            Kind::Messenger => {
                let address = client_address(peer, &head.headers, &self.trusted);
                if !is_trusted(address, &self.trusted) {
                    self.addresses.check(address)?;
                }
                self.accepting()?;
                check_media(&head.headers)?;
                route.source.verifier.check_headers(&head.headers)?;
            }
            // All of them come from a few addresses, and what is refused comes again for hours.
            Kind::Max => {
                route.source.verifier.check_headers(&head.headers)?;
                if !route.source.enabled {
                    return Ok(Admitted::Disabled);
                }
                self.accepting()?;
            }
        }
        let limit = if route.batch { self.batch_body_limit } else { route.source.body_limit };
        // Under overload most of the work must not be spent on what is refused in the end.
        if !self.writer.has_room(expected_messages(route.batch, body)) {
            return Err(self.too_many());
        }
        let (bytes, held) = self.read_body(body, limit, started).await?;
        // Reset with NO_ERROR, an HTTP/2 body ends for hyper as one does that is whole.
        if head.version == Version::HTTP_2 && !body.is_end_stream() {
            return Err(Rejection::BodyBroken);
        }
        route.source.verifier.check_body(&head.headers, &bytes)?;
        Ok(Admitted::Messages(Messages { route, trace: trace_of(&head.headers), body: bytes, held }))
    }

    /// Everything after it: decode, dedupe and append, answer.
    async fn take(&self, admitted: Messages) -> Result<Answer, Rejection> {
        let Messages { route, trace, body, held } = admitted;
        if route.batch {
            let answer = self.take_batch(&route, trace, &body).await;
            drop(held);
            return answer;
        }
        // What waits of a single message is counted as in flight.
        drop(held);
        match route.source.kind {
            Kind::Messenger => self.take_one(&route, trace, body).await,
            Kind::Max => self.take_updates(&route.source, trace, body).await,
        }
    }

    fn accepting(&self) -> Result<(), Rejection> {
        if self.watch.open.load(Ordering::Acquire) {
            return Ok(());
        }
        let verdict = self.watch.verdict.borrow();
        match verdict.refuse {
            None => Ok(()),
            Some(why) => Err(Rejection::Unavailable { why, retry_after: verdict.retry_after }),
        }
    }

    fn retry_after(&self) -> u64 {
        self.watch.verdict.borrow().retry_after.max(1)
    }

    async fn read_body(&self, body: &mut Incoming, limit: u64, started: Instant) -> Result<(Bytes, Held), Rejection> {
        if body.size_hint().lower() > limit {
            return Err(Rejection::TooLarge { limit });
        }
        let pace = Pace { started, limit: self.body_timeout, rate: self.body_rate };
        let mut held = self.body_memory.hold();
        let body = collect(body, limit, pace, &mut held).await?.ok_or_else(|| self.too_many())?;
        Ok((body, held))
    }

    async fn take_one(&self, route: &Route, trace: TraceParent, body: Bytes) -> Result<Answer, Rejection> {
        let source = &route.source;
        source.limiter.check_source(NonZeroU32::MIN)?;
        let entry = prepare(source, trace, &body)?;
        // The body is a part of the connection's buffer, which is free again while we wait.
        drop(body);
        let waiter = self.writer.send(smallvec![entry]).map_err(|_| self.too_many())?;
        let outcome = self.outcome(waiter.answers().await.pop().unwrap_or_else(|| Err(writer::lost())))?;
        tracing::debug!(trace = %trace.trace(), message_id = outcome.message_id, status = outcome.status, "accepted");
        Ok(json(outcome.code(), &outcome))
    }

    pub(crate) fn too_many(&self) -> Rejection {
        Rejection::Unavailable { why: Unavailable::InFlight, retry_after: 1 }
    }

    /// What the sender of one message is told.
    pub(crate) fn outcome(&self, result: writer::Answer) -> Result<Outcome, Rejection> {
        let enqueued = result.map_err(|error| Rejection::of_queue(&error, self.retry_after()))?;
        match enqueued {
            Enqueued::New(id) => {
                self.metrics.taken.increment(1);
                Ok(Outcome { status: "accepted", message_id: id.text(), durability: Some(self.durability) })
            }
            Enqueued::Duplicate(id) => {
                self.metrics.duplicates.increment(1);
                Ok(Outcome { status: "duplicate", message_id: id.text(), durability: None })
            }
            Enqueued::Conflict(first) => {
                self.metrics.conflicts.increment(1);
                Err(Rejection::Conflict { first })
            }
        }
    }

    /// Takes up to a thousand messages in one round trip; an answer for each, in their order.
    async fn take_batch(&self, route: &Route, trace: TraceParent, body: &[u8]) -> Result<Answer, Rejection> {
        let items = split(body).map_err(|detail| Rejection::NotJson { detail })?;
        if items.is_empty() || items.len() > BATCH_ITEMS {
            return Err(Rejection::NotJson { detail: format!("a batch has 1 to {BATCH_ITEMS} messages") });
        }
        let n = NonZeroU32::new(items.len() as u32).unwrap_or(NonZeroU32::MIN);
        route.source.limiter.check_source(n)?;
        let mut entries = Vec::with_capacity(items.len());
        let prepared: Vec<_> = items
            .iter()
            .map(|item| self.prepare_item(&route.source, trace, item).map(|entry| entries.push(entry)))
            .collect();
        let mut answers = Answers::new().into_iter();
        if !entries.is_empty() {
            answers = self.writer.send(entries.into()).map_err(|_| self.too_many())?.answers().await.into_iter();
        }
        let mut outcome = || self.outcome(answers.next().unwrap_or_else(|| Err(writer::lost())));
        let results: Vec<_> = prepared.into_iter().map(|item| item.and_then(|()| outcome())).collect();
        if let Some(rejection) = all_unavailable(&results) {
            return Err(rejection);
        }
        Ok(json(StatusCode::OK, &BatchAnswer { results: results.into_iter().map(ItemAnswer::from).collect() }))
    }

    fn prepare_item(&self, source: &Source, trace: TraceParent, item: &RawValue) -> Result<NewEntry, Rejection> {
        if item.get().len() as u64 > self.body_limit {
            return Err(Rejection::TooLarge { limit: self.body_limit });
        }
        prepare(source, trace.child(), item.get().as_bytes())
    }
}

/// Has a request answered that is none of ours.
async fn pass_on(fallback: &Arc<dyn Fallback>, peer: IpAddr, head: Parts, body: Incoming) -> Answer {
    let version = head.version;
    let (answer, whole) = fallback::serve(fallback, peer, head, body).await;
    last_unless(whole, version, answer.map(Reply::Theirs))
}

/// The last answer of its connection unless the request was read to its end, which over HTTP/2 is the stream's matter.
fn last_unless(whole: bool, version: Version, mut answer: Answer) -> Answer {
    if !whole && version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// How many messages a body will turn out to hold at most, as far as its declared length tells: the shortest have about
/// 128 bytes.
fn expected_messages(batch: bool, body: &Incoming) -> usize {
    if batch { (body.size_hint().lower() / 128).clamp(1, BATCH_ITEMS as u64) as usize } else { 1 }
}

/// The answer to a batch of which nothing was accepted, or of which nobody knows: the sender's retry covers all of it.
fn all_unavailable(results: &[Result<Outcome, Rejection>]) -> Option<Rejection> {
    let mut found = None;
    for result in results {
        match result {
            Err(rejection @ Rejection::Unavailable { why, .. }) => {
                if found.is_none() || *why == Unavailable::Unknown {
                    found = Some(rejection.clone());
                }
            }
            _ => return None,
        }
    }
    found
}

/// Decodes one message, counts it against its client's limit and makes it ready for the queue.
fn prepare(source: &Source, trace: TraceParent, body: &[u8]) -> Result<NewEntry, Rejection> {
    let decoded: Decoded<'_> = decode(body, unix_now()).map_err(|error| match error {
        DecodeError::NotAnObject(detail) => Rejection::NotJson { detail },
        DecodeError::Invalid(faults) => Rejection::Invalid { faults },
    })?;
    source.limiter.check_client(decoded.client())?;
    let trace = trace.to_string();
    let message = decoded.message(&source.name, &trace);
    Ok(NewEntry::from(&message))
}

pub(crate) fn unix_now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Only JSON, and only as it is.
fn check_media(headers: &HeaderMap) -> Result<(), Rejection> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Rejection::MediaType);
    }
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding == "identity") { Ok(()) } else { Err(Rejection::Encoding) }
}

/// Where the framing of a request or its goal could be read in two ways, by us and by a proxy in front of us, it is
/// refused and its connection ended. hyper has refused most of that already.
fn check_framing(head: &Parts) -> Result<(), Rejection> {
    let malformed = |detail| Err(Rejection::Malformed { detail });
    if head.version == Version::HTTP_11 && head.headers.get_all(HOST).iter().count() != 1 {
        return malformed("a request has one Host header");
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if codings.next().is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.next().is_some()
    {
        return malformed("the only Transfer-Encoding is chunked");
    }
    // What follows a CONNECT is meant for somebody else.
    if head.method == Method::CONNECT || !head.uri.path().starts_with(['/', '*']) {
        return malformed("a request names a path");
    }
    let length = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if length > URI_BYTES { Err(Rejection::UriTooLong { limit: URI_BYTES }) } else { Ok(()) }
}

/// Continues the sender's trace, or begins one.
fn trace_of(headers: &HeaderMap) -> TraceParent {
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    given.map_or_else(TraceParent::random, TraceParent::child)
}
