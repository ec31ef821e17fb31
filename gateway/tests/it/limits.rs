//! How much is too much.

use hyper::Method;
use serde_json::json;

use weir_stack::testing::eventually;

use crate::support::{House, Reply, SOON, UNLIMITED, WEBHOOK, message, message_with};

const SOURCES: &str = r#"
[[source]]
name = "messenger"
per_client = "1/s burst 3"

[[source]]
name = "small"
per_client = "off"
rate = "2/s burst 5"
"#;

fn is_limited(reply: &Reply, scope: &str, policy: &str) {
    assert_eq!((reply.status, reply.problem()), (429, format!("rate-{scope}")), "{reply:?}");
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=3).contains(&seconds));
    assert_eq!(reply.header("ratelimit"), format!("\"{scope}\";r=0;t={seconds}"));
    assert_eq!(reply.header("ratelimit-policy"), policy);
}

#[tokio::test]
async fn a_client_over_its_limit_is_refused_and_others_are_not() {
    let house = House::with(SOURCES, &[]).await;
    for id in ["a", "b", "c"] {
        house.post(&message(id)).await.accepted();
    }
    is_limited(&house.post(&message("d")).await, "client", "\"client\";q=3;w=3");
    house.post(&message_with("e", "external_client_id", "another")).await.accepted();
    assert_eq!(house.entries().await.len(), 4);
}

#[tokio::test]
async fn a_source_over_its_limit_is_refused_and_others_are_not() {
    let house = House::with(SOURCES, &[]).await;
    for id in ["a", "b", "c", "d", "e"] {
        house.gateway.client.post("/in/small", &message(id)).await.accepted();
    }
    let reply = house.gateway.client.post("/in/small", &message("f")).await;
    is_limited(&reply, "source", "\"source\";q=5;w=3");
    house.post(&message("a")).await.accepted();
}

#[tokio::test]
async fn a_batch_counts_with_all_its_messages() {
    let house = House::with(SOURCES, &[]).await;
    let batch = |names: &[&str]| json!(names.iter().map(|name| message(name)).collect::<Vec<_>>());
    let reply = house.gateway.client.post("/in/small/batch", &batch(&["a", "b", "c", "d"])).await;
    assert_eq!(reply.status, 200);
    let reply = house.gateway.client.post("/in/small/batch", &batch(&["e", "f"])).await;
    is_limited(&reply, "source", "\"source\";q=5;w=3");

    let reply = house.gateway.client.post("/in/messenger/batch", &batch(&["a", "b", "c", "d"])).await;
    let codes: Vec<_> = reply.json()["results"].as_array().unwrap().iter().map(|item| item["code"].clone()).collect();
    assert_eq!(codes, [202, 202, 202, 429]);
}

#[tokio::test]
async fn an_address_over_its_limit_is_refused_before_its_body_is_read() {
    let flags = [("gateway.trusted_proxies", "127.0.0.1,10.0.0.0/8"), ("limit.per_address", "1/s burst 2")];
    let house = House::with(UNLIMITED, &flags).await;
    let from = async |address: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("x-forwarded-for", address)];
        house.gateway.client.send(Method::POST, WEBHOOK, &headers, body.to_owned()).await
    };
    from("203.0.113.7", &message("a").to_string()).await.accepted();
    from("203.0.113.7, 10.1.2.3", &message("b").to_string()).await.accepted();
    is_limited(&from("6.6.6.6, 203.0.113.7", "no JSON").await, "address", "\"address\";q=2;w=2");
    from("203.0.113.8", &message("c").to_string()).await.accepted();
    for id in ["d", "e", "f", "g"] {
        // The proxy itself, which is trusted.
        house.post(&message(id)).await.accepted();
        from("10.1.2.3", &message(&id.repeat(2)).to_string()).await.accepted();
    }
}

#[tokio::test]
async fn bodies_in_pieces_share_their_memory_and_short_messages_pass() {
    let house = House::with(UNLIMITED, &[("limit.body_memory", "100KiB"), ("http.body_rate", "0")]).await;
    let post = "POST /in/messenger/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let mut slow = house.gateway.connect().await;
    slow.write(format!("{post}content-length: 100000\r\n\r\n[{}", " ".repeat(70_000))).await;
    let long = json!([message_with("a", "x", "y".repeat(50_000))]);
    let client = &house.gateway.client;
    eventually("there is no room", SOON, async || client.post("/in/messenger/batch", &long).await.status == 503).await;
    client.post("/in/messenger/batch", &long).await.is_unavailable("in-flight");
    house.post(&message("b")).await.accepted();
    drop(slow);
    eventually("there is room again", SOON, async || client.post("/in/messenger/batch", &long).await.status == 200)
        .await;
}

#[tokio::test]
async fn without_trusted_proxies_forwarded_addresses_are_ignored() {
    let house = House::with(UNLIMITED, &[("limit.per_address", "1/s burst 2")]).await;
    let headers = [("content-type", "application/json"), ("x-forwarded-for", "203.0.113.7")];
    for id in ["a", "b", "c", "d"] {
        // Loopback has no limit.
        house.gateway.client.send(Method::POST, WEBHOOK, &headers, message(id).to_string()).await.accepted();
    }
}
