//! The measuring stand as its users start it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_stack::testing::{redis, scratch};
use weir_stack::{free_port, tied_command};

const BENCH: &str = env!("CARGO_BIN_EXE_weir-bench");
const PARTITIONS: u16 = 4;

/// Ended with the test.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("the gateway ends");
    }
}

fn gateway(redis: &str, port: u16) -> Gateway {
    let mut command = tied_command(BENCH.as_ref(), "KILL").expect("a command");
    command
        .args(["serve-gateway", "--durability", "disk"])
        .env("BENCH_REDIS", redis)
        .env("BENCH_PORT", port.to_string());
    // The busiest clients of a mix would meet their limit, on a fast machine.
    command.env("BENCH_CLIENTS_UNLIMITED", "1").stdin(Stdio::null());
    let gateway = Gateway(command.spawn().expect("the gateway starts"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_ready(port) {
        assert!(Instant::now() < deadline, "the gateway does not become ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway
}

/// A gateway that has looked at Redis names the faults of a body; before that it answers 503.
fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(
            b"POST /api/v1/webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
              Connection: close\r\n\r\n{}",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 4"))
}

fn load(port: u16, arguments: &[&str]) -> Value {
    let url = format!("http://127.0.0.1:{port}");
    let always = ["load", &url, "--json", "--warm-up", "0", "--seconds", "0.5", "--connections", "4"];
    let output =
        Command::new(BENCH).args(always).args(arguments).stdin(Stdio::null()).output().expect("weir-bench runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for wrong in ["refused", "failed", "silent", "unsent"] {
        assert_eq!(found[wrong], 0, "{arguments:?}: {found}");
    }
    assert!(found["accepted"].as_u64() > Some(0), "{arguments:?}: {found}");
    assert!(found["latency_ms"]["p50"].as_f64() <= found["latency_ms"]["p99"].as_f64(), "{found}");
    found
}

#[tokio::test]
async fn what_the_load_counts_as_accepted_is_in_the_queue() {
    let redis = redis().await;
    let port = free_port().expect("a port");
    let _gateway = gateway(&redis.url(), port);
    let queue = Queue::new(&SecretUrl::new(redis.url()), PARTITIONS).expect("a queue");
    let mut queued = 0;
    let mut appended = async || {
        let before = queued;
        queued = queue.balance().await.expect("a balance").accepted;
        queued - before
    };
    for arguments in [
        &[][..],
        &["--rate", "400"],
        &["--http2", "3", "--zipf", "1.1", "--clients", "100000"],
        &["--batch", "7", "--payload", "500"],
    ] {
        let found = load(port, arguments);
        assert_eq!(found["accepted"].as_u64(), Some(appended().await), "{arguments:?}: {found}");
    }
    let found = load(port, &["--bad", "0.3", "--duplicates", "0.3", "--batch", "5"]);
    assert!(found["refused_rightly"].as_u64() > Some(0), "{found}");
    let appended = appended().await;
    assert!(found["accepted"].as_u64() > Some(appended) && appended > 0, "{appended}: {found}");
}

#[test]
fn a_part_of_the_run_writes_its_report() {
    let folder = scratch();
    let mut command = Command::new(BENCH);
    command.args(["all", "--only", "disk", "--quick", "--no-peers"]).current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().expect("weir-bench runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let read = |name: &str| std::fs::read_to_string(folder.path().join("target/bench").join(name)).expect("a report");
    let json: Value = serde_json::from_str(&read("report.json")).expect("JSON");
    assert_eq!(json["figures"][0]["id"], "disk.sync.rate");
    assert!(
        json["verdicts"].as_array().is_some_and(|goals| goals.iter().all(|goal| goal["found"].is_null())),
        "{json}"
    );
    assert!(read("report.html").contains("a sync, p99") && read("report.md").contains("a sync, p99"));
}
