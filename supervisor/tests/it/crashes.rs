//! Roles that do not come up.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;
use weir_stack::testing::{Scratch, eventually, scratch};

use crate::http::accepts;
use crate::support::{Ended, PATIENCE, WEIR, clean};
use crate::up::{Up, kill, run, stack};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_mistake_in_its_configuration_names_it_and_does_not_try_to_bind() {
    let data = scratch();
    // It would say so if it tried.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = format!("gateway.listen={}", taken.local_addr().expect("an address"));
    for (setting, named) in [("gateway.drian=10s", "gateway.drian"), ("gateway.drain=soon", "gateway.drain = \"soon\"")]
    {
        let mut command = Command::new(WEIR);
        clean(&mut command).current_dir(data.path()).env("WEIR_REDIS_URL", "redis://127.0.0.1:1/0");
        command.args(["gateway", "--set", &listen, "--set", setting]);
        let ended = Ended::of(command).await.code(2).says(&[named]);
        assert!(!ended.text().contains("cannot listen"), "{ended:?}");
    }
}

fn process(data: &Scratch, name: &str) -> Value {
    let stack = stack(data);
    let mut all = stack["processes"].as_array().expect("processes").iter();
    all.find(|process| process["name"] == name).expect("a process").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crashes_again_and_again_is_given_up_and_gets_another_chance_when_somebody_says_so() {
    let data = scratch();
    let up = Up::start_with(&data, &["--workers", "1"], &[]);
    accepts(up.port).await;
    // Whoever starts from now on meets a mistake; operators have a file of their own.
    let broken = data.path().join("weir.toml");
    fs::write(&broken, "[worker]\nbtach = 7\n").expect("a configuration");
    let own = data.path().join("own.toml");
    fs::write(&own, "").expect("a configuration");
    let own = own.to_str().expect("a path");
    for name in ["gateway", "worker-1"] {
        kill(process(&data, name)["pid"].as_u64().expect("it runs"));
    }
    eventually("both are given up", PATIENCE, async || {
        ["gateway", "worker-1"].iter().all(|name| process(&data, name)["state"] == "given up")
    })
    .await;
    let starts = |log: &str| log.matches("worker.btach is no setting").count();
    for name in ["gateway", "worker-1"] {
        assert_eq!(process(&data, name)["restarts"], 6, "{name}");
        let log = fs::read_to_string(data.path().join(format!("weir/log/{name}.log"))).expect("a log");
        assert_eq!(starts(&log), 5, "the kill was its first crash: {log}");
    }
    let status = run(&data, &["status", "--config", own]).await.code(3);
    status.says(&["gateway crashes again and again and was given up", "worker-1 crashes again", "weir fleet restart"]);
    let list = run(&data, &["fleet", "list", "--config", own, "--output", "json"]).await.code(0).json();
    assert_eq!(list["supervisors"][0]["given_up"], 2, "{list}");

    fs::remove_file(&broken).expect("no configuration");
    // The size that it has already.
    run(&data, &["fleet", "scale", "1"]).await.code(0).says(&["has 1 workers"]);
    eventually("the worker runs", PATIENCE, async || process(&data, "worker-1")["state"] == "running").await;
    run(&data, &["fleet", "restart", "--gateways", "--yes"]).await.code(0);
    accepts(up.port).await;
    up.stop(&data).await;
}
