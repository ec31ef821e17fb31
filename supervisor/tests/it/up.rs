//! `weir up`: one command, and everything runs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use weir_stack::testing::{Scratch, eventually, scratch};
use weir_stack::{Process, free_port, tied_command};
use weir_store::testing;

use crate::http::{accepts, request, request_with};
use crate::support::{Ended, PATIENCE, WEIR, clean};

const SAMPLE: &str = r#"{"external_message_id":"1a2b3c4d5e6f7890abcdef1234567890", "external_client_id":"fedcba0987654321abcdef1234567890","client_phone":"+79194961182","message_text":"Привет!","send_at":1640995200}"#;

/// A `weir up` of one test.
pub(crate) struct Up {
    process: Process,
    pub(crate) port: u16,
    pub(crate) ops: u16,
}

impl Up {
    pub(crate) async fn start(data: &Scratch, args: &[&str]) -> Self {
        let up = Self::start_with(data, &[&["--workers", "2"], args].concat(), &[]);
        accepts(up.port).await;
        up
    }

    /// Starts it with more in its environment, and does not wait.
    pub(crate) fn start_with(data: &Scratch, args: &[&str], env: &[(&str, &str)]) -> Self {
        let (port, ops) = (free_port().expect("a port"), free_port().expect("a port"));
        // Tied to us: a test that failed leaves nothing behind. Under `nohup` we ignore SIGHUP, which it would inherit.
        let mut command = tied_command("/usr/bin/env".as_ref(), "TERM").expect("setpriv");
        surround(data, &mut command)
            .args(["--default-signal=HUP", WEIR, "up"])
            .args(args)
            .envs(env.iter().copied())
            .env("WEIR_GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
            .env("WEIR_OPS_LISTEN", format!("127.0.0.1:{ops}"));
        command.env("WEIR_WORKER_LEASE", "2s");
        let log = fs::File::create(data.path().join("up.log")).expect("a log");
        // The table is there once everything is ready; reading to the end keeps the pipe from filling.
        let (out, pipe) = std::io::pipe().expect("a pipe");
        std::thread::spawn(move || BufReader::new(out).lines().count());
        command.stdin(Stdio::null()).stdout(pipe).stderr(log);
        Self { process: Process::spawn(command).expect("weir starts"), port, ops }
    }

    /// Process ids of everything that `stack.json` names.
    fn pids(data: &Scratch) -> Vec<u64> {
        let stack = stack(data);
        let roles = stack["processes"].as_array().expect("processes").iter().map(|role| &role["pid"]);
        let all = roles.chain([&stack["redis"]["pid"], &stack["database"]["pid"]]);
        all.filter_map(Value::as_u64).collect()
    }

    pub(crate) fn signal(&self, signal: weir_stack::Signal) {
        self.process.signal(signal);
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self, data: &Scratch) {
        let pids = Self::pids(data);
        self.signal(weir_stack::Signal::INT);
        assert!(self.ended().await.success());
        all_gone(&pids).await;
    }

    async fn ended(self) -> std::process::ExitStatus {
        self.process.wait().await
    }
}

fn weir(data: &Scratch, args: &[&str]) -> Command {
    let mut command = Command::new(WEIR);
    surround(data, command.args(args));
    command
}

fn surround<'a>(data: &Scratch, command: &'a mut Command) -> &'a mut Command {
    clean(command).env("WEIR_DATA", data.path().join("weir")).current_dir(data.path())
}

pub(crate) async fn run(data: &Scratch, args: &[&str]) -> Ended {
    Ended::of(weir(data, args)).await
}

pub(crate) fn stack(data: &Scratch) -> Value {
    serde_json::from_slice(&fs::read(data.path().join("weir/stack.json")).expect("stack.json")).expect("JSON")
}

pub(crate) fn kill(pid: u64) {
    signal(pid, weir_stack::Signal::KILL);
}

pub(crate) fn signal(pid: u64, signal: weir_stack::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("a signal");
}

async fn all_gone(pids: &[u64]) {
    eventually("no process is left", PATIENCE, async || {
        !pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
}

pub(crate) async fn number(data: &Scratch, sql: &str) -> i64 {
    let url = stack(data)["database"]["url"].as_str().expect("a URL").to_owned();
    testing::number(&url, sql).await.unwrap_or(-1)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_becomes_a_row_and_survives_a_restart_and_a_kill_of_everything() {
    let data = scratch();
    let up = Up::start(&data, &[]).await;
    let answer = request(up.port, "POST", "/api/v1/webhook", SAMPLE).await.expect("an answer");
    assert_eq!(
        (answer.status, &answer.body["status"], &answer.body["durability"]),
        (202, &"accepted".into(), &"disk".into())
    );
    eventually("the row is there", PATIENCE, async || number(&data, "SELECT count(*) FROM messages").await == 1).await;
    let metrics = request(up.ops, "GET", "/metrics", "").await.expect("metrics");
    assert_eq!(metrics.status, 200);
    eventually("everything is ready", PATIENCE, async || {
        request(up.ops, "GET", "/ready", "").await.is_ok_and(|ready| ready.status == 200)
    })
    .await;

    run(&data, &["message", "show", "1a2b3c4d5e6f7890abcdef1234567890"]).await.code(0);

    // In good order.
    assert_eq!(Up::pids(&data).len(), 5, "gateway, two workers, two servers");
    up.stop(&data).await;

    // By SIGKILL of the parent alone.
    let up = Up::start(&data, &[]).await;
    assert_eq!(number(&data, "SELECT count(*) FROM messages").await, 1);
    let pids = Up::pids(&data);
    up.signal(weir_stack::Signal::KILL);
    up.ended().await;
    all_gone(&pids).await;

    // What was accepted is still known.
    let up = Up::start(&data, &[]).await;
    let again = request(up.port, "POST", "/api/v1/webhook", SAMPLE).await.expect("an answer");
    assert_eq!((again.status, &again.body["message_id"]), (200, &answer.body["message_id"]));

    // Another one on the same folder is refused.
    run(&data, &["up"]).await.code(1).says(&["another `weir up`"]);
    up.signal(weir_stack::Signal::TERM);
    assert!(up.ended().await.success());

    // Fresh asks, and then forgets.
    run(&data, &["up", "--fresh"]).await.code(1).says(&["--yes"]);
    let up = Up::start(&data, &["--fresh", "--yes"]).await;
    assert_eq!(number(&data, "SELECT count(*) FROM messages").await, 0);
    assert_eq!(request(up.port, "POST", "/api/v1/webhook", SAMPLE).await.expect("an answer").status, 202);
    up.stop(&data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_is_started_again() {
    let data = scratch();
    let up = Up::start(&data, &[]).await;
    let before = Up::pids(&data);
    before.iter().for_each(|pid| kill(*pid));
    eventually("all have new processes", PATIENCE, async || {
        let now = Up::pids(&data);
        now.len() == before.len() && !now.iter().any(|pid| before.contains(pid))
    })
    .await;
    accepts(up.port).await;
    let answer = request(up.port, "POST", "/api/v1/webhook", SAMPLE).await.expect("an answer");
    assert_eq!(answer.status, 202);
    eventually("the row is there", PATIENCE, async || number(&data, "SELECT count(*) FROM messages").await == 1).await;
    up.stop(&data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_scaled_by_hand() {
    let data = scratch();
    let up = Up::start(&data, &[]).await;
    let workers = |stack: &Value| {
        let all = stack["processes"].as_array().expect("processes");
        all.iter().filter(|role| role["role"] == "worker" && role["state"] == "running").count()
    };
    for size in [4, 1] {
        run(&data, &["fleet", "scale", &size.to_string()]).await.code(0);
        eventually("the fleet has its size", PATIENCE, async || workers(&stack(&data)) == size).await;
    }
    let status = run(&data, &["status", "--output", "json"]).await.json();
    assert!(status.to_string().contains(&format!("127.0.0.1:{}", up.port)), "{status}");
    up.stop(&data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_serves_webhooks_and_the_api_and_asks_for_keys_when_told_to() {
    let data = scratch();
    let up = Up::start(&data, &[]).await;
    let ask = async |port, headers: &str, path: &str| {
        request_with(port, "GET", path, headers, "").await.expect("an answer").status
    };
    let told = r#"{"type":"message_new","message":{"from":{"user_id":"12345","first_name":"Иван","last_name":"Петров"},"text":"Hello"}}"#;
    let answer = request(up.port, "POST", "/webhook/max", told).await.expect("an answer");
    assert_eq!((answer.status, &answer.body["status"]), (200, &Value::from("accepted")));
    let profile = async || request(up.port, "GET", "/profiles/12345", "").await.expect("an answer");
    eventually("there is a profile", PATIENCE, async || profile().await.status == 200).await;
    assert_eq!(profile().await.body["display_name"], "Иван Петров");
    // The documents' key, as the documents' JSON.
    let cached = run(&data, &["redis-cli", "get", "profile:user:12345"]).await.code(0).stdout;
    let cached: Value = serde_json::from_str(cached.trim()).expect("JSON");
    assert_eq!((&cached["max_first_name"], &cached["source"]), (&Value::from("Иван"), &Value::from("webhook")));
    assert_eq!(ask(up.port, "", "/no/such/path").await, 404);
    // Whoever comes through a proxy may be anybody.
    assert_eq!(ask(up.port, "X-Forwarded-For: 10.1.2.3\r\n", "/profiles/12345").await, 401);

    let key = || fs::read_to_string(data.path().join("weir/development.key")).expect("a key").trim().to_owned();
    let first = key();
    assert_eq!(
        ask(up.port, &format!("X-Forwarded-For: 10.1.2.3\r\nAuthorization: Bearer {first}\r\n"), "/profiles/12345")
            .await,
        200
    );
    up.stop(&data).await;

    let up = Up::start(&data, &["--auth", "keys"]).await;
    assert_eq!(key(), first, "it is the same one");
    assert_eq!(ask(up.port, "", "/profiles/12345").await, 401);
    assert_eq!(ask(up.port, &format!("Authorization: Bearer {first}\r\n"), "/profiles/12345").await, 200);
    up.stop(&data).await;
}
