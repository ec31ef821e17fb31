//! A gateway that runs out of file descriptors.

use std::fs;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_stack::free_port;
use weir_stack::testing::eventually;

use crate::http::{accepts, body, request};
use crate::support::{PATIENCE, Stack};

/// What the gateway says when it cannot accept.
const WARNING: &str = "connections cannot be accepted";

/// The log's warnings, each with how many failures it stands for.
fn warnings(stack: &Stack) -> Vec<u64> {
    let log = fs::read_to_string(stack.log()).expect("a log");
    let times = |line: &str| line.split("\"times\":").nth(1)?.split([',', '}']).next()?.parse().ok();
    log.lines().filter(|line| line.contains(WARNING)).map(|line| times(line).expect("a number")).collect()
}

/// Posts over a connection that stays open.
async fn post(stream: &mut TcpStream, id: &str) -> String {
    let body = body(id, "c", "x");
    let head = "POST /api/v1/webhook HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n";
    stream
        .write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await
        .expect("it is open");
    let mut answer = vec![0; 4096];
    let n = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer").expect("an answer");
    String::from_utf8_lossy(&answer[..n]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_descriptors_serves_those_it_has_and_recovers() {
    let mut stack = Stack::new().await;
    let (port, ops) = (free_port().expect("a port"), free_port().expect("a port"));
    stack.set("WEIR_OPS_ENABLED", "true");
    stack.set("WEIR_OPS_LISTEN", &format!("127.0.0.1:{ops}"));
    stack.set("WEIR_HTTP_HEADER_TIMEOUT", "1h");
    let _gateway = stack.start_gateway_with_files(port, 64);
    accepts(port).await;
    let mut kept = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    assert!(post(&mut kept, "before").await.starts_with("HTTP/1.1 202"));

    let started = Instant::now();
    let mut greedy = Vec::new();
    for _ in 0..100 {
        greedy.push(TcpStream::connect(("127.0.0.1", port)).await.expect("the kernel takes it"));
    }
    eventually("it says so several times", PATIENCE, async || warnings(&stack).len() >= 3).await;
    // Redis is still reached, over a connection that was there before.
    assert!(post(&mut kept, "meanwhile").await.starts_with("HTTP/1.1 202"));

    // It tried at most every 50 ms, and said so at most once a second.
    let (said, elapsed) = (warnings(&stack), started.elapsed());
    assert!(said.len() as u64 <= elapsed.as_secs() + 2, "{said:?} in {elapsed:?}");
    let tries = said.iter().sum::<u64>();
    assert!(u128::from(tries) <= elapsed.as_millis() / 50 + 2, "{said:?} in {elapsed:?}");

    drop(greedy);
    eventually("new connections are served", PATIENCE, async || {
        request(port, "POST", "/api/v1/webhook", &body("after", "c", "x"))
            .await
            .is_ok_and(|answer| answer.status == 202)
    })
    .await;
    assert!(post(&mut kept, "before").await.starts_with("HTTP/1.1 200"), "a duplicate");
    let mut metrics = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", ops)).await.expect("the ops listener");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await.expect("it is open");
    tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut metrics))
        .await
        .expect("an answer")
        .expect("text");
    let line = metrics.lines().find(|line| line.starts_with("weir_gateway_accept_errors_total")).expect("the metric");
    let counted: u64 = line.split(' ').nth(1).expect("a value").parse().expect("a number");
    assert!(counted >= tries, "{counted} {tries}");
}
