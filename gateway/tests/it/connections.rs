//! Sockets that behave badly, and HTTP/2.

use hyper::Method;
use tokio::task::JoinSet;

use crate::support::{House, UNLIMITED, WEBHOOK, head, message};

async fn impatient() -> House {
    let timeouts = [("http.header_timeout", "300ms"), ("http.idle_timeout", "600ms"), ("http.body_timeout", "300ms")];
    House::with(UNLIMITED, &timeouts).await
}

#[tokio::test]
async fn who_says_nothing_is_hung_up_on() {
    let house = impatient().await;
    for beginning in ["", "P", "PRI * HT", "POST ", "POST /api/v1/webhook HTTP/1.1\r\nhost: x\r\n"] {
        let mut raw = house.gateway.connect().await;
        raw.write(beginning).await;
        assert_eq!(raw.read_to_end().await, "", "{beginning:?}");
    }
}

#[tokio::test]
async fn an_http2_connection_that_says_no_more_than_its_preface_is_hung_up_on() {
    let house = impatient().await;
    let mut raw = house.gateway.connect().await;
    raw.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    raw.read_to_end().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while() {
    let house = impatient().await;
    let mut raw = house.gateway.connect().await;
    raw.write(format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(raw.read_to_end().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_a_timeout() {
    let house = impatient().await;
    let mut raw = house.gateway.connect().await;
    raw.write(head("content-length: 100\r\n") + "{\"external").await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body-timeout"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_badly_framed_body_ends_the_connection_and_leaves_nothing() {
    let house = House::new().await;
    let (body, mut raw) = (message("a").to_string(), house.gateway.connect().await);
    // All of the message's JSON is there, and what follows is no chunk.
    raw.write(head("transfer-encoding: chunked\r\n") + &format!("{:x}\r\n{body}\r\nzz\r\n", body.len())).await;
    let answer = raw.read_to_end().await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let house = House::new().await;
    let one = |id: &str| {
        let body = message(id).to_string();
        head(&format!("content-length: {}\r\n", body.len())) + &body
    };
    let mut raw = house.gateway.connect().await;
    let last = format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    raw.write([one("a"), one("b"), one("a"), last].concat()).await;
    let answers = raw.read_to_end().await;
    let codes: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["202", "202", "200", "200"]);
}

#[tokio::test]
async fn http2_is_spoken_without_an_upgrade() {
    let house = House::new().await;
    let client = house.gateway.client.http2();
    let first = client.post(WEBHOOK, &message("a")).await.accepted();
    assert_eq!(house.post(&message("a")).await.duplicate(), first);
    assert_eq!(client.send(Method::GET, WEBHOOK, &[], "").await.status, 200);
    assert_eq!(client.post("/nowhere", &message("a")).await.status, 404);
    let large = crate::support::message_with("b", "x", "y".repeat(70_000));
    assert_eq!(client.post(WEBHOOK, &large).await.status, 413);
    let mut posts = JoinSet::new();
    for i in 0..300 {
        let client = client.clone();
        posts.spawn(async move { client.post(WEBHOOK, &message(&i.to_string())).await.accepted() });
    }
    assert_eq!(posts.join_all().await.len(), 300);
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn() {
    let house = House::with(UNLIMITED, &[("http.connections", "2")]).await;
    let mut first = house.gateway.connect().await;
    let _second = house.gateway.connect().await;
    let mut third = house.gateway.connect().await;
    let ask = format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    third.write(&ask).await;
    let mut byte = [0];
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), third.0.peek(&mut byte)).await;
    assert!(early.is_err(), "nobody has left yet");
    first.write(&ask).await;
    first.read_to_end().await;
    assert!(third.read_to_end().await.starts_with("HTTP/1.1 200"));
}
