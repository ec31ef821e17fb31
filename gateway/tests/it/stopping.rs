//! Stopping in good order.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use weir_stack::Direction;
use weir_stack::testing::eventually;

use crate::support::{House, Raw, SOON, WEBHOOK, head, message};

/// A house in which one message is on its way to Redis and gets no further.
async fn with_a_message_under_way(flags: &[(&str, &str)], http2: bool) -> (House, tokio::task::JoinHandle<u16>) {
    let house = House::with_proxy(flags).await;
    house.post(&message("warm")).await.accepted();
    let (under_way, mut seen) = tokio::sync::watch::channel(false);
    let faults = house.proxy().faults();
    house.proxy().watch("the-one", Direction::Request, move || {
        faults.stall(true);
        under_way.send_replace(true);
    });
    let client = if http2 { house.gateway.client.http2() } else { house.gateway.client.clone() };
    let post = tokio::spawn(async move {
        let body = message("the-one").to_string();
        let headers = [("content-type", "application/json")];
        client.try_send(hyper::Method::POST, WEBHOOK, &headers, body).await.map_or(0, |reply| reply.status)
    });
    tokio::time::timeout(SOON, seen.wait_for(|seen| *seen)).await.expect("it is under way").unwrap();
    (house, post)
}

#[tokio::test]
async fn requests_under_way_are_answered() {
    for http2 in [false, true] {
        let (mut house, post) = with_a_message_under_way(&[], http2).await;
        let mut idle = house.gateway.connect().await;
        house.gateway.shutdown.cancel();
        assert_eq!(idle.read_to_end().await, "", "an idle connection is closed");
        let address = house.gateway.address;
        eventually("no new connection is taken", SOON, async || TcpStream::connect(address).await.is_err()).await;
        assert!(!post.is_finished());
        house.proxy().stall(false);
        assert_eq!(post.await.unwrap(), 202);
        house.gateway.stopped().await;
        assert_eq!(house.entries().await.len(), 2);
    }
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let flags = [("gateway.drain", "300ms"), ("gateway.batch_timeout", "1500ms")];
    let (mut house, post) = with_a_message_under_way(&flags, false).await;
    let started = Instant::now();
    house.gateway.shutdown.cancel();
    assert_eq!(post.await.unwrap(), 0, "cut");
    assert!(started.elapsed() < Duration::from_millis(1200), "{:?}", started.elapsed());
    house.gateway.stopped().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn it_stops_while_all_connections_are_taken() {
    let mut house = House::with(crate::support::UNLIMITED, &[("http.connections", "1"), ("gateway.drain", "2s")]).await;
    let mut raw = house.gateway.connect().await;
    raw.write(format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    raw.read_until("ready").await;
    house.gateway.shutdown.cancel();
    house.gateway.stopped().await;
}

/// A POST of a message under this id.
fn post(id: &str) -> String {
    let body = message(id).to_string();
    head(&format!("content-length: {}\r\n", body.len())) + &body
}

#[tokio::test]
async fn a_request_on_an_open_connection_is_answered_while_stopping_and_is_its_last() {
    let mut house = House::new().await;
    let (mut used, mut fresh) = (house.gateway.connect().await, house.gateway.connect().await);
    used.write(post("before")).await;
    assert!(!used.read_until("durability").await.contains("connection: close"));
    house.gateway.shutdown.cancel();
    house.gateway.waits_for("stopping").await;
    for (raw, id) in [(&mut used, "over the used one"), (&mut fresh, "over the fresh one")] {
        raw.write(post(&id.replace(' ', "-"))).await;
        let answer = raw.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("connection: close"), "{id}: {answer}");
    }
    house.gateway.stopped().await;
    assert_eq!(house.entries().await.len(), 3);
}

#[tokio::test]
async fn connections_that_wait_to_be_accepted_are_served_while_stopping() {
    let mut house = House::new().await;
    // Nothing else runs in between: the gateway hears of these connections and of the stop at once.
    let connect = |_| std::net::TcpStream::connect(house.gateway.address).expect("a place in the queue");
    let waiting: Vec<_> = (0..8).map(connect).collect();
    house.gateway.shutdown.cancel();
    for (number, stream) in waiting.into_iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        let mut raw = Raw(TcpStream::from_std(stream).unwrap());
        raw.write(post(&number.to_string())).await;
        assert!(raw.read_to_end().await.starts_with("HTTP/1.1 202"), "connection {number}");
    }
    house.gateway.stopped().await;
}
