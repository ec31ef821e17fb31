//! The API in a gateway's process, on the same addresses: what `weir up` does so that everything has one address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use weir_api::Service;
use weir_core::shutdown::Shutdown;
use weir_gateway::fallback::{AnswerBody, AnswerError, Answering, Fallback, RequestBody};
use weir_store::Store;

use crate::context::{Context, store_options};

/// An API with a runtime and threads of its own.
pub(crate) struct Beside {
    stop: Shutdown,
    thread: JoinHandle<()>,
    door: Arc<Door>,
}

/// Where the gateway hands requests over.
struct Door {
    runtime: Handle,
    service: Service,
}

impl Fallback for Door {
    fn serve(&self, peer: IpAddr, request: Request<RequestBody>) -> Answering {
        let (runtime, service) = (self.runtime.clone(), self.service.clone());
        Box::pin(async move {
            // The API wants an address with a port; which one means nothing to it.
            let peer = SocketAddr::new(peer, 0);
            match runtime.spawn(async move { service.answer(peer, request).await }).await {
                Ok(response) => response.map(|body| body.map_err(|error| AnswerError(error.into())).boxed_unsync()),
                Err(error) => {
                    tracing::error!(%error, "the API did not answer");
                    broken()
                }
            }
        })
    }
}

fn broken() -> Response<AnswerBody> {
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

impl Beside {
    /// Starts it. Neither Redis nor PostgreSQL need be there.
    pub(crate) async fn start(context: &Context) -> Result<Self> {
        let (stop, (ready, started)) = (Shutdown::new(), oneshot::channel());
        let (context, stopped) = (context.clone(), stop.clone());
        let logs = tracing::dispatcher::get_default(Clone::clone);
        let work = move || {
            let _logs = tracing::dispatcher::set_default(&logs);
            run(&context, ready, stopped);
        };
        let thread = std::thread::Builder::new().name("api".into()).spawn(work).context("no thread for the API")?;
        let door = started.await.map_err(|_| anyhow!("the API ended while it started"))??;
        Ok(Self { stop, thread, door: Arc::new(door) })
    }

    /// Where requests go.
    pub(crate) fn door(&self) -> Arc<dyn Fallback> {
        self.door.clone()
    }

    /// Ends it once what is under way is answered.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the API ended badly");
        }
    }
}

fn run(context: &Context, ready: oneshot::Sender<Result<Door>>, stop: Shutdown) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let (api, store) = match build(context) {
            Ok(built) => built,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let door = Door { runtime: Handle::current(), service: api.service() };
        if ready.send(Ok(door)).is_ok() {
            api.run(stop).await;
        }
        store.close().await;
    });
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    Builder::new_multi_thread().worker_threads(2).thread_name("api").enable_all().build()
}

fn build(context: &Context) -> Result<(weir_api::Api, Store)> {
    let store = Store::connect_lazy(&store_options(&context.settings.database, &context.database_url()?))?;
    // Reached through the gateway alone.
    let config = weir_api::ApiConfig { listen: Vec::new(), grpc_waits: true, ..context.settings.api.clone() };
    let api = weir_api::build(config, store.clone(), context.queue()?, context.profile_cache()?)?;
    Ok((api, store))
}
