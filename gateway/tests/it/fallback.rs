//! Paths that are no webhooks, served by somebody else on the same address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_gateway::fallback::{AnswerBody, Answering, Fallback, RequestBody};
use weir_stack::testing::{TestRedis, redis};

use crate::support::{Client, Gateway, SOON, WEBHOOK, message, read_config};

/// Says what it was asked; reads the body unless the path says not to. Whoever asks for the protocol `echo` gets it.
struct Echo;

impl Fallback for Echo {
    fn serve(&self, peer: IpAddr, mut request: Request<RequestBody>) -> Answering {
        if request.headers().get(UPGRADE).is_some_and(|protocol| protocol == "echo") {
            tokio::spawn(echo(hyper::upgrade::on(&mut request)));
            return Box::pin(async { switching() });
        }
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let read = match head.uri.path() {
                "/unread" => "nothing".to_owned(),
                _ => format!("{} bytes", body.collect().await.map_or(0, |body| body.to_bytes().len())),
            };
            let told = format!("{} {} of {peer}: {read}", head.method, head.uri.path());
            Response::new(Full::new(Bytes::from(told)).map_err(|never| match never {}).boxed_unsync())
        })
    }
}

/// Sends back what comes, and says good-bye when nothing more comes.
async fn echo(upgrade: OnUpgrade) {
    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
    tokio::io::copy(&mut from, &mut to).await.unwrap();
    to.write_all(b"bye").await.unwrap();
    to.shutdown().await.unwrap();
}

fn switching() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
    response
}

/// A gateway with somebody behind it; its Redis has to be held.
async fn gateway() -> (Gateway, TestRedis) {
    gateway_with(&[]).await
}

async fn gateway_with(flags: &[(&str, &str)]) -> (Gateway, TestRedis) {
    let redis = redis().await;
    let queue = Queue::new(&SecretUrl::new(redis.url()), 1).unwrap();
    let config = read_config("", flags).unwrap();
    let gateway = weir_gateway::build(config, &queue).unwrap().with_fallback(Arc::new(Echo));
    let started = Gateway::run(gateway, Shutdown::new());
    started.ready().await;
    (started, redis)
}

async fn ask(client: &Client, method: Method, path: &str, body: &str) -> (u16, String, String) {
    let reply = client.send(method, path, &[], body.to_owned()).await;
    let connection = reply.header("connection").to_owned();
    (reply.status, String::from_utf8(reply.bytes.to_vec()).unwrap(), connection)
}

#[tokio::test]
async fn what_is_no_webhook_is_served_by_who_stands_behind() {
    let (gateway, _redis) = gateway().await;
    for (id, client) in [("one", gateway.client.clone()), ("two", gateway.client.http2())] {
        let told = ask(&client, Method::GET, "/profiles/7", "").await;
        assert_eq!(told, (200, "GET /profiles/7 of 127.0.0.1: 0 bytes".into(), String::new()));
        // Larger than any window or buffer between.
        let body = "x".repeat(3 << 20);
        let told = ask(&client, Method::PUT, "/profiles/7", &body).await;
        assert_eq!(told.1, "PUT /profiles/7 of 127.0.0.1: 3145728 bytes");
        assert_eq!(client.post(WEBHOOK, &message(id)).await.status, 202);
        assert_eq!(ask(&client, Method::GET, "/webhook/max", "").await.0, 200);
        assert!(ask(&client, Method::GET, "/in/nobody", "").await.1.starts_with("GET /in/nobody"));
    }
}

#[tokio::test]
async fn a_body_that_nobody_read_ends_its_connection() {
    let (gateway, _redis) = gateway().await;
    let told = ask(&gateway.client, Method::POST, "/unread", "some bytes").await;
    assert_eq!(told, (200, "POST /unread of 127.0.0.1: nothing".into(), "close".into()));
    let told = ask(&gateway.client, Method::GET, "/unread", "").await;
    assert_eq!(told.2, "", "there was none");
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_goes_nowhere() {
    let (gateway, _redis) = gateway().await;
    let mut raw = gateway.connect().await;
    raw.write("GET /profiles/7 HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

const ASK: &str = "GET /live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

#[tokio::test]
async fn who_stands_behind_may_speak_something_else() {
    // Shorter than everything that follows: nothing of HTTP holds any more.
    let (gateway, _redis) = gateway_with(&[("http.idle_timeout", "100ms"), ("http.header_timeout", "100ms")]).await;
    let mut raw = gateway.connect().await;
    // Some of it comes with the request, so that it is read together with that.
    raw.write(&format!("{ASK}early")).await;
    let told = raw.read_until("early").await;
    assert!(told.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{told}");
    assert!(told.contains("connection: upgrade\r\nupgrade: echo\r\n"), "{told}");
    // Nothing shows a deadline that is none but time that passes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    // More than the pipe holds.
    let much = "0123456789abcdef".repeat(64 << 10);
    let mut back = vec![0; much.len()];
    let (mut from, mut to) = raw.0.split();
    let both = async { tokio::join!(to.write_all(much.as_bytes()), from.read_exact(&mut back)) };
    tokio::time::timeout(SOON, both).await.expect("all of it comes back").1.unwrap();
    assert!(back == much.as_bytes());
    to.shutdown().await.unwrap();
    assert_eq!(raw.read_to_end().await, "bye", "each side ends for itself");
}

#[tokio::test]
async fn who_is_refused_another_protocol_goes_on_with_http() {
    let (gateway, _redis) = gateway().await;
    let mut raw = gateway.connect().await;
    let other = ASK.replace("echo", "telnet");
    for request in
        [other.as_str(), &other.replace("GET", "POST").replace("upgrade\r", "upgrade\r\ncontent-length: 0\r")]
    {
        raw.write(request).await;
        let told = raw.read_until("0 bytes").await;
        assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    }
}

#[tokio::test]
async fn a_gateway_that_stops_ends_what_was_taken_over() {
    let (mut gateway, _redis) = gateway().await;
    let mut raw = gateway.connect().await;
    raw.write(ASK).await;
    raw.read_until("\r\n\r\n").await;
    gateway.shutdown.cancel();
    gateway.stopped().await;
    assert_eq!(raw.read_to_end().await, "");
}
