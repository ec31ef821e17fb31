//! New processes in place of old ones, under load, without a lost request.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weir_stack::Signal;
use weir_stack::testing::{Scratch, eventually, scratch};
use weir_store::testing;

use crate::http::{accepts, body, parse, request};
use crate::support::PATIENCE;
use crate::up::{Up, kill, run, stack};

/// What senders met.
#[derive(Default)]
struct Met {
    stop: AtomicBool,
    accepted: AtomicUsize,
    /// Kept-alive connections that were closed before a byte of the answer: their senders tried once more.
    closed: AtomicUsize,
}

/// Senders that take no excuse: everything but a 2xx, or the close of a kept-alive connection before any byte of the
/// answer, is a failure.
struct Strict {
    met: Arc<Met>,
    senders: JoinSet<Result<usize, String>>,
}

impl Strict {
    fn start(port: u16, keeping: usize, closing: usize) -> Self {
        let met = Arc::new(Met::default());
        let mut senders = JoinSet::new();
        for sender in 0..keeping + closing {
            senders.spawn(send(port, sender, sender < keeping, met.clone()));
        }
        Self { met, senders }
    }

    /// Waits until some more messages were accepted.
    async fn flows(&self) {
        let before = self.met.accepted.load(Ordering::Relaxed);
        eventually("messages flow", PATIENCE, async || {
            self.met.accepted.load(Ordering::Relaxed) >= before + 200 || self.met.stop.load(Ordering::Relaxed)
        })
        .await;
    }

    /// Stops the senders; gives how many messages were accepted.
    async fn stop(mut self) -> usize {
        self.met.stop.store(true, Ordering::Relaxed);
        let mut accepted = 0;
        while let Some(sender) = self.senders.join_next().await {
            accepted += sender.expect("no panic").unwrap_or_else(|failure| panic!("{failure}"));
        }
        accepted
    }
}

async fn send(port: u16, sender: usize, keeps: bool, met: Arc<Met>) -> Result<usize, String> {
    let (mut connection, mut number) = (None, 0);
    while !met.stop.load(Ordering::Relaxed) {
        let message = body(&format!("s{sender}n{number}"), &format!("c{sender}x{}", number / 100), "Здравствуйте");
        let sent = async {
            loop {
                let kept = connection.is_some();
                match post(&mut connection, port, keeps, &message).await {
                    Ok(answer) => return Ok(answer),
                    Err(Failed::BeforeAnswer(_)) if kept => {
                        met.closed.fetch_add(1, Ordering::Relaxed);
                        connection = None;
                    }
                    Err(failed) => return Err(format!("{failed:?}")),
                }
            }
        };
        let failure = match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(200 | 202)) => None,
            Ok(Ok(status)) => Some(format!("status {status}")),
            Ok(Err(failed)) => Some(failed),
            Err(_) => Some("no answer".into()),
        };
        if let Some(failure) = failure {
            met.stop.store(true, Ordering::Relaxed);
            return Err(format!("message {number} of sender {sender} (keeps its connection: {keeps}): {failure}"));
        }
        number += 1;
        met.accepted.fetch_add(1, Ordering::Relaxed);
    }
    Ok(number)
}

/// Why there is no answer.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
enum Failed {
    BeforeAnswer(String),
    WithinAnswer(String),
}

/// Posts over a connection that may be kept; gives the status.
async fn post(connection: &mut Option<TcpStream>, port: u16, keeps: bool, body: &str) -> Result<u16, Failed> {
    let before = |error: std::io::Error| Failed::BeforeAnswer(error.to_string());
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(("127.0.0.1", port)).await.map_err(before)?,
    };
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let head = "POST /api/v1/webhook HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n";
    let request = format!("{head}{close}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.map_err(before)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 2048]);
    loop {
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => answer.extend_from_slice(&chunk[..n]),
            ended if answer.is_empty() => return Err(Failed::BeforeAnswer(format!("{ended:?}"))),
            ended => return Err(Failed::WithinAnswer(format!("{ended:?}"))),
        }
        if let Some(parsed) = parse(&answer).filter(|answer| answer.body.is_object()) {
            let last = String::from_utf8_lossy(&answer).to_lowercase().contains("connection: close");
            *connection = (keeps && !last).then_some(stream);
            return Ok(parsed.status);
        }
    }
}

/// Process ids of all gateways and workers.
fn roles(data: &Scratch) -> HashSet<u64> {
    let stack = stack(data);
    let all = stack["processes"].as_array().expect("processes").iter();
    all.filter_map(|role| role["pid"].as_u64()).collect()
}

/// Every id is there once, and nothing else; the balance holds.
async fn judge(data: &Scratch, accepted: usize) {
    eventually("everything is stored", PATIENCE, async || {
        let status = run(data, &["status", "--output", "json"]).await.json();
        status["balance"]["in_flight"] == 0 && status["balance"]["accepted"] == accepted
    })
    .await;
    let balance = run(data, &["status", "--output", "json"]).await.json()["balance"].clone();
    let expected = [("stored", accepted), ("dead", 0), ("drift", 0), ("lost", 0)];
    for (name, value) in expected {
        assert_eq!(balance[name], value, "{name}: {balance}");
    }
    let url = stack(data)["database"]["url"].as_str().expect("a URL").to_owned();
    let rows = testing::texts(&url, "SELECT external_message_id FROM messages").await.expect("rows");
    let unique: HashSet<&String> = rows.iter().collect();
    assert_eq!((rows.len(), unique.len()), (accepted, accepted), "rows and different ids");
}

/// Restarts everything `count` times while strict senders send, then judges. Gives the kept-alive connections that were
/// closed under their senders.
async fn restarts_under_load(count: usize) -> usize {
    let data = scratch();
    let up = Up::start(&data, &["--gateways", "2"]).await;
    let strict = Strict::start(up.port, 6, 6);
    for _ in 0..count {
        strict.flows().await;
        let before = roles(&data);
        let restarted = run(&data, &["fleet", "restart", "--yes", "--output", "json"]).await.code(0).json();
        assert_eq!((&restarted["reached"], &restarted["done"]), (&true.into(), &4.into()), "{restarted}");
        let after = roles(&data);
        assert!(after.len() == 4 && after.is_disjoint(&before), "{before:?} {after:?}");
    }
    strict.flows().await;
    let met = strict.met.clone();
    let accepted = strict.stop().await;
    judge(&data, accepted).await;
    up.stop(&data).await;
    met.closed.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_under_load_fail_no_request_and_lose_nothing() {
    let count = std::env::var("WEIR_TEST_RESTARTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    let closed = restarts_under_load(count).await;
    // As a rule none: a connection is told beforehand that an answer is its last.
    assert!(closed <= count, "{closed} kept-alive connections were closed under their senders");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_restarts_all_and_while_a_killed_gateway_is_away_nobody_is_refused() {
    let data = scratch();
    let up = Up::start(&data, &[]).await;
    let before = roles(&data);
    up.signal(Signal::HUP);
    eventually("all processes are new", PATIENCE, async || {
        let now = roles(&data);
        now.len() == before.len() && now.is_disjoint(&before)
    })
    .await;
    accepts(up.port).await;

    for number in 0..3 {
        let gateway = gateway(&data)["pid"].as_u64().expect("a gateway");
        kill(gateway);
        let message = body(&format!("m{number}"), "c", "x");
        let answer = request(up.port, "POST", "/api/v1/webhook", &message).await.expect("not refused, answered");
        assert_eq!(answer.status, 202, "{answer:?}");
        accepts(up.port).await;
    }
    up.stop(&data).await;
}

fn gateway(data: &Scratch) -> Value {
    let stack = stack(data);
    let mut all = stack["processes"].as_array().expect("processes").iter();
    all.find(|role| role["name"] == "gateway").expect("a gateway").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_broken_configuration_ends_at_once_and_what_runs_stays() {
    let data = scratch();
    let up = Up::start(&data, &[]).await;
    run(&data, &["fleet", "restart"]).await.code(1).says(&["1 gateway and 2 workers", "--yes"]);
    run(&data, &["fleet", "restart", "--workers", "--dry-run"]).await.code(0).says(&["would restart 2 workers"]);
    let before = roles(&data);
    let weir_toml = data.path().join("weir.toml");
    std::fs::write(&weir_toml, "[gateway]\ndrian = \"10s\"\n").expect("a configuration");
    let elsewhere = data.path().join("none.toml");
    std::fs::write(&elsewhere, "").expect("a configuration");
    let config = elsewhere.to_str().expect("a path");
    let failed = run(&data, &["fleet", "restart", "--yes", "--config", config]).await.code(3);
    failed.says(&["after 0 of 3 processes", "gateway.drian is no setting"]);
    assert_eq!(roles(&data), before);
    accepts(up.port).await;
    std::fs::remove_file(&weir_toml).expect("no configuration");
    run(&data, &["fleet", "restart", "--yes", "--gateways"]).await.code(0).says(&["restarted 1 gateway"]);
    assert_eq!(roles(&data).intersection(&before).count(), 2, "the workers stay");
    up.stop(&data).await;
}
