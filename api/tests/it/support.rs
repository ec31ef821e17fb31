//! An API with a database and a Redis of its own, and a client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::SecretString;
use serde_json::Value;
use weir_api::{ApiConfig, ApiKey};
use weir_core::config::Reader;
use weir_core::profile_cache::{ProfileCache, ProfileCacheConfig};
use weir_core::queue::{Queue, Roots};
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_stack::testing::{TestRedis, postgres, redis, unique_name};
use weir_store::{Role, Store, StoreOptions};

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An API, and the servers behind it.
pub(crate) struct House {
    pub(crate) redis: TestRedis,
    /// The URL of the database.
    pub(crate) database: String,
    pub(crate) store: Store,
    pub(crate) queue: Queue,
    pub(crate) api: Running,
    /// A key of each role.
    keys: BTreeMap<&'static str, String>,
}

/// An API that serves until it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// Where it answers gRPC.
    pub(crate) grpc: SocketAddr,
    pub(crate) shutdown: Shutdown,
}

impl Running {
    /// Starts an API with these settings.
    pub(crate) fn start(store: Store, queue: Queue, cache: Option<ProfileCache>, settings: &[(&str, &str)]) -> Self {
        let api = weir_api::build(config(settings), store, queue, cache).expect("an API");
        let (address, grpc, shutdown) = (api.addresses()[0], api.grpc_addresses()[0], Shutdown::new());
        tokio::spawn(api.run(shutdown.clone()));
        Self { address, grpc, shutdown }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The settings of a test over those of every test.
pub(crate) fn config(settings: &[(&str, &str)]) -> ApiConfig {
    let base = [("api.listen", "127.0.0.1:0"), ("grpc.listen", "127.0.0.1:0")];
    let flags = base.iter().chain(settings).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut reader = Reader::new(flags, BTreeMap::new(), "no-such-file".as_ref(), false);
    let config = ApiConfig::read(&mut reader);
    reader.finish().expect("settings without mistakes");
    config
}

impl House {
    /// A house with the defaults.
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let (redis, server) = (redis().await, postgres().await);
        let name = unique_name();
        let database = weir_store::testing::migrated_database(|db| server.url(db), &name).await.expect("a database");
        let store = Store::connect(&StoreOptions::new(SecretString::from(database.clone()))).await.expect("a store");
        let queue = Queue::new(&SecretUrl::new(redis.url()), 4).expect("a queue");
        queue.prepare().await.expect("a prepared queue");
        let mut keys = BTreeMap::new();
        for role in Role::ALL {
            keys.insert(role.as_str(), new_key(&store, role).await.expose().to_owned());
        }
        let api = Running::start(store.clone(), queue.clone(), Some(cache_at(&redis.url(), |_| {})), settings);
        Self { redis, database, store, queue, api, keys }
    }

    /// The key of this role.
    pub(crate) fn key(&self, role: Role) -> &str {
        &self.keys[role.as_str()]
    }

    /// A request as somebody who may read.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, Some(self.key(Role::Read)), None).await
    }

    /// The same with a body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call(Method::POST, path, Some(self.key(Role::Read)), Some(body)).await
    }

    /// The same servers with another API before them.
    pub(crate) fn with_api(self, api: Running) -> Self {
        Self { api, ..self }
    }

    /// A request with a key or without.
    pub(crate) async fn call(&self, method: Method, path: &str, key: Option<&str>, body: Option<&Value>) -> Reply {
        self.call_at(self.api.address, method, path, key, body).await
    }

    /// A request to another API of the same servers.
    pub(crate) async fn send_to(&self, api: &Running, role: Role, method: Method, path: &str, body: &Value) -> Reply {
        self.call_at(api.address, method, path, Some(self.key(role)), Some(body)).await
    }

    async fn call_at(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        send(request.body(Full::from(body)).expect("a request")).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.api.address)
    }
}

/// A cache of profiles on this Redis.
pub(crate) fn cache_at(url: &str, adjust: impl FnOnce(&mut ProfileCacheConfig)) -> ProfileCache {
    let mut config = ProfileCacheConfig::default();
    adjust(&mut config);
    ProfileCache::new(&SecretUrl::new(url), Roots::default(), config).expect("a cache")
}

/// Makes a key as `weir key create` does.
pub(crate) async fn new_key(store: &Store, role: Role) -> ApiKey {
    let key = ApiKey::random();
    store.add_key(&format!("{role} of a test"), role, key.prefix(), &key.hash()).await.expect("a key");
    key
}

/// Sends a request over a connection of its own.
pub(crate) async fn send(request: Request<Full<Bytes>>) -> Reply {
    let pool: Pool<HttpConnector, Full<Bytes>> = Pool::builder(TokioExecutor::new()).build_http();
    let answer = tokio::time::timeout(PATIENCE, pool.request(request)).await.expect("an answer").expect("an answer");
    Reply::of(answer).await
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// Reads an answer to its end.
    pub(crate) async fn of<B: hyper::body::Body<Error: std::fmt::Debug>>(answer: Response<B>) -> Self {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// The body, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// A problem of this kind and status; gives its body.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.is(status);
        assert_eq!(problem["type"], format!("urn:weir:problem:{kind}"), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        problem
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}
