//! Limits of a request at one below, at, and one above; and what the connection is good for afterwards.

use hyper::Method;
use serde_json::json;

use crate::support::{House, Raw, WEBHOOK, head, message, message_with};

const JSON: (&str, &str) = ("content-type", "application/json");

fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").map_or("none", |rest| &rest[..3])
}

/// Sends bytes and reads one answer's head; then whether the connection is good for another request.
async fn answer(house: &House, bytes: impl AsRef<[u8]>) -> (String, bool) {
    let mut raw = house.gateway.connect().await;
    raw.write(bytes).await;
    let answer = raw.read_until("\r\n\r\n").await;
    (answer, lives(&mut raw).await)
}

async fn lives(raw: &mut Raw) -> bool {
    let ask = format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    // It may be closed before this is written.
    drop(tokio::io::AsyncWriteExt::write_all(&mut raw.0, ask.as_bytes()).await);
    raw.read_to_end().await.contains("HTTP/1.1 200")
}

#[tokio::test]
async fn a_head_may_have_a_hundred_headers() {
    let house = House::new().await;
    for (count, expected, stays) in [(99, "200", true), (100, "200", true), (101, "431", false)] {
        let more: String = (1..count).map(|n| format!("x-{n}: y\r\n")).collect();
        let (answer, lives) = answer(&house, format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\n{more}\r\n")).await;
        assert_eq!((status(&answer), lives), (expected, stays), "{count} headers: {answer}");
    }
}

#[tokio::test]
async fn a_head_may_have_sixteen_kibibytes() {
    let house = House::new().await;
    for (length, expected, stays) in
        [(16_383, "200", true), (16_384, "200", true), (16_385, "431", false), (60_000, "431", false)]
    {
        let fixed = format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\nx: \r\n\r\n").len();
        let value = "y".repeat(length - fixed);
        let (answer, lives) = answer(&house, format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\nx: {value}\r\n\r\n")).await;
        assert_eq!((status(&answer), lives), (expected, stays), "{length} bytes: {answer}");
    }
}

#[tokio::test]
async fn path_and_query_may_have_eight_thousand_bytes() {
    let house = House::new().await;
    for (length, expected) in [(7999, "200"), (8000, "200"), (8001, "414")] {
        let path = format!("{WEBHOOK}?{}", "q".repeat(length - WEBHOOK.len() - 1));
        let (answer, lives) = answer(&house, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!((status(&answer), lives), (expected, true), "{length}: {answer}");
        let reply = house.gateway.client.http2().send(Method::GET, &path, &[], "").await;
        assert_eq!(reply.status.to_string(), expected);
    }
}

/// A message of exactly so many bytes.
fn sized(id: &str, length: usize) -> String {
    let empty = message_with(id, "x", "").to_string().len();
    message_with(id, "x", "y".repeat(length - empty)).to_string()
}

#[tokio::test]
async fn a_body_may_have_its_limit_declared_or_in_chunks() {
    let house = House::new().await;
    for (length, expected) in [(65_535, "202"), (65_536, "202"), (65_537, "413")] {
        let body = sized(&format!("declared-{length}"), length);
        let (answer, lives) = answer(&house, head(&format!("content-length: {length}\r\n")) + &body).await;
        assert_eq!((status(&answer), lives), (expected, true), "{length}: {answer}");

        let body = sized(&format!("chunked-{length}"), length);
        let chunks: Vec<_> = body.as_bytes().chunks(10_000).map(|chunk| String::from_utf8_lossy(chunk)).collect();
        let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        let (answer, lives) = answer_of_chunks(&house, &chunks).await;
        assert_eq!((status(&answer), lives), (expected, true), "{length} in chunks: {answer}");

        let body = sized(&format!("http2-{length}"), length);
        let reply = house.gateway.client.http2().send(Method::POST, WEBHOOK, &[JSON], body).await;
        assert_eq!(reply.status.to_string(), expected);
    }
    assert_eq!(house.entries().await.len(), 6);
}

async fn answer_of_chunks(house: &House, chunks: &str) -> (String, bool) {
    answer(house, head("transfer-encoding: chunked\r\n") + chunks + "0\r\n\r\n").await
}

#[tokio::test]
async fn chunks_without_end_are_refused_and_the_connection_given_up() {
    let house = House::with(crate::support::UNLIMITED, &[("http.batch_body_limit", "200KiB")]).await;
    let mut raw = house.gateway.connect().await;
    raw.write(head("transfer-encoding: chunked\r\n")).await;
    let chunk = format!("{:x}\r\n{}\r\n", 8192, " ".repeat(8192)).repeat(10);
    // Until it is closed: the answer came long before.
    let (mut read, mut write) = raw.0.split();
    let mut said = Vec::new();
    let writing = async { while tokio::io::AsyncWriteExt::write_all(&mut write, chunk.as_bytes()).await.is_ok() {} };
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut said);
    let both = async { drop(tokio::join!(writing, reading)) };
    tokio::time::timeout(crate::support::SOON, both).await.expect("it is closed");
    let answer = String::from_utf8_lossy(&said);
    assert!(answer.is_empty() || status(&answer) == "413", "{answer}");
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn a_batch_may_have_a_thousand_messages() {
    let house = House::new().await;
    for (count, expected) in [(999, 200), (1000, 200), (1001, 400)] {
        let batch: Vec<_> = (0..count).map(|n| message(&format!("{count}-{n}"))).collect();
        assert_eq!(house.gateway.client.post("/in/messenger/batch", &json!(batch)).await.status, expected, "{count}");
    }
    assert_eq!(house.entries().await.len(), 1999);
}

#[tokio::test]
async fn a_body_in_any_coding_but_none_is_refused() {
    let house = House::new().await;
    let body = message("a").to_string();
    for codings in [&["gzip"][..], &["br"], &["identity, gzip"], &["identity", "gzip"], &["x"], &[""], &["chunked"]] {
        let mut headers = vec![JSON];
        headers.extend(codings.iter().map(|coding| ("content-encoding", *coding)));
        for client in [house.gateway.client.clone(), house.gateway.client.http2()] {
            let reply = client.send(Method::POST, WEBHOOK, &headers, body.clone()).await;
            assert_eq!((reply.status, reply.problem().as_str()), (415, "encoding"), "{codings:?}");
        }
    }
    let reply = house.gateway.client.send(Method::POST, WEBHOOK, &[JSON, ("content-encoding", "identity")], body).await;
    reply.accepted();
}

#[tokio::test]
async fn answers_tell_nothing_of_the_server() {
    let house = House::new().await;
    let known = ["content-type", "content-length", "date", "connection", "cache-control", "allow", "retry-after"];
    for (request, expected) in [
        (format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\n\r\n"), "200"),
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n".into(), "404"),
        (format!("TRACE {WEBHOOK} HTTP/1.1\r\nhost: x\r\ncookie: secret=1\r\n\r\n"), "405"),
        ("CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n".into(), "400"),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n".into(), "404"),
        ("rubbish\r\n\r\n".into(), "400"),
        (head("content-length: 4\r\n") + "null", "400"),
        (head("transfer-encoding: chunked\r\n") + "zz\r\n", "400"),
    ] {
        let mut raw = house.gateway.connect().await;
        raw.write(&request).await;
        let answer = raw.read_until("\r\n\r\n").await.to_lowercase();
        assert_eq!(status(&answer.replace("http/1.1", "HTTP/1.1")), expected, "{request}");
        for line in answer.split("\r\n\r\n").next().unwrap().split("\r\n").skip(1) {
            assert!(known.contains(&line.split(':').next().unwrap()), "{line}");
        }
        for word in ["hyper", "rust", "weir/", "redis", "secret", "panic"] {
            assert!(!answer.contains(word), "{word}: {answer}");
        }
    }
}
