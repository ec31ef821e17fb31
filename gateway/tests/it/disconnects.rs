//! Clients that leave in the middle of a body: nothing of it is kept. After the whole body see `commit`.

use crate::frames::{DATA, END_HEADERS, HEADERS, Http2, RST_STREAM, WINDOW_UPDATE, frame, post_block, setting};
use crate::support::{House, UNLIMITED, head, message};

/// With one slot, so that whoever is served next comes after the connection before has ended for good.
async fn with_one_slot() -> House {
    House::with(UNLIMITED, &[("http.connections", "1")]).await
}

/// All of the message's JSON is there, and by its framing more would follow.
fn whole_but_for_its_end() -> [String; 3] {
    let body = message("a").to_string();
    let (length, chunk) = (body.len(), format!("{:x}\r\n{body}\r\n", body.len()));
    [
        head(&format!("content-length: {}\r\n", length + 1)) + &body,
        head("transfer-encoding: chunked\r\n") + &chunk,
        head("transfer-encoding: chunked\r\n") + &chunk + "0\r\n",
    ]
}

#[tokio::test]
async fn a_body_without_its_end_is_nothing() {
    let house = with_one_slot().await;
    for request in whole_but_for_its_end() {
        let mut raw = house.gateway.connect().await;
        raw.write(&request).await;
        drop(raw);
        let mut next = house.gateway.connect().await;
        next.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(next.read_to_end().await.starts_with("HTTP/1.1 404"));
        assert!(house.entries().await.is_empty(), "{request}");
    }
    house.post(&message("a")).await.accepted();
}

#[tokio::test]
async fn who_ends_a_body_early_and_listens_is_told_so() {
    let house = House::new().await;
    for request in whole_but_for_its_end() {
        let mut raw = house.gateway.connect().await;
        raw.write(&request).await;
        tokio::io::AsyncWriteExt::shutdown(&mut raw.0).await.unwrap();
        let answer = raw.read_to_end().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn an_http2_body_without_its_end_is_nothing() {
    let house = with_one_slot().await;
    // So long that the gateway makes room for more once it has read it: what ends before that is not even looked at.
    let body = message("a").to_string() + &" ".repeat(60_000);
    let data = body.as_bytes().chunks(16 << 10).map(|piece| frame(DATA, 0, 1, piece)).collect::<Vec<_>>().concat();
    let begin = [setting(4, 65_535), frame(HEADERS, END_HEADERS, 1, &post_block(&[])), data].concat();
    // It leaves, takes the request back, or says that it is in order as it is.
    let reset = |reason| frame(RST_STREAM, 0, 1, &[0, 0, 0, reason]);
    for end in [Vec::new(), reset(8), reset(0)] {
        let mut client = Http2::connect(&house.gateway, &begin).await;
        client.until("it is being read", |frame| frame.kind == WINDOW_UPDATE && frame.stream == 1).await;
        client.write(end).await;
        drop(client);
        let mut next = house.gateway.connect().await;
        next.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(next.read_to_end().await.starts_with("HTTP/1.1 404"));
        assert!(house.entries().await.is_empty());
    }
    house.post(&message("a")).await.accepted();
}

#[tokio::test]
async fn an_http2_body_of_another_length_than_declared_is_nothing() {
    let house = House::new().await;
    let body = message("a").to_string();
    for length in [body.len() - 1, body.len() + 1] {
        let length = length.to_string();
        let head = frame(HEADERS, END_HEADERS, 1, &post_block(&[("content-length", &length)]));
        let mut client = Http2::connect(&house.gateway, &setting(4, 65_535)).await;
        client.write([head, frame(DATA, 1, 1, body.as_bytes())].concat()).await;
        client.until("a refusal", |frame| frame.kind == RST_STREAM || frame.has_status(400)).await;
    }
    assert!(house.entries().await.is_empty());
}
