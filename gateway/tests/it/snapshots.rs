//! The answers as people read them.

use std::fmt::Write as _;

use hyper::Method;
use serde_json::{Value, json};

use crate::support::{House, Reply, WEBHOOK, message, message_with};

/// Status, headers and body, with what differs from run to run taken out.
fn show(title: &str, reply: &Reply) -> String {
    let mut text = format!("--- {title}\n{}\n", reply.status);
    let mut headers: Vec<_> = reply.headers.iter().filter(|(name, _)| *name != "date").collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in headers {
        let varies = name == "retry-after" || name == "content-length";
        let value = if varies { "N" } else { value.to_str().unwrap() };
        writeln!(text, "{name}: {value}").unwrap();
    }
    if let Ok(mut body) = serde_json::from_slice::<Value>(&reply.bytes) {
        hide_ids(&mut body);
        writeln!(text, "{}", serde_json::to_string_pretty(&body).unwrap()).unwrap();
    }
    text
}

fn hide_ids(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "message_id" {
                    *member = json!("P-MS-SEQ");
                } else {
                    hide_ids(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_ids),
        _ => {}
    }
}

const FILE: &str = r#"
[[source]]
name = "messenger"

[[source]]
name = "secret"
secret = "a-long-secret"

[[source]]
name = "slow"
rate = "1/s burst 1"
"#;

#[tokio::test]
async fn answers_to_one_message() {
    let house = House::with(FILE, &[("gateway.check_every", "1h")]).await;
    let client = &house.gateway.client;
    let json = [("content-type", "application/json")];
    let gzip = [json[0], ("content-encoding", "gzip")];
    let wrong =
        json!({ "external_message_id": "a b", "external_client_id": 7, "client_phone": "8", "message_text": "" });
    let large = message_with("a", "x", "y".repeat(70_000));
    let body = message("a").to_string();
    let mut all = vec![
        show("new", &house.post(&message("a")).await),
        show("duplicate", &house.post(&message("a")).await),
        show("conflict", &house.post(&message_with("a", "message_text", "x")).await),
        show("could accept", &client.send(Method::GET, WEBHOOK, &[], "").await),
        show("no object", &client.send(Method::POST, WEBHOOK, &json, "[1").await),
        show("wrong fields", &house.post(&wrong).await),
        show("too large", &house.post(&large).await),
        show("wrong type", &client.send(Method::POST, WEBHOOK, &[], body.clone()).await),
        show("compressed", &client.send(Method::POST, WEBHOOK, &gzip, body).await),
        show("unknown path", &client.post("/in/nobody", &message("a")).await),
        show("wrong method", &client.send(Method::DELETE, WEBHOOK, &[], "").await),
        show("no secret", &client.post("/in/secret", &message("a")).await),
    ];
    client.post("/in/slow", &message("a")).await.accepted();
    all.push(show("too many", &client.post("/in/slow", &message("b")).await));
    house.set("maxmemory", "1mb").await;
    all.push(show("out of memory", &house.post(&message("b")).await));
    insta::assert_snapshot!(all.concat());
}

#[tokio::test]
async fn answers_to_a_batch() {
    let house = House::with(FILE, &[]).await;
    let batch = json!([message("a"), message("a"), message_with("a", "send_at", 1_700_000_000), {"send_at": 1}, "x"]);
    let reply = house.gateway.client.post("/in/messenger/batch", &batch).await;
    let empty = house.gateway.client.post("/in/messenger/batch", &json!([])).await;
    insta::assert_snapshot!([show("mixed", &reply), show("empty", &empty)].concat());
}
