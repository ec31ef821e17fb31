use std::time::Duration;

use serde_json::{Value, json};
use weir_core::dead_letter::DeadLetter;
use weir_core::message::{Message, MessageId};
use weir_core::queue::consume::Lane;
use weir_stack::testing::eventually;

use crate::letters::{Hand, PHONE, TEXT, accept, message, plant};
use crate::support::{NOBODY, PATIENCE, Stack, assert_help};

/// What `message show` says to programs, which must be the same by external id and by message id.
async fn show(stack: &Stack, id: MessageId, external: &str) -> Value {
    let by_id = stack.run(&["message", "show", &id.to_string(), "--output", "json"]).await.code(0).json();
    let ended = stack.run(&["message", "show", external, "--output", "json"]).await.code(0);
    for hidden in [PHONE, TEXT] {
        assert!(!ended.text().contains(hidden), "{ended:?}");
    }
    let json = ended.json();
    let told = |json: &Value| {
        ["message_id", "source", "external_message_id", "accepted_at", "trace_id", "row"].map(|name| json[name].clone())
    };
    assert_eq!(told(&by_id), told(&json));
    assert_eq!(json["message_id"], id.to_string());
    assert_eq!((&json["source"], &json["external_message_id"]), (&json!("messenger"), &json!(external)));
    assert_eq!(json["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    json
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_waits_says_how_many_are_before_it() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    let names: Vec<_> = (0..40).map(|n| format!("m-{n}")).collect();
    let messages: Vec<_> = names.iter().map(|name| message(name)).collect();
    let ids = accept(&queue, &messages).await;
    let last = ids.last().unwrap();
    let before = ids.iter().filter(|id| id.partition == last.partition).count() - 1;
    let json = show(&stack, *last, "m-39").await;
    let now = &json["now"][0];
    assert_eq!((&now["state"], &now["stream"], &now["before"]), (&json!("waiting"), &json!("ingest"), &json!(before)));
    assert_eq!((&json["entry"], &json["partition"]), (&json!(last.entry()), &json!(last.partition)));
    let text = stack.run(&["message", "show", "m-39"]).await.code(0);
    text.says(&["waiting in ingest", &format!("{before} before it"), "accepted into partition"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_through_every_place_of_the_queue() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    let id = accept(&queue, &[message("traveller")]).await[0];
    let hand = Hand::join(&queue, "hand-1").await;
    let state = async || show(&stack, id, "traveller").await["now"].clone();

    let held = hand.read(Lane::Ingest).await;
    let now = state().await;
    assert_eq!((&now[0]["state"], &now[0]["worker"]), (&json!("processing"), &json!("hand-1")), "{now}");

    hand.delay(&held, Duration::from_millis(1)).await;
    let now = state().await;
    assert_eq!((&now[0]["state"], &now[0]["attempts"]), (&json!("retry_later"), &json!(2)), "{now}");

    eventually("the retry is due", PATIENCE, async || queue.bring_back_due(id.partition, 10).await.unwrap() == 1).await;
    let now = state().await;
    assert_eq!((&now[0]["state"], &now[0]["stream"]), (&json!("waiting"), &json!("retry")), "{now}");

    hand.read(Lane::Retry).await;
    queue.declare_dead(id.partition, "hand-1").await.unwrap();
    let reaper = Hand::join(&queue, "reaper").await;
    queue.reap(id.partition, "reaper", false).await.unwrap().expect("a dead worker");
    let now = state().await;
    assert_eq!((&now[0]["state"], &now[0]["stream"]), (&json!("waiting"), &json!("suspect")), "{now}");

    reaper.park(&reaper.read(Lane::Suspect).await).await;
    let now = state().await;
    assert_eq!((&now[0]["state"], &now[0]["class"]), (&json!("parked"), &json!("version")), "{now}");

    stack.run(&["dlq", "replay", "--parked", "--all", "--yes", "--wait", "0s"]).await.code(0);
    let replayed = show(&stack, id, "traveller").await;
    assert!(replayed["replay"].is_string(), "{replayed}");
    reaper.bury(&reaper.read(Lane::Retry).await, |_| {}).await;
    let json = show(&stack, id, "traveller").await;
    assert_eq!((&json["now"][0]["state"], &json["now"][0]["code"]), (&json!("dead"), &json!("22021")), "{json}");
    assert!(json["row"].is_null());
    let text = stack.run(&["message", "show", "traveller"]).await.code(0);
    text.says(&["dead letter", "attempt 1 by worker-7 failed", "given up", "value 17 is too long"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_message_names_its_row() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    let id = accept(&queue, &[message("stored")]).await[0];
    stack.worker(&[]).await;
    eventually("it is stored", PATIENCE, async || queue.balance().await.unwrap().stored == 1).await;
    let json = show(&stack, id, "stored").await;
    let row = &json["row"];
    assert_eq!((&row["partition_table"], &row["message_id"]), (&json!("messages_before_2025"), &json!(id.to_string())));
    for name in ["row_id", "dialog_id", "client_id", "stored_at", "accept_to_row_ms"] {
        assert!(!row[name].is_null(), "{name} in {json}");
    }
    assert_eq!(json["now"], json!([]));
    stack.run(&["message", "show", "stored"]).await.code(0).says(&[
        "in messages_before_2025",
        "accept to row",
        "stored: ",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_message_is_found_when_redis_has_forgotten_it() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    let id = accept(&queue, &[message("stored")]).await[0];
    stack.worker(&[]).await;
    eventually("it is stored", PATIENCE, async || queue.balance().await.unwrap().stored == 1).await;
    let bucket = queue.keys(id.partition).seen_meta.clone();
    queue.command::<i64>(redis::cmd("DEL").arg(bucket).arg(&queue.keys(id.partition).ingest)).await.unwrap();
    show(&stack, id, "stored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_message_is_found_when_its_id_was_forgotten() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant(&queue, &["forgotten"], |_| {}).await;
    for partition in 0..4 {
        queue.command::<i64>(redis::cmd("DEL").arg(&queue.keys(partition).seen_meta)).await.unwrap();
    }
    let json = stack.run(&["message", "show", "forgotten", "--output", "json"]).await.code(0).json();
    assert_eq!(json["now"][0]["state"], "dead", "{json}");
    assert!(json["message_id"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_have_ids_of_their_own() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    accept(&queue, &[Message { source: "crm".into(), ..message("77") }]).await;
    stack.run(&["message", "show", "77"]).await.code(3).says(&["--source NAME"]);
    let json = stack.run(&["message", "show", "77", "--source", "crm", "--output", "json"]).await.code(0).json();
    assert_eq!(json["source"], "crm");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_id_that_looks_like_a_message_id_is_found_too() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    accept(&queue, &[message("3-1732233600000-12")]).await;
    let json = stack.run(&["message", "show", "3-1732233600000-12", "--output", "json"]).await.code(0).json();
    assert_eq!(json["external_message_id"], "3-1732233600000-12");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_id_ends_with_code_3() {
    let stack = Stack::new().await;
    stack.prepared().await;
    for id in ["nobody", "3-1732233600000-12", "9-1-1", "3-18446744073709551615-0"] {
        let ended = stack.run(&["message", "show", id, "--output", "json"]).await.code(3);
        assert_eq!(ended.json(), Value::Null, "{id}");
        ended.says(&["Nothing is known"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_the_queue_is_shown_all_the_same() {
    let mut stack = Stack::new().await;
    stack.set("WEIR_DATABASE_URL", &format!("postgres://weir:hunter2@{NOBODY}/weir"));
    let queue = stack.prepared().await;
    plant(&queue, &["dead"], |letter: &mut DeadLetter| letter.class = "conflict".into()).await;
    let ended = stack.run(&["message", "show", "dead"]).await.code(0);
    assert!(!ended.text().contains("hunter2"), "{ended:?}");
    ended.says(&["dead letter", "conflict", "whether it is stored cannot be said"]);
    stack.run(&["message", "show", "nobody"]).await.code(3).says(&["whether it is stored cannot be said"]);
}

#[test]
fn help_has_examples() {
    assert_help!("message");
    assert_help!("message" "show");
}
