//! Clients that take their time: each is given up at its deadline, and its slot is free again.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use weir_stack::testing::eventually;

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, RST_STREAM, frame, post, post_block, setting,
};
use crate::support::{House, Raw, SOON, UNLIMITED, WEBHOOK, head, message};

/// A house whose deadlines are all out of reach, but for those given.
async fn patient_but(settings: &[(&str, &str)]) -> House {
    let all = ["http.header_timeout", "http.idle_timeout", "http.body_timeout", "http.write_timeout"];
    let others = all.iter().filter(|name| !settings.iter().any(|(given, _)| given == *name));
    let flags: Vec<_> = others.map(|name| (*name, "1h")).chain(settings.iter().copied()).collect();
    House::with(UNLIMITED, &flags).await
}

fn get() -> String {
    format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// Writes a byte at a time until the other side has closed; gives what it said.
async fn drip(raw: &mut Raw, bytes: &str) -> String {
    let (mut read, mut write) = raw.0.split();
    let mut said = Vec::new();
    let dripping = async {
        for byte in bytes.as_bytes().iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = dripping => {}
        ended = tokio::time::timeout(SOON, read.read_to_end(&mut said)) => drop(ended.expect("it is closed")),
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_head_that_drips_has_the_time_of_one_head() {
    let house = patient_but(&[("http.header_timeout", "500ms")]).await;
    let mut raw = house.gateway.connect().await;
    assert_eq!(drip(&mut raw, "GET / HTTP/1.1\r\nx: y\r\nx: y").await, "");
    // The second head on a connection too.
    let mut raw = house.gateway.connect().await;
    raw.write(get()).await;
    raw.read_until("ready").await;
    assert_eq!(drip(&mut raw, "GET / HTTP/1.1\r\nx: y\r\nx: y").await, "");
}

#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let house = patient_but(&[("http.header_timeout", "200ms")]).await;
    let mut raw = house.gateway.connect().await;
    raw.write(get()).await;
    raw.read_until("ready").await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_secs(1), raw.0.peek(&mut byte)).await;
    assert!(early.is_err(), "it is still open: {early:?}");
    raw.write(get()).await;
    raw.read_until("ready").await;
    raw.write("G").await;
    assert_eq!(raw.read_to_end().await, "", "from the first byte on it is a head");
}

#[tokio::test]
async fn a_body_that_drips_has_the_time_of_one_body() {
    let house = patient_but(&[("http.body_timeout", "500ms")]).await;
    for framing in ["content-length: 60000\r\n", "transfer-encoding: chunked\r\n"] {
        let mut raw = house.gateway.connect().await;
        raw.write(head(framing)).await;
        let answer = drip(&mut raw, "1\r\n1\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body-timeout"), "{framing} {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn a_body_below_the_least_rate_is_not_waited_for_to_its_end() {
    let house = patient_but(&[("http.body_rate", "1MiB")]).await;
    let mut raw = house.gateway.connect().await;
    raw.write(head("content-length: 60000\r\n")).await;
    let answer = drip(&mut raw, "x").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // Without a rate the same body has an hour.
    let house = patient_but(&[("http.body_rate", "0")]).await;
    let mut raw = house.gateway.connect().await;
    raw.write(head("content-length: 60000\r\n")).await;
    let early = tokio::time::timeout(Duration::from_secs(4), drip(&mut raw, "x")).await;
    assert!(early.is_err(), "{early:?}");
}

#[tokio::test]
async fn who_does_not_take_answers_is_given_up() {
    let house = patient_but(&[("http.write_timeout", "500ms"), ("http.connections", "1")]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(house.gateway.address).await.unwrap();
    let requests = get().repeat(1000);
    let writing = async { while deaf.write_all(requests.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(SOON * 3, writing).await.expect("it is reset");
    let mut next = house.gateway.connect().await;
    next.write(get()).await;
    next.read_until("ready").await;
}

#[tokio::test]
async fn who_takes_answers_byte_by_byte_is_given_up_too() {
    let house = patient_but(&[("http.write_timeout", "500ms")]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(house.gateway.address).await.unwrap();
    let (mut read, mut write) = slow.split();
    let requests = get().repeat(1000);
    let writing = async { while write.write_all(requests.as_bytes()).await.is_ok() {} };
    let reading = async {
        let mut bytes = [0; 64];
        while read.read(&mut bytes).await.is_ok_and(|n| n > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = async { tokio::join!(writing, reading) };
    // Whichever side hears of it first.
    tokio::time::timeout(SOON * 3, ended).await.expect("it is reset");
}

#[tokio::test]
async fn the_slots_of_the_silent_come_back() {
    let settings = [("http.header_timeout", "500ms"), ("http.body_timeout", "500ms"), ("http.connections", "6")];
    let house = patient_but(&settings).await;
    let mut silent = Vec::new();
    for beginning in
        ["", "G", "PRI * HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &head("content-length: 9\r\n"), "\r\n"]
    {
        let mut raw = house.gateway.connect().await;
        raw.write(beginning).await;
        silent.push(raw);
    }
    // Waits for the first slot that is free again.
    house.post(&message("a")).await.accepted();
    for mut raw in silent {
        raw.read_to_end().await;
    }
}

#[tokio::test]
async fn an_http2_client_that_never_asks_for_anything_is_given_up() {
    let house = patient_but(&[("http.header_timeout", "500ms")]).await;
    let half_a_request = [setting(4, 65_535), frame(HEADERS, 0, 1, &post_block(&[]))].concat();
    for beginning in [Vec::new(), setting(4, 65_535), half_a_request] {
        let seen = Http2::connect(&house.gateway, &beginning).await.rest().await;
        assert!(seen.iter().any(|frame| frame.kind == GOAWAY), "{seen:?}");
    }
}

#[tokio::test]
async fn an_http2_client_that_only_pings_counts_as_idle() {
    let house = patient_but(&[("http.idle_timeout", "700ms"), ("http.header_timeout", "700ms")]).await;
    let mut client = Http2::connect(&house.gateway, &setting(4, 65_535)).await;
    client.write(post(1, &message("a").to_string())).await;
    client.until("the answer", |frame| frame.has_status(202)).await;
    let pinging = async {
        loop {
            if client.0.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, pinging).await.expect("it is closed");
}

#[tokio::test]
async fn an_http2_stream_whose_window_stays_shut_is_reset() {
    let settings = [
        ("http.body_timeout", "300ms"),
        ("http.write_timeout", "300ms"),
        ("gateway.batch_timeout", "500ms"),
        ("gateway.replica_timeout", "100ms"),
    ];
    let house = patient_but(&settings).await;
    let mut client = Http2::connect(&house.gateway, &setting(4, 0)).await;
    client.write(post(1, &message("a").to_string())).await;
    client.until("the head of the answer", |frame| frame.has_status(202)).await;
    let reset = client.until("a reset", |frame| frame.kind == RST_STREAM).await;
    assert_eq!(reset.stream, 1);
    // The connection is as good as before.
    client.write([setting(4, 65_535), post(3, &message("a").to_string())].concat()).await;
    client.until("the answer", |frame| frame.stream == 3 && frame.kind == DATA && frame.flags & END_STREAM != 0).await;
}

#[tokio::test]
async fn an_http2_body_that_stops_is_a_timeout() {
    let house = patient_but(&[("http.body_timeout", "300ms")]).await;
    let mut client = Http2::connect(&house.gateway, &setting(4, 65_535)).await;
    client.write(frame(HEADERS, END_HEADERS, 1, &post_block(&[]))).await;
    client.write(frame(DATA, 0, 1, b"{\"external")).await;
    client.until("408", |frame| frame.stream == 1 && frame.has_status(408)).await;
    client.write(post(3, &message("a").to_string())).await;
    client.until("202", |frame| frame.stream == 3 && frame.has_status(202)).await;
    eventually("one message", SOON, async || house.entries().await.len() == 1).await;
}
