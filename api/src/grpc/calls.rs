//! Calls: who makes one, how many there may be at once, and how long one may take.
//!
//! Whoever calls is known before a byte of their message is read, so that nobody without a key has any of it kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower_service::Service as _;

use super::convert::status;
use super::proto::profile_service_server::SERVICE_NAME;
use crate::api::App;
use crate::auth;
use crate::problem::Problem;

/// Calls under way of those who have a key: as many watchers as there may be, and others.
const KNOWN: usize = 12_000;

/// And of anybody: health and reflection.
const UNKNOWN: usize = 1000;

/// Answers the calls of all connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Calls {
    app: App,
    routes: Routes,
    known: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
}

impl Calls {
    pub(super) fn new(app: App, routes: Routes) -> Self {
        Self { app, routes, known: Arc::new(Semaphore::new(KNOWN)), unknown: Arc::new(Semaphore::new(UNKNOWN)) }
    }

    /// Answers one call. It is under way until the last of the answer is sent or taken back.
    pub(super) async fn answer(
        &self,
        peer: SocketAddr,
        open: &OpenCalls,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let call = open.begin();
        let answered = tokio::time::timeout(self.app.config.timeout, self.route(peer, request)).await;
        let answered = answered.unwrap_or_else(|_| Err(status(&Problem::Timeout)));
        let (response, place) = match answered {
            Ok((response, place)) => (response, Some(place)),
            Err(status) => (status.into_http(), None),
        };
        let held = (call, place);
        response.map(|body| {
            Body::new(body.map_err(move |error| {
                let _held = &held;
                error
            }))
        })
    }

    async fn route(
        &self,
        peer: SocketAddr,
        mut request: Request<Incoming>,
    ) -> Result<(Response<Body>, OwnedSemaphorePermit), Status> {
        let places = if is_ours(request.uri().path()) {
            let caller = auth::identify_call(&self.app, peer, request.headers()).await;
            request.extensions_mut().insert(caller.map_err(|problem| status(&problem))?);
            &self.known
        } else {
            &self.unknown
        };
        let place = places.clone().try_acquire_owned().map_err(|_| full())?;
        match self.routes.clone().call(request).await {
            Ok(response) => Ok((response, place)),
            Err(never) => match never {},
        }
    }
}

/// Whether it is a method of the profile service, which all need a key.
fn is_ours(path: &str) -> bool {
    path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME)).is_some_and(|rest| rest.starts_with('/'))
}

fn full() -> Status {
    Status::resource_exhausted("too many calls are under way here; try another server, or later")
}

/// The calls under way on one connection.
#[derive(Clone, Default)]
pub(super) struct OpenCalls(watch::Sender<usize>);

impl OpenCalls {
    fn begin(&self) -> Call {
        self.0.send_modify(|open| *open += 1);
        Call(self.0.clone())
    }

    /// Ends when there was none for so long.
    pub(super) async fn quiet(&self, idle: Duration) {
        let mut open = self.0.subscribe();
        // It fails only when the sender is gone, and we hold one.
        while open.wait_for(|open| *open == 0).await.is_ok() {
            if tokio::time::timeout(idle, open.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// One call under way.
struct Call(watch::Sender<usize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
