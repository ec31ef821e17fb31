//! Mistakes in the settings, and addresses.

use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_gateway::GatewayError;

use crate::support::{House, message, read_config};

#[test]
fn every_mistake_names_its_setting() {
    for (key, value) in [
        ("gateway.listen", "8095"),
        ("gateway.listen", ","),
        ("gateway.durability", "paper"),
        ("gateway.replicas", "0"),
        ("gateway.replica_timeout", "1h"),
        ("gateway.check_every", "often"),
        ("gateway.drain", "10"),
        ("gateway.batch_timeout", "-1s"),
        ("gateway.trusted_proxies", "10.0.0.0/99"),
        ("limit.per_address", "many"),
        ("limit.per_address", "0/s"),
        ("limit.memory_share", "2"),
        ("limit.in_flight", "-1"),
        ("limit.backlog", "0"),
        ("limit.backlog", "1e6"),
        ("dedupe.window", "24"),
        ("dedupe.remembered", "0"),
        ("http.body_limit", "64 potatoes"),
        ("http.connections", "0"),
        ("http.header_timeout", "0s"),
        ("http.idle_timeout", "0s"),
        ("http.body_timeout", "0s"),
        ("http.write_timeout", "0s"),
        ("http.body_rate", "slow"),
        ("http.connections_per_address", "-1"),
        ("limit.body_memory", "much"),
        ("tls.certificate", "alone.pem"),
        ("tls.key", "alone.pem"),
    ] {
        let Err(error) = read_config("", &[(key, value)]) else { panic!("{key} = {value} was taken") };
        assert!(error.to_string().contains(key), "{key} = {value}: {error}");
    }
}

#[test]
fn settings_of_another_level_of_durability_may_stay() {
    read_config("[gateway]\nreplica_timeout = \"2s\"\nreplicas = 2\n", &[]).unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let house = House::new().await;
    let address = house.gateway.address.to_string();
    let config = read_config("", &[("gateway.listen", &address)]).unwrap();
    let queue = Queue::new(&SecretUrl::new(house.redis.url()), 1).unwrap();
    let Err(error) = weir_gateway::build(config, &queue) else { panic!("it was bound twice") };
    assert!(matches!(error, GatewayError::Bind { .. }));
    assert!(error.to_string().contains(&address) && error.to_string().contains("gateway.listen"), "{error}");
}

#[tokio::test]
async fn it_listens_on_all_its_addresses() {
    let redis = weir_stack::testing::redis().await;
    let config = read_config("", &[("gateway.listen", "127.0.0.1:0, [::1]:0")]).unwrap();
    let queue = Queue::new(&SecretUrl::new(redis.url()), 1).unwrap();
    let gateway = weir_gateway::build(config, &queue).unwrap();
    let addresses = gateway.addresses();
    assert!(addresses[0].is_ipv4() && addresses[1].is_ipv6() && addresses.iter().all(|address| address.port() > 0));
}

#[tokio::test]
async fn at_level_memory_a_redis_without_a_log_will_do() {
    let house = House::with_redis(&[("appendonly", "no")], &[("gateway.durability", "memory")]).await;
    house.gateway.ready().await;
    let reply = house.post(&message("a")).await;
    reply.accepted();
    assert_eq!(reply.text("durability"), "memory");
}
