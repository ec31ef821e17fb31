//! Children and their ends.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use weir_stack::testing::eventually;
use weir_stack::{Process, Signal, StackError, free_port};

use crate::{SOON, is_running};

fn sleeper() -> Process {
    let mut command = Command::new("sleep");
    command.arg("1000");
    Process::spawn(command).expect("sleep starts")
}

#[tokio::test]
async fn a_process_publishes_how_it_ended() {
    let mut command = Command::new("sh");
    command.args(["-c", "exit 7"]);
    let process = Process::spawn(command).expect("sh starts");
    assert_eq!(process.wait().await.code(), Some(7));
    assert_eq!(process.exited().and_then(|status| status.code()), Some(7));
}

#[tokio::test]
async fn a_signal_after_the_end_reaches_nobody() {
    let process = sleeper();
    process.kill().await;
    process.signal(Signal::KILL);
    assert!(process.exited().is_some());
}

#[tokio::test]
async fn stop_ends_even_a_frozen_process_in_an_orderly_way() {
    let process = sleeper();
    process.signal(Signal::STOP);
    let status = process.stop(Signal::TERM, SOON).await;
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
}

#[tokio::test]
async fn a_process_that_ignores_the_signal_is_killed_after_its_grace() {
    // An ignored signal stays ignored across exec.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM; exec sleep 1000"]);
    let process = Process::spawn(command).expect("sh starts");
    eventually("sleep runs", SOON, async || name(process.pid()) == "sleep").await;
    let status = process.stop(Signal::TERM, Duration::from_millis(100)).await;
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
}

fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[test]
fn a_drop_ends_the_process_without_any_runtime() {
    let process = sleeper();
    let pid = process.pid();
    drop(process);
    assert!(!is_running(pid));
}

#[test]
fn a_process_outlives_the_thread_that_asked_for_it() {
    let process = std::thread::spawn(sleeper).join().expect("a thread");
    assert!(process.exited().is_none());
    assert!(is_running(process.pid()));
}

#[test]
fn a_missing_program_is_named() {
    let error = Process::spawn(Command::new("/nowhere/program")).expect_err("it does not exist");
    assert!(matches!(error, StackError::Spawn { .. }));
    assert!(error.to_string().contains("/nowhere/program"), "{error}");
}

#[test]
fn a_free_port_is_not_one_for_outgoing_connections() {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("a range");
    let first: u16 = range.split_whitespace().next().and_then(|port| port.parse().ok()).expect("a port");
    let port = free_port().expect("a port");
    assert!(port < first || first < 12_000, "{port} against {first}");
}
