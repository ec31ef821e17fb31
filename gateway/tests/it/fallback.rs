//! Paths that are no webhooks, served by somebody else on the same address.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response};
use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_core::shutdown::Shutdown;
use weir_gateway::fallback::{Answering, Fallback, RequestBody};
use weir_stack::testing::redis;

use crate::support::{Client, Gateway, WEBHOOK, message, read_config};

/// Says what it was asked; reads the body unless the path says not to.
struct Echo;

impl Fallback for Echo {
    fn serve(&self, peer: IpAddr, request: Request<RequestBody>) -> Answering {
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

/// A gateway with somebody behind it; its Redis has to be held.
async fn gateway() -> (Gateway, weir_stack::testing::TestRedis) {
    let redis = redis().await;
    let queue = Queue::new(&SecretUrl::new(redis.url()), 1).unwrap();
    let config = read_config("", &[]).unwrap();
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
