use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_stack::testing::eventually;
use weir_store::Role;

use crate::support::{House, PATIENCE};

const LOOKUP: &str = "/api/v1/messages/lookup";

#[tokio::test(flavor = "multi_thread")]
async fn what_axum_would_refuse_in_words_of_its_own_is_a_problem() {
    let house = House::with(&[("api.body_limit", "1000")]).await;
    house.get("/no/such/path").await.is_problem(404, "not-found");
    let wrong = house.call(Method::DELETE, LOOKUP, None, None).await;
    wrong.is_problem(405, "method");
    assert_eq!(wrong.header("allow"), "POST");
    house.get("/api/v1/dialogs/seven/messages").await.is_problem(422, "invalid");
    house.get("/api/v1/clients/%ff").await.is_problem(400, "malformed");
    let unknown = house.get("/api/v1/search?phon=1").await.is_problem(422, "invalid");
    assert_eq!(
        unknown["errors"][0],
        json!({"field": "phon", "code": "unknown", "message": unknown["errors"][0]["message"]})
    );
    let limit = house.get("/api/v1/search?limit=0").await.is_problem(422, "invalid");
    assert_eq!(limit["errors"][0]["field"], "limit", "{limit}");
    let large = json!({"ids": ["x".repeat(2000)]});
    house.post(LOOKUP, &large).await.is_problem(413, "too-large");
    let unknown = house.post(LOOKUP, &json!({"ids": ["a"], "role": "admin"})).await.is_problem(422, "invalid");
    assert_eq!((&unknown["errors"][0]["field"], &unknown["errors"][0]["code"]), (&json!("role"), &json!("unknown")));
    house.post(LOOKUP, &json!(["a"])).await.is_problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_or_says_so_is_refused() {
    let house = House::new().await;
    let key = house.key(Role::Read);
    for (kind, body, status) in [
        ("Content-Type: application/json\r\n", "{", "400"),
        ("Content-Type: application/json; charset=utf-8\r\n", "nonsense", "400"),
        ("Content-Type: text/plain\r\n", "{\"ids\":[\"a\"]}", "415"),
        ("", "{\"ids\":[\"a\"]}", "415"),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", "{\"ids\":[\"a\"]}", "415"),
        ("Content-Type: application/merge-patch+json\r\n", "{\"ids\":[\"a\"]}", "200"),
    ] {
        let request = format!(
            "POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = raw(&house, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{kind}{body}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_answered_in_time() {
    let house = House::with(&[("api.timeout", "200ms")]).await;
    let key = house.key(Role::Read);
    let head = format!(
        "POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let answer = raw(&house, &head).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("urn:weir:problem:timeout"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_ended() {
    let house = House::with(&[("api.idle_timeout", "200ms")]).await;
    assert!(raw(&house, "").await.is_empty());
    let answer = raw(&house, "GET /health HTTP/1.1\r\nHost: ").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_to_keep_it_and_to_guess_its_type() {
    let house = House::new().await;
    for path in ["/health", "/openapi.json", "/no/such/path", "/api/v1/search", "/api/v1/clients/nobody"] {
        let answer = house.get(path).await;
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_what_is_missing_and_needs_no_key() {
    let house = House::new().await;
    let health = async || house.call(Method::GET, "/health", None, None).await;
    eventually("all is well", PATIENCE, async || health().await.status == 200).await;
    assert_eq!(health().await.json()["status"], "ok");
    house.redis.kill().await;
    eventually("Redis is missed", PATIENCE, async || health().await.status == 503).await;
    let answer = health().await.json();
    assert_eq!((&answer["status"], &answer["reasons"]), (&json!("unavailable"), &json!(["Redis does not answer"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_what_is_stored_is_still_answered_and_the_rest_says_why_not() {
    let house = House::new().await;
    house.redis.kill().await;
    let search = house.get("/api/v1/search").await;
    assert_eq!(search.is(200), json!({"items": [], "next": null}));
    let unknown = house.get("/api/v1/messages/nobody-knows").await;
    unknown.is_problem(503, "unavailable");
    assert_eq!(unknown.header("retry-after"), "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_answered_before_it_stops() {
    let house = House::new().await;
    let key = house.key(Role::Read);
    let mut stream = TcpStream::connect(house.api.address).await.unwrap();
    let body = r#"{"ids":["a"]}"#;
    let head = format!(
        "POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It is being answered once the body is asked for.
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 100"), "{first:?}");
    house.api.shutdown.cancel();
    eventually("nobody else is let in", PATIENCE, async || TcpStream::connect(house.api.address).await.is_err()).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
}

/// What comes back for these bytes until the connection ends.
async fn raw(house: &House, request: &str) -> String {
    let mut stream = TcpStream::connect(house.api.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    drop(read);
    String::from_utf8_lossy(&answer).into_owned()
}
