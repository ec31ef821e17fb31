use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use weir_core::queue::keys::Keys;

use crate::support::{NOBODY, Stack, assert_help};

/// What is wrong, as one text.
fn problems(status: &serde_json::Value) -> String {
    let all = status["problems"].as_array().unwrap();
    all.iter().map(|problem| problem.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_fine_when_a_gateway_and_a_worker_run() {
    let mut stack = Stack::new().await;
    let url = format!("http://{}", stack.gateway(&[]).await);
    stack.worker(&[]).await;
    stack.run(&["send", "--count", "50", "--url", &url]).await.code(0);
    let status = stack.run(&["status", "--output", "json"]).await.code(0).json();
    assert_eq!(status["ok"], true, "{status}");
    let balance = &status["balance"];
    assert_eq!((&balance["accepted"], &balance["stored"], &balance["drift"]), (&50.into(), &50.into(), &0.into()));
    assert_eq!(status["partitions"].as_array().unwrap().len(), 4);
    assert_eq!(status["gateways"][0]["ready"], true);
    assert_eq!(status["fleet"]["workers"][0]["state"], "running");
    let table = stack.run(&["status", "--partitions"]).await.code(0);
    table.says(&["durability disk kept", "schema current", "1 running", "drift", "PARTITION", "ready"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_and_the_exit_code_says_so() {
    let stack = Stack::new().await;
    let status = stack.run(&["status", "--output", "json"]).await.code(3).json();
    let problems = problems(&status);
    for part in ["no gateway accepts messages", "no worker runs"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
    stack.run(&["status"]).await.code(3).says(&["! no worker runs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_down_do_not_hide_the_others() {
    let mut stack = Stack::new().await;
    stack.redis.stop().await;
    let status = stack.run(&["status", "--output", "json"]).await.code(3).json();
    assert_eq!((&status["redis"]["reachable"], &status["balance"]), (&false.into(), &json!(null)));
    assert_eq!(status["database"]["schema_current"], true);

    stack.redis.restart().await.unwrap();
    stack.set("WEIR_DATABASE_URL", &format!("postgres://weir:hunter2@{NOBODY}/weir"));
    let ended = stack.run(&["status", "--output", "json"]).await.code(3);
    assert!(!ended.text().contains("hunter2"), "{ended:?}");
    let status = ended.json();
    assert_eq!((&status["redis"]["reachable"], &status["database"]["reachable"]), (&true.into(), &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_redis_an_old_schema_and_a_drift_are_not_right() {
    let stack = Stack::with_redis(&[("appendfsync", "everysec")]).await;
    let queue = stack.prepared().await;
    let count = Keys::new(0).count;
    queue.command::<i64>(redis::cmd("HINCRBY").arg(&count).arg("accepted").arg(5)).await.unwrap();
    stack.run(&["migrate", "down", "--yes"]).await.code(0);
    let status = stack.run(&["status", "--output", "json"]).await.code(3).json();
    assert_eq!(status["balance"]["drift"], 5);
    let problems = problems(&status);
    for part in ["appendfsync is everysec", "weir migrate up", "a drift of 5"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
    stack.run(&["status"]).await.code(3).says(&["durability disk NOT kept", "schema NOT current", "! the balance has"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_where_is_shown_without_passwords() {
    let mut stack = Stack::new().await;
    let gateway = format!("http://{}", stack.gateway(&[]).await);
    let redis = stack.redis.url();
    let file = json!({
        "pid": std::process::id(), "version": "0.1.0", "started_ms": 1, "gateway": [gateway], "ops": null,
        "redis": {"url": redis, "pid": stack.redis.pid()},
        "database": {"url": stack.database, "pid": null},
        "processes": [
            {"name": "gateway", "role": "gateway", "pid": 77, "state": "running", "ops": null, "restarts": 3,
             "log": "/tmp/gateway.log"},
        ],
    });
    std::fs::write(stack.data().join("stack.json"), file.to_string()).unwrap();
    let status = stack.run(&["status", "--output", "json"]).await.code(3).json();
    let mut shown = file.clone();
    for server in ["redis", "database"] {
        let url = file[server]["url"].as_str().unwrap();
        let (scheme, host) = (url.split_once("://").unwrap().0, url.rsplit_once('@').unwrap().1);
        shown[server]["url"] = format!("{scheme}://***@{host}").into();
    }
    assert_eq!(status["stack"], shown);
    assert_eq!(status["gateways"], json!([{"address": gateway, "ready": true, "reasons": []}]));

    let table = stack.run(&["status"]).await.code(3).says(&["redis://***@", "postgres://***@", "/tmp/gateway.log"]);
    for url in [&redis, &stack.database] {
        let password = url.split(['@', '/']).nth(2).unwrap().rsplit(':').next().unwrap();
        assert!(!table.text().contains(password), "{password}: {table:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_server_the_way_to_start_is_told() {
    let mut stack = Stack::new().await;
    stack.set("WEIR_REDIS_URL", "");
    stack.set("WEIR_DATABASE_URL", "");
    stack.run(&["status"]).await.code(3).says(&["weir up", "WEIR_REDIS_URL"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_until_it_is_interrupted() {
    let stack = Stack::new().await;
    stack.prepared().await;
    let mut command = stack.weir(&["status", "--watch", "--every", "100ms"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains("backlog 0") && line.contains("drift 0"), "{line}");
    }
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[test]
fn help_of_status_is_as_it_was() {
    assert_help!("status");
}
