//! Logs that nobody takes.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use weir_stack::testing::{eventually, scratch};
use weir_stack::{Process, Signal, free_port};

use crate::http::{accepts, get_text, request};
use crate::ledger::Ledger;
use crate::support::{PATIENCE, Stack};
use crate::up::{Up, number};

/// A gateway and a worker with much to say, whose logs go to `log`; the ports of their ops listeners.
fn start(stack: &Stack, port: u16, log: impl Fn() -> File) -> Vec<(Process, u16)> {
    let start = |role: &str| {
        let ops = free_port().expect("a port");
        let more = [
            ("WEIR_GATEWAY_LISTEN", format!("127.0.0.1:{port}")),
            ("WEIR_OPS_ENABLED", "true".into()),
            ("WEIR_OPS_LISTEN", format!("127.0.0.1:{ops}")),
            ("WEIR_LOG_FILTER", "debug".into()),
            ("WEIR_LIMIT_PER_ADDRESS", "off".into()),
        ];
        let more = more.each_ref().map(|(name, value)| (*name, value.as_str()));
        (stack.start_logging_to(log(), role, &more), ops)
    };
    ["gateway", "worker"].into_iter().map(start).collect()
}

async fn dropped(ops: u16) -> u64 {
    let text = get_text(ops, "/metrics").await.unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("weir_log_lines_dropped_total{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// The roles work on under load, lose lines and count them, and end in good order.
async fn they_work_on(stack: &Stack, port: u16, roles: Vec<(Process, u16)>) {
    accepts(port).await;
    let mut ledger = Ledger::start(port, 16);
    for (_, ops) in &roles {
        eventually("lines are lost", PATIENCE, async || dropped(*ops).await > 0).await;
    }
    let before = ledger.accepted();
    eventually("messages flow", PATIENCE, async || ledger.accepted() > before + 500).await;
    ledger.stop().await;
    ledger.judge(stack).await;
    for (process, _) in roles {
        let status = process.stop(Signal::TERM, PATIENCE).await;
        assert!(status.success(), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_whose_log_nobody_reads_work_on_and_end_in_good_order() {
    let stack = Stack::new().await;
    let port = free_port().expect("a port");
    let (unread, pipe) = std::io::pipe().expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(&pipe, 4096).expect("a small pipe");
    let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
    let roles = start(&stack, port, || pipe.try_clone().expect("a pipe"));
    they_work_on(&stack, port, roles).await;
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_whose_log_is_on_a_full_disk_work_on() {
    let stack = Stack::new().await;
    let port = free_port().expect("a port");
    let roles = start(&stack, port, || File::options().write(true).open("/dev/full").expect("a full device"));
    they_work_on(&stack, port, roles).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_runs_though_no_role_can_write_its_log() {
    let data = scratch();
    let logs = data.path().join("weir/log");
    fs::create_dir_all(&logs).expect("a folder");
    symlink("/dev/full", logs.join("gateway.log")).expect("a full disk");
    // Cannot be opened at all.
    fs::create_dir(logs.join("worker-1.log")).expect("a folder");
    let up = Up::start_with(&data, &["--workers", "1"], &[]);
    accepts(up.port).await;
    let answer = request(up.port, "POST", "/api/v1/webhook", &crate::http::body("m", "c", "x")).await;
    assert_eq!(answer.expect("an answer").status, 202);
    eventually("the row is there", PATIENCE, async || number(&data, "SELECT count(*) FROM messages").await == 1).await;
    assert!(dropped(up.ops).await > 0);
    up.stop(&data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_of_an_orderly_end_come_out() {
    let stack = Stack::new().await;
    let (gateway, _) = stack.start_gateway().await;
    gateway.signal(Signal::TERM);
    assert!(gateway.wait().await.success());
    let log = fs::read_to_string(stack.log()).expect("a log");
    assert!(log.trim_end().lines().last().is_some_and(|line| line.contains("the gateway has stopped")), "{log}");
}
