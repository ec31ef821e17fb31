//! The proxy with faults, in front of a server that sends everything back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use weir_stack::testing::eventually;
use weir_stack::{Direction, FaultProxy};

use crate::SOON;

/// Long enough for a few round trips: what does not come by then is held back.
const A_MOMENT: Duration = Duration::from_millis(200);

/// An echo server; counts the bytes it has received.
async fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let received = Arc::new(AtomicUsize::new(0));
    let count = received.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo_one(stream, count.clone()));
        }
    });
    (addr, received)
}

async fn echo_one(mut stream: TcpStream, count: Arc<AtomicUsize>) {
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        count.fetch_add(length, Ordering::SeqCst);
        if stream.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.addr()).await.expect("a connection")
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("bytes go out");
}

async fn hear(stream: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    let read = timeout(SOON, stream.read_exact(&mut bytes)).await;
    read.expect("an answer in time").expect("an answer");
    String::from_utf8(bytes).expect("text")
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(SOON, stream.read(&mut [0; 16])).await.expect("an end in time");
    matches!(read, Ok(0) | Err(_))
}

#[tokio::test]
async fn the_proxy_passes_bytes_both_ways() {
    let (target, _) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let mut stream = connect(&proxy).await;
    say(&mut stream, "hello").await;
    assert_eq!(hear(&mut stream, 5).await, "hello");
}

#[tokio::test]
async fn a_side_that_stops_sending_still_receives() {
    let (target, _) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let mut stream = connect(&proxy).await;
    say(&mut stream, "last words").await;
    stream.shutdown().await.expect("an end");
    assert_eq!(hear(&mut stream, 10).await, "last words");
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn a_cut_closes_old_connections_only() {
    let (target, _) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let mut old = connect(&proxy).await;
    say(&mut old, "a").await;
    assert_eq!(hear(&mut old, 1).await, "a");
    proxy.cut();
    assert!(is_closed(&mut old).await);
    let mut new = connect(&proxy).await;
    say(&mut new, "b").await;
    assert_eq!(hear(&mut new, 1).await, "b");
}

#[tokio::test]
async fn a_refusal_closes_new_connections_only() {
    let (target, _) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let mut old = connect(&proxy).await;
    say(&mut old, "a").await;
    assert_eq!(hear(&mut old, 1).await, "a");
    proxy.refuse(true);
    assert!(is_closed(&mut connect(&proxy).await).await);
    say(&mut old, "b").await;
    assert_eq!(hear(&mut old, 1).await, "b");
    proxy.refuse(false);
    let mut new = connect(&proxy).await;
    say(&mut new, "c").await;
    assert_eq!(hear(&mut new, 1).await, "c");
}

#[tokio::test]
async fn a_stall_holds_bytes_back_and_loses_none() {
    let (target, received) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let mut stream = connect(&proxy).await;
    proxy.stall(true);
    say(&mut stream, "later").await;
    assert!(timeout(A_MOMENT, stream.read_u8()).await.is_err());
    assert_eq!(received.load(Ordering::SeqCst), 0);
    proxy.stall(false);
    assert_eq!(hear(&mut stream, 5).await, "later");
}

#[tokio::test]
async fn a_delay_holds_replies_back_for_its_time_and_loses_none() {
    let (target, _) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let mut stream = connect(&proxy).await;
    let least = Duration::from_millis(150);
    proxy.delay(least, Duration::from_millis(50));
    let started = std::time::Instant::now();
    say(&mut stream, "ping").await;
    assert_eq!(hear(&mut stream, 4).await, "ping");
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
    proxy.delay(Duration::ZERO, Duration::ZERO);
    say(&mut stream, "pong").await;
    assert_eq!(hear(&mut stream, 4).await, "pong");
}

#[tokio::test]
async fn swallowed_replies_are_lost_although_the_requests_arrived() {
    let (target, received) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let mut stream = connect(&proxy).await;
    proxy.swallow_replies(true);
    say(&mut stream, "lost").await;
    eventually("the request arrives", SOON, async || received.load(Ordering::SeqCst) == 4).await;
    assert!(timeout(A_MOMENT, stream.read_u8()).await.is_err());
    proxy.swallow_replies(false);
    say(&mut stream, "found").await;
    assert_eq!(hear(&mut stream, 5).await, "found");
}

#[tokio::test]
async fn a_watch_strikes_before_the_bytes_arrive_even_across_chunks() {
    let (target, received) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let faults = proxy.faults();
    proxy.watch("COMMIT", Direction::Request, move || faults.cut());
    let mut stream = connect(&proxy).await;
    say(&mut stream, "INSERT;COM").await;
    assert_eq!(hear(&mut stream, 10).await, "INSERT;COM");
    say(&mut stream, "MIT;").await;
    assert!(is_closed(&mut stream).await);
    assert_eq!(received.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn a_watch_looks_in_its_direction_only_and_at_new_bytes_only() {
    let (target, _) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let counts = [Direction::Request, Direction::Reply].map(|direction| {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        proxy.watch("ping", direction, move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        count
    });
    proxy.swallow_replies(true);
    let mut stream = connect(&proxy).await;
    say(&mut stream, "ping").await;
    eventually("the reply passes", SOON, async || counts[1].load(Ordering::SeqCst) == 1).await;
    proxy.swallow_replies(false);
    say(&mut stream, "!").await;
    assert_eq!(hear(&mut stream, 1).await, "!");
    assert_eq!(counts.map(|count| count.load(Ordering::SeqCst)), [1, 1]);
}

#[tokio::test]
async fn a_dropped_proxy_closes_everything() {
    let (target, _) = echo().await;
    let proxy = FaultProxy::start(target).await;
    let mut stream = connect(&proxy).await;
    say(&mut stream, "a").await;
    assert_eq!(hear(&mut stream, 1).await, "a");
    let addr = proxy.addr();
    drop(proxy);
    assert!(is_closed(&mut stream).await);
    eventually("the port closes", SOON, async || TcpStream::connect(addr).await.is_err()).await;
}
