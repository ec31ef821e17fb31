//! Slow clients by the hundred, made by the tool that is known for them.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::process::Command;
use tokio::task::JoinSet;

use crate::proxies::program;
use crate::support::{House, SOON, UNLIMITED, WEBHOOK, message};

/// Connections of each of its modes.
const EACH: usize = 60;

/// Headers that do not end, bodies that do not, ranges that overlap, answers that nobody takes.
const MODES: [&str; 4] = ["-H", "-B", "-R", "-X"];

/// Runs one mode; gives what the tool says.
async fn attack(mode: &'static str, address: SocketAddr) -> String {
    let each = EACH.to_string();
    let mut command = Command::new(program("slowhttptest", "slowhttptest"));
    command.arg(mode).args([
        "-c",
        &each,
        "-r",
        "60",
        "-i",
        "1",
        "-l",
        "6",
        "-p",
        "5",
        "-w",
        "64",
        "-y",
        "128",
        "-n",
        "1",
        "-k",
        "10",
        "-f",
        "application/json",
    ]);
    command.args(["-u", &format!("http://{address}{WEBHOOK}")]).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(SOON * 3, command.output()).await.expect("slowhttptest ends").unwrap();
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_slow_clients_harm_nobody() {
    let timeouts = [("http.header_timeout", "2s"), ("http.body_timeout", "2s"), ("http.write_timeout", "2s")];
    let house = House::with(UNLIMITED, &timeouts).await;
    let mut attacks = JoinSet::new();
    for mode in MODES {
        attacks.spawn(attack(mode, house.gateway.address));
    }
    let mut silent = Vec::new();
    for _ in 0..EACH {
        silent.push(house.gateway.connect().await);
    }
    let mut sent = 0;
    let mut said = Vec::new();
    while said.len() < MODES.len() || sent < 100 {
        house.post(&message(&sent.to_string())).await.accepted();
        sent += 1;
        said.extend(attacks.try_join_next().map(Result::unwrap));
    }
    assert_eq!(house.entries().await.len(), sent);
    for text in said {
        assert!(text.contains("closed:") && !text.contains("error:  1"), "{text}");
    }
    for mut raw in silent {
        assert_eq!(raw.read_to_end().await, "");
    }
}
