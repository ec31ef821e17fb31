//! One gateway with a Redis of its own, and a client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_core::config::{ConfigError, Reader};
use weir_core::ops::Health;
use weir_core::queue::Queue;
use weir_core::queue::consume::StreamEntry;
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_gateway::GatewayConfig;
use weir_stack::FaultProxy;
use weir_stack::testing::{TestRedis, redis, redis_with, scratch};

/// Long enough for anything that happens at all on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The path of the sample.
pub(crate) const WEBHOOK: &str = "/api/v1/webhook";

/// A messenger source without limits.
pub(crate) const UNLIMITED: &str = "[[source]]\nname = \"messenger\"\nper_client = \"off\"\n";

/// The settings of a test over those of every test, which listen on a free port and look at Redis often.
pub(crate) fn read_config(file: &str, flags: &[(&str, &str)]) -> Result<GatewayConfig, ConfigError> {
    let folder = scratch();
    let path = folder.path().join("weir.toml");
    std::fs::write(&path, file).unwrap();
    let base = [("gateway.listen", "127.0.0.1:0"), ("gateway.check_every", "100ms")];
    let flags: BTreeMap<_, _> =
        base.iter().chain(flags).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut reader = Reader::new(flags, BTreeMap::new(), &path, true);
    let config = GatewayConfig::read(&mut reader);
    reader.finish().map(|()| config)
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    health: watch::Receiver<Health>,
    pub(crate) shutdown: Shutdown,
    running: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Starts a gateway on the queue at `url`; it need not be ready.
    pub(crate) fn start(url: &str, partitions: u16, file: &str, flags: &[(&str, &str)]) -> Self {
        let config = read_config(file, flags).unwrap();
        let queue = Queue::new(&SecretUrl::new(url), partitions).unwrap();
        Self::run(weir_gateway::build(config, &queue).unwrap(), Shutdown::new())
    }

    /// Runs a gateway that was built.
    pub(crate) fn run(gateway: weir_gateway::Gateway, shutdown: Shutdown) -> Self {
        let (address, health) = (gateway.addresses()[0], gateway.health());
        let running = Some(tokio::spawn(gateway.run(shutdown.clone())));
        Self { address, client: Client::new(address), health, shutdown, running }
    }

    pub(crate) async fn ready(&self) {
        self.until("it is ready", |health| health.ready).await;
    }

    /// Waits until it cannot accept and one of its reasons contains `reason`.
    pub(crate) async fn waits_for(&self, reason: &str) {
        self.until(reason, |health| !health.ready && health.reasons.iter().any(|found| found.contains(reason))).await;
    }

    pub(crate) async fn until(&self, what: &str, holds: impl FnMut(&Health) -> bool) {
        let mut health = self.health.clone();
        let found = tokio::time::timeout(SOON, health.wait_for(holds)).await;
        assert!(found.is_ok_and(|found| found.is_ok()), "{what}: {:?}", *self.health.borrow());
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(&mut self) {
        tokio::time::timeout(SOON, self.running.take().unwrap()).await.expect("it stops").unwrap();
    }

    /// Waits until it has ended because a part of it panicked.
    pub(crate) async fn broken(&mut self) {
        let ended = tokio::time::timeout(SOON, self.running.take().unwrap()).await.expect("it ends");
        assert!(ended.is_err_and(|error| error.is_panic()), "it ended in good order");
    }

    pub(crate) async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }

    /// Posts to the path of the sample.
    pub(crate) async fn post(&self, body: &Value) -> Reply {
        self.client.post(WEBHOOK, body).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A gateway, and the Redis behind it.
pub(crate) struct House {
    pub(crate) redis: TestRedis,
    pub(crate) queue: Queue,
    pub(crate) gateway: Gateway,
    /// Between the two, if it was asked for.
    pub(crate) proxy: Option<FaultProxy>,
}

impl House {
    /// A house with the defaults, ready.
    pub(crate) async fn new() -> Self {
        Self::with(UNLIMITED, &[]).await
    }

    pub(crate) async fn with(file: &str, flags: &[(&str, &str)]) -> Self {
        Self::on(redis().await, file, flags, false).await
    }

    pub(crate) async fn with_redis(settings: &[(&str, &str)], flags: &[(&str, &str)]) -> Self {
        Self::on(redis_with(settings).await, UNLIMITED, flags, false).await
    }

    /// With a proxy between gateway and Redis, at which the gateway looks once and then only after trouble.
    pub(crate) async fn with_proxy(flags: &[(&str, &str)]) -> Self {
        let flags: Vec<_> = [("gateway.check_every", "1h")].iter().chain(flags).copied().collect();
        Self::on(redis().await, UNLIMITED, &flags, true).await
    }

    async fn on(redis: TestRedis, file: &str, flags: &[(&str, &str)], proxied: bool) -> Self {
        let queue = Queue::new(&SecretUrl::new(redis.url()), 1).unwrap();
        let (mut url, mut proxy) = (redis.url(), None);
        if proxied {
            let between = FaultProxy::start(([127, 0, 0, 1], redis.port()).into()).await;
            url = url.replace(&format!(":{}/", redis.port()), &format!(":{}/", between.addr().port()));
            proxy = Some(between);
        }
        let gateway = Gateway::start(&url, 1, file, flags);
        let house = Self { redis, queue, gateway, proxy };
        house.gateway.until("it starts", |health| !health.reasons.iter().any(|why| why.contains("not looked"))).await;
        house
    }

    pub(crate) fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("a house with a proxy")
    }

    pub(crate) async fn post(&self, body: &Value) -> Reply {
        self.gateway.post(body).await
    }

    /// Runs a command at Redis itself.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        self.queue.command(&cmd).await.unwrap()
    }

    pub(crate) async fn set(&self, setting: &str, value: &str) {
        let () = self.ask(&["CONFIG", "SET", setting, value]).await;
    }

    /// What is in the stream.
    pub(crate) async fn entries(&self) -> Vec<StreamEntry> {
        self.queue.range("weir:{0}:ingest", "-", "+", 1_000_000).await.unwrap()
    }

    /// How often functions were called so far.
    pub(crate) async fn calls(&self) -> u64 {
        let text: String = self.ask(&["INFO", "commandstats"]).await;
        let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls=")).unwrap_or("0");
        line.split(',').next().unwrap().parse().unwrap()
    }
}

/// Sends requests over connections that it keeps.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self { address, pool: Pool::builder(TokioExecutor::new()).build_http() }
    }

    /// The same over HTTP/2 without TLS.
    pub(crate) fn http2(&self) -> Self {
        Self { pool: Pool::builder(TokioExecutor::new()).http2_only(true).build_http(), ..self.clone() }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.try_send(method, path, headers, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.pool.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, bytes: body })
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn text(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The last word of the problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.json()["status"], self.status);
        self.text("type").strip_prefix("urn:weir:problem:").unwrap().to_owned()
    }

    /// It is a refusal that says what it is and when to come again.
    pub(crate) fn is_unavailable(&self, problem: &str) {
        assert_eq!((self.status, self.problem().as_str()), (503, problem), "{self:?}");
        let seconds: u64 = self.header("retry-after").parse().expect("seconds");
        assert!((1..=90).contains(&seconds), "{seconds}");
    }

    /// It was accepted; gives the message id.
    pub(crate) fn accepted(&self) -> String {
        assert_eq!((self.status, self.text("status").as_str()), (202, "accepted"), "{self:?}");
        self.text("message_id")
    }

    /// It was a duplicate; gives the first message's id.
    pub(crate) fn duplicate(&self) -> String {
        assert_eq!((self.status, self.text("status").as_str()), (200, "duplicate"), "{self:?}");
        self.text("message_id")
    }
}

/// A socket.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Writes until the other side has read enough and closes.
    pub(crate) async fn write_some(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes).await);
    }

    /// Everything until the other side closes the connection.
    pub(crate) async fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(SOON, self.0.read_to_end(&mut bytes)).await.expect("it is closed");
        // A reset after the answer is as good as an end.
        drop(read);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until `what` has arrived.
    pub(crate) async fn read_until(&mut self, what: &str) -> String {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        let read = async {
            while !String::from_utf8_lossy(&bytes).contains(what) {
                let n = self.0.read(&mut chunk).await.unwrap();
                assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
                bytes.extend_from_slice(&chunk[..n]);
            }
        };
        tokio::time::timeout(SOON, read).await.expect("it arrives");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The sample of the documentation under an id of its own.
pub(crate) fn message(id: &str) -> Value {
    json!({
        "external_message_id": id,
        "external_client_id": "fedcba0987654321abcdef1234567890",
        "client_phone": "+79194961182",
        "message_text": "Привет!",
        "send_at": 1_640_995_200,
    })
}

/// The same with another value of one field.
pub(crate) fn message_with(id: &str, field: &str, value: impl Into<Value>) -> Value {
    let mut message = message(id);
    message[field] = value.into();
    message
}

/// The head of a POST to the sample's path.
pub(crate) fn head(headers: &str) -> String {
    format!("POST {WEBHOOK} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n")
}
