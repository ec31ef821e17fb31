//! Many messages in one request.

use serde_json::{Value, json};
use weir_stack::testing::eventually;

use crate::support::{House, Reply, SOON, message, message_with};

const BATCH: &str = "/api/v1/webhook/batch";

fn results(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["results"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_message_of_a_batch_gets_its_own_answer_in_order() {
    let house = House::new().await;
    let first = house.post(&message("old")).await.accepted();
    let large = message_with("large", "x", "y".repeat(70_000));
    let batch = json!([
        message("a"),
        message("old"),
        message_with("old", "message_text", "other"),
        message_with("b", "send_at", 1),
        7,
        message("a"),
        large,
        message("b")
    ]);
    let reply = house.gateway.client.post(BATCH, &batch).await;
    let results = results(&reply);
    let codes: Vec<_> = results.iter().map(|item| item["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [202, 200, 409, 422, 400, 200, 413, 202]);
    assert_eq!(results[1]["message_id"], first);
    assert_eq!(results[2]["problem"]["message_id"], first);
    assert_eq!(results[3]["problem"]["errors"][0]["field"], "send_at");
    assert_eq!((&results[4]["status"], &results[4]["problem"]["status"]), (&json!("rejected"), &json!(400)));
    assert_eq!(results[5]["message_id"], results[0]["message_id"]);
    assert_eq!(house.entries().await.len(), 3);
}

#[tokio::test]
async fn few_long_messages_are_not_taken_for_many_by_their_bytes() {
    let house = House::with(crate::support::UNLIMITED, &[("limit.in_flight", "9")]).await;
    let batch: Vec<_> = (0..9).map(|i| message_with(&i.to_string(), "message_text", "y".repeat(4000))).collect();
    let reply = house.gateway.client.post(BATCH, &json!(batch)).await;
    assert!(results(&reply).iter().all(|result| result["code"] == 202), "{reply:?}");
    let short: Vec<_> = (0..10).map(|i| message(&format!("s{i}"))).collect();
    house.gateway.client.post(BATCH, &json!(short)).await.is_unavailable("in-flight");
}

#[tokio::test]
async fn a_thousand_messages_take_one_round_trip() {
    let house = House::with(crate::support::UNLIMITED, &[("gateway.check_every", "1h")]).await;
    house.post(&message("warm")).await.accepted();
    let batch: Vec<_> = (0..1000).map(|i| message(&i.to_string())).collect();
    let before = house.calls().await;
    let reply = house.gateway.client.post(BATCH, &json!(batch)).await;
    assert_eq!(house.calls().await - before, 1);
    let results = results(&reply);
    assert_eq!(results.len(), 1000);
    let entries = house.entries().await;
    for (at, (result, entry)) in results.iter().zip(&entries[1..]).enumerate() {
        assert_eq!((&result["code"], &result["message_id"]), (&json!(202), &json!(format!("0-{}", entry.id))));
        let envelope: Value = serde_json::from_slice(&entry.fields["e"]).unwrap();
        assert_eq!(envelope["id"], at.to_string());
    }
}

#[tokio::test]
async fn an_empty_batch_or_too_large_a_one_is_refused_whole() {
    let house = House::new().await;
    let many: Vec<_> = (0..1001).map(|i| message(&i.to_string())).collect();
    for batch in [json!([]), json!(many), message("a"), json!("x")] {
        let reply = house.gateway.client.post(BATCH, &batch).await;
        assert_eq!((reply.status, reply.problem().as_str()), (400, "not-json"));
    }
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn a_batch_of_which_nothing_could_be_accepted_is_refused_with_its_reason() {
    let mut house = House::with(crate::support::UNLIMITED, &[("gateway.check_every", "1h")]).await;
    house.set("maxmemory", "1mb").await;
    house.gateway.client.post(BATCH, &json!([message("a"), message("b")])).await.is_unavailable("memory");
    house.set("maxmemory", "0").await;
    house.gateway.ready().await;
    let mixed = json!([message("a"), 7]);
    assert_eq!(results(&house.gateway.client.post(BATCH, &mixed).await).len(), 2);
    house.redis.kill().await;
    eventually("Redis is missed", SOON, async || house.gateway.client.post(BATCH, &mixed).await.status == 503).await;
    house.redis.restart().await.unwrap();
}
