//! An API: described, bound, run.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use weir_core::alarm::guarded;
use weir_core::ops::Health;
use weir_core::profile_cache::ProfileCache;
use weir_core::queue::Queue;
use weir_core::shutdown::Shutdown;
use weir_store::{AlertChange, Store, StoreError};

use crate::auth::Keyring;
use crate::config::{ApiConfig, Auth};
use crate::grpc::{Door, Watches};
use crate::monitoring::Watch;
use crate::profiles::{self, Profiles};
use crate::server::{Server, Service};
use crate::{grpc, health, openapi, routes};

/// Why an API does not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is taken or not ours.
    #[error("the API cannot listen on {address}: {error}; stop what uses it, or set {setting}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
        /// The setting that names it.
        setting: &'static str,
    },
}

/// What handlers need. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) store: Store,
    pub(crate) queue: Queue,
    /// The cache of profiles, where there is one.
    pub(crate) cache: Option<Arc<ProfileCache>>,
    pub(crate) profiles: Profiles,
    /// Who is told of changes of profiles.
    pub(crate) watches: Watches,
    pub(crate) keyring: Keyring,
    pub(crate) health: watch::Receiver<Health>,
    /// The OpenAPI document.
    pub(crate) document: Bytes,
}

/// An API that is bound and does not serve yet.
pub struct Api {
    app: App,
    listeners: Vec<TcpListener>,
    grpc: Vec<Door>,
    health: watch::Sender<Health>,
    router: Router,
}

/// Binds the addresses of the configuration, if it names any. Neither Redis nor PostgreSQL need be there: what needs them
/// is answered with 503 until they are. Must be called within a tokio runtime.
///
/// # Errors
/// When an address cannot be bound.
pub fn build(config: ApiConfig, store: Store, queue: Queue, cache: Option<ProfileCache>) -> Result<Api, ApiError> {
    let listeners = bind_all(&config.listen, "api.listen")?;
    let grpc = if config.grpc_waits {
        config.grpc.iter().copied().map(Door::Awaited).collect()
    } else {
        bind_all(&config.grpc, "grpc.listen")?.into_iter().map(Door::Open).collect()
    };
    if config.auth == Auth::Development {
        tracing::warn!(
            "api.auth is development: whoever is on this machine needs no API key; never use it in production"
        );
    }
    let health = watch::Sender::new(Health::waiting("starting"));
    let cache = cache.map(Arc::new);
    let app = App {
        config: Arc::new(config),
        keyring: Keyring::new(store.clone()),
        profiles: Profiles::new(store.clone(), cache.clone()),
        cache,
        watches: Watches::new(store.clone()),
        store,
        queue,
        health: health.subscribe(),
        document: openapi::rendered(),
    };
    let router = routes::router(&app);
    Ok(Api { app, listeners, grpc, health, router })
}

fn bind_all(addresses: &[SocketAddr], setting: &'static str) -> Result<Vec<TcpListener>, ApiError> {
    addresses.iter().map(|address| bind(*address, setting)).collect()
}

fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ApiError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|error| ApiError::Bind { address, error, setting })
}

impl Api {
    /// The addresses that were bound, in the order of the configuration; real ports where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The same of gRPC. An address that is waited for is as it was configured.
    pub fn grpc_addresses(&self) -> Vec<SocketAddr> {
        self.grpc.iter().filter_map(Door::address).collect()
    }

    /// Whether it can answer, as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// The routes with all that belongs to them, for tests and for whoever serves axum routers.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The same as a function from request to answer, for a server that hands over what it does not know itself. It works
    /// while [`run`](Self::run) does.
    pub fn service(&self) -> Service {
        Service::new(self.router.clone())
    }

    /// Has the counts judged once, as is done every few seconds while it runs. Gives the alerts that this look fired or
    /// resolved; none of them if another process judges at this moment.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub async fn look_at_alerts(&self) -> Result<Vec<AlertChange>, StoreError> {
        self.watch().look().await
    }

    fn watch(&self) -> Watch {
        Watch::new(self.app.store.clone(), self.app.config.monitoring.clone())
    }

    /// Serves until `shutdown`, answers what is under way, and ends within the time that the configuration gives. Without
    /// addresses it runs what belongs to the [`service`](Self::service) alone.
    ///
    /// # Panics
    /// When a part that it runs has panicked, once the rest is finished: the process has to be started again.
    pub async fn run(self, shutdown: Shutdown) {
        let (stop, broken) = (shutdown.child_token(), Shutdown::new());
        let parts = TaskTracker::new();
        self.start_parts(&parts, &stop, &broken);
        let server = Server::new(&self.app.config, self.service(), stop.clone());
        let serving = TaskTracker::new();
        for listener in self.listeners {
            serving.spawn(guarded("accept", broken.clone(), server.clone().accept(listener)));
        }
        let calls = grpc::server(self.app.clone(), stop.clone()).await;
        for door in self.grpc {
            serving.spawn(guarded("grpc", broken.clone(), calls.clone().accept(door)));
        }
        tokio::select! { () = stop.cancelled() => {}, () = broken.cancelled() => stop.cancel() }
        serving.close();
        serving.wait().await;
        let drain = self.app.config.drain;
        tokio::join!(server.drain(drain), calls.drain(drain));
        parts.close();
        parts.wait().await;
        assert!(!broken.is_cancelled(), "a part of the API panicked");
        tracing::info!("the API has stopped");
    }

    /// What runs beside the requests.
    fn start_parts(&self, parts: &TaskTracker, stop: &Shutdown, broken: &Shutdown) {
        let App { store, queue, profiles, watches, .. } = self.app.clone();
        parts.spawn(guarded("health", broken.clone(), health::watch(store, queue, self.health.clone(), stop.clone())));
        parts.spawn(guarded("alerts", broken.clone(), self.watch().run(stop.clone())));
        parts.spawn(guarded("watches", broken.clone(), watches.run(stop.clone())));
        parts.spawn(guarded("cache counts", broken.clone(), profiles::count(profiles, stop.clone())));
    }
}
