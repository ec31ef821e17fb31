//! A bug of ours panics in one part: the gateway must not go on answering without that part.

use serde_json::json;
use tokio::net::TcpStream;
use weir_stack::testing::Trap;

use crate::support::{House, UNLIMITED, message};

#[tokio::test]
async fn a_batch_that_panics_is_unknown_and_the_next_one_does_not_wait_for_it() {
    let trap = Trap::set(1, &["a batch was not written"]);
    let house = House::with(UNLIMITED, &[("gateway.check_every", "1h")]).await;
    house.set("maxmemory", "1mb").await;
    let batch: Vec<_> = (0..100).map(|id| message(&id.to_string())).collect();
    let reply = house.gateway.client.post("/api/v1/webhook/batch", &json!(batch)).await;
    reply.is_unavailable("unknown");
    assert_eq!(trap.sprung(), 1);
    house.set("maxmemory", "0").await;
    for message in &batch {
        house.post(message).await.accepted();
    }
    assert_eq!(house.entries().await.len(), 100);
}

#[tokio::test]
async fn a_gateway_whose_guard_panics_ends_instead_of_accepting_blindly() {
    let mut house = House::new().await;
    house.post(&message("a")).await.accepted();
    let trap = Trap::set(1, &["message=readiness"]);
    house.set("appendfsync", "everysec").await;
    house.gateway.broken().await;
    assert_eq!(trap.sprung(), 1);
    assert!(TcpStream::connect(house.gateway.address).await.is_err(), "nobody listens any more");
    assert_eq!(house.entries().await.len(), 1);
}
