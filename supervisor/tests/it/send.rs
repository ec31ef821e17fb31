use std::sync::atomic::{AtomicBool, Ordering};

use weir_stack::testing::eventually;
use weir_stack::{Direction, FaultProxy};

use crate::support::{NOBODY, PATIENCE, Stack, assert_help};

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_sent_arrives_and_repeats_are_known() {
    let mut stack = Stack::new().await;
    let address = stack.gateway(&[]).await;
    stack.worker(&[]).await;
    let url = format!("http://{address}");
    let args = ["send", "--count", "600", "--duplicates", "20", "--seed", "7", "--url", &url, "--output", "json"];
    let sent = stack.run(&args).await.code(0).json();
    let (accepted, duplicates) = (sent["accepted"].as_u64().unwrap(), sent["duplicates"].as_u64().unwrap());
    assert_eq!(accepted + duplicates, 600, "{sent}");
    assert!((60..200).contains(&duplicates), "{sent}");
    assert_eq!(sent["arrival"]["checked_by"], "rows");
    assert_eq!(sent["arrival"]["stored"].as_u64(), Some(accepted), "every id is one row: {sent}");
    assert!(sent["latency"]["p50_ms"].as_f64().unwrap() <= sent["latency"]["max_ms"].as_f64().unwrap());

    let again = stack.run(&args).await.code(0).json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&0.into(), &600.into()), "the same seed: {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_arrive_too() {
    let mut stack = Stack::new().await;
    let address = stack.gateway(&[]).await;
    stack.worker(&[]).await;
    let url = format!("http://{address}");
    let sent = stack.run(&["send", "--count", "730", "--batch", "100", "--url", &url]).await.code(0);
    sent.says(&["730 rows, 0 dead letters, 0 missing", "accepted", "p99"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_arrives_is_listed() {
    let mut stack = Stack::new().await;
    let url = format!("http://{}", stack.gateway(&[]).await);
    let args = ["send", "--count", "25", "--url", &url, "--wait", "300ms", "--output", "json"];
    let sent = stack.run(&args).await.code(3).json();
    assert_eq!((&sent["accepted"], &sent["arrival"]["missing"]), (&25.into(), &25.into()), "{sent}");
    assert_eq!(sent["arrival"]["missing_ids"].as_array().unwrap().len(), 10);
    let unchecked = stack.run(&["send", "--count", "5", "--url", &url, "--wait", "0s"]).await.code(0);
    unchecked.says(&["not checked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_has_arrived() {
    let mut stack = Stack::new().await;
    let url = format!("http://{}", stack.gateway(&[]).await);
    let refuse = "ALTER TABLE messages ADD CONSTRAINT no_hello CHECK (text NOT LIKE 'Привет%') NOT VALID";
    weir_store::testing::execute(&stack.database, refuse).await.unwrap();
    stack.worker(&[("retry.constraint.attempts", "1")]).await;
    let sent = stack.run(&["send", "--count", "200", "--url", &url, "--output", "json"]).await.code(0).json();
    let (stored, dead) = (sent["arrival"]["stored"].as_u64().unwrap(), sent["arrival"]["dead"].as_u64().unwrap());
    assert!(dead > 5 && stored + dead == 200, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_the_balance_of_the_queue_is_asked() {
    let mut stack = Stack::new().await;
    let url = format!("http://{}", stack.gateway(&[]).await);
    stack.worker(&[]).await;
    stack.set("WEIR_DATABASE_URL", &format!("postgres://weir:hunter2@{NOBODY}/weir"));
    let ended = stack.run(&["send", "--count", "40", "--url", &url, "--output", "json"]).await.code(0);
    assert!(!ended.text().contains("hunter2"));
    let sent = ended.json();
    assert_eq!((&sent["arrival"]["checked_by"], &sent["arrival"]["missing"]), (&"balance".into(), &0.into()), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_secret_gets_it_from_the_environment() {
    let mut stack = Stack::new().await;
    let file = stack.data().join("weir.toml");
    std::fs::write(&file, "[[source]]\nname = \"tg\"\nsecret = \"s3cret-s3cret\"\nproof = \"hmac-sha256\"\n").unwrap();
    let url = format!("http://{}", stack.gateway_from(&file).await);
    // As configured here, signed.
    stack.run(&["send", "--source", "tg", "--count", "5", "--url", &url, "--wait", "0s"]).await.code(0);
    stack.set("WEIR_SEND_SECRET", "wrong-wrong");
    let args = ["send", "--source", "tg", "--count", "5", "--url", &url, "--wait", "0s", "--output", "json"];
    let refused = stack.run(&args).await.code(3);
    assert!(!refused.text().contains("wrong-wrong"));
    assert_eq!(refused.json()["refused"]["401"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_now_is_sent_again_with_its_id() {
    let mut stack = Stack::new().await;
    let url = format!("http://{}", stack.gateway(&[]).await);
    // One client may send 200 at once: the rest comes at 20 a second.
    let args = ["send", "--count", "210", "--clients", "1", "--url", &url, "--wait", "0s", "--output", "json"];
    let sent = stack.run(&args).await.code(0).json();
    assert_eq!(sent["accepted"], 210, "{sent}");
    assert!(sent["retried"].as_u64().unwrap() > 0, "{sent}");
    let given_up = ["send", "--count", "300", "--clients", "1", "--url", &url, "--wait", "0s", "--give-up", "0s"];
    stack.run(&given_up).await.code(3).says(&["with 429"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_on_the_way_is_asked_for_again() {
    let mut stack = Stack::new().await;
    let proxy = FaultProxy::start(stack.gateway(&[]).await).await;
    stack.worker(&[]).await;
    let (faults, cut) = (proxy.faults(), AtomicBool::new(false));
    proxy.watch(b"HTTP/1.1 202".to_vec(), Direction::Reply, move || {
        if !cut.swap(true, Ordering::Relaxed) {
            faults.cut();
        }
    });
    let url = format!("http://{}", proxy.addr());
    let args = ["send", "--count", "40", "--concurrency", "4", "--url", &url, "--output", "json"];
    let sent = stack.run(&args).await.code(0).json();
    assert!(sent["retried"].as_u64().unwrap() > 0, "{sent}");
    assert_eq!(
        (&sent["accepted"], &sent["duplicates"], &sent["unknown"]),
        (&40.into(), &0.into(), &0.into()),
        "{sent}"
    );
    assert_eq!(sent["arrival"]["stored"], 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sent_no_faster_than_asked() {
    let mut stack = Stack::new().await;
    let url = format!("http://{}", stack.gateway(&[]).await);
    let args = ["send", "--count", "51", "--rate", "100/s", "--url", &url, "--wait", "0s", "--output", "json"];
    let sent = stack.run(&args).await.code(0).json();
    assert!(sent["seconds"].as_f64().unwrap() >= 0.5, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_says_what_was_sent() {
    let mut stack = Stack::new().await;
    let url = format!("http://{}", stack.gateway(&[]).await);
    let mut command = stack.weir(&["send", "--count", "100000", "--rate", "50/s", "--url", &url, "--output", "json"]);
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    let queue = stack.queue();
    eventually("something is accepted", PATIENCE, async || queue.balance().await.unwrap().accepted > 0).await;
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    let sent: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(sent["accepted"].as_u64().unwrap() > 0 && sent["unsent"].as_u64().unwrap() > 90_000, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_or_does_not_know_the_source_is_named() {
    let mut stack = Stack::new().await;
    let nobody = format!("http://{NOBODY}");
    stack.run(&["send", "--url", &nobody]).await.code(1).says(&["no gateway can be asked", NOBODY, "weir up"]);
    let url = format!("http://{}", stack.gateway(&[]).await);
    stack.run(&["send", "--url", &url, "--source", "fax"]).await.code(1).says(&["does not know /in/fax"]);
    // No TLS is spoken there.
    let url = url.replace("http:", "https:");
    stack.run(&["send", "--url", &url]).await.code(1).says(&["no gateway can be asked", "TLS"]);
}

#[test]
fn help_of_send_is_as_it_was() {
    assert_help!("send");
}
