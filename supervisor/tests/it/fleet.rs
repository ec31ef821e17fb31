use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_core::queue::{Queue, keys};

use crate::support::{Ended, Stack, assert_help};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

async fn put(queue: &Queue, key: &str, fields: &[(&str, &str)]) {
    let mut set = redis::cmd("HSET");
    set.arg(key).arg(fields);
    queue.command::<i64>(&set).await.unwrap();
}

/// A worker's heartbeat.
pub(crate) async fn plant_worker(queue: &Queue, name: &str, more: &[(&str, &str)]) {
    let now = now_ms().to_string();
    let fields = [
        ("host", "web1"),
        ("pid", "4711"),
        ("version", "0.1.0"),
        ("lanes", "ingest retry suspect"),
        ("in_flight", "7"),
        ("rate", "1500"),
        ("state", "running"),
        ("started_ms", &now),
        ("beat_ms", &now),
        ("batch", "1000"),
        ("consumers", name),
    ];
    put(queue, &keys::worker(name), &fields).await;
    if !more.is_empty() {
        put(queue, &keys::worker(name), more).await;
    }
}

/// A lease of a consumer in one partition.
pub(crate) async fn plant_lease(queue: &Queue, partition: u16, consumer: &str, left_ms: u64) {
    let mut add = redis::cmd("ZADD");
    add.arg(&queue.keys(partition).alive).arg(now_ms() + left_ms).arg(consumer);
    queue.command::<i64>(&add).await.unwrap();
}

/// A supervisor that said something just now.
pub(crate) async fn plant_supervisor(queue: &Queue, host: &str) {
    let now = now_ms().to_string();
    let fields = [
        ("min", "1"),
        ("max", "8"),
        ("running", "2"),
        ("given_up", "0"),
        ("supervisor_pid", "99"),
        ("beat_ms", now.as_str()),
    ];
    put(queue, &keys::fleet(host), &fields).await;
}

async fn field(queue: &Queue, key: &str, field: &str) -> Option<String> {
    queue.command(redis::cmd("HGET").arg(key).arg(field)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_worker_is_listed_and_a_silent_one_too() {
    let stack = Stack::new().await;
    let queue = stack.queue();
    stack.run(&["fleet", "list"]).await.code(0).says(&["no worker runs"]);

    plant_worker(&queue, "web.1-4711-ab12", &[("consumers", "web.1-4711-ab12 web.1-4711-ab12.0.1")]).await;
    plant_lease(&queue, 0, "web.1-4711-ab12", 60_000).await;
    plant_lease(&queue, 1, "web.1-4711-ab12.0.1", 50_000).await;
    plant_lease(&queue, 2, "dead-1-ffff.2.0", 40_000).await;
    plant_supervisor(&queue, "web1").await;

    let fleet = stack.run(&["fleet", "list", "--output", "json"]).await.code(0).json();
    let workers = fleet["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2, "{fleet}");
    assert_eq!((&workers[0]["name"], &workers[0]["state"]), (&"dead-1-ffff".into(), &"silent".into()));
    assert_eq!((&workers[1]["pid"], &workers[1]["rate"]), (&4711.into(), &1500.0.into()));
    let left = workers[1]["lease_left_ms"].as_u64().unwrap();
    assert!((1..=50_000).contains(&left), "the shortest of its leases: {left}");
    assert_eq!(fleet["supervisors"][0]["running"], 2);
    stack.run(&["fleet", "list"]).await.code(0).says(&["dead-1-ffff", "silent", "web.1-4711-ab12", "1500/s", "1..8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_from_redis_cannot_drive_the_terminal() {
    let stack = Stack::new().await;
    let state = "paused: \x1b[2J\u{9b}\u{202e}";
    plant_worker(&stack.queue(), "w-1-ab12", &[("state", state)]).await;
    let drives = ['\x1b', '\u{9b}', '\u{202e}'];
    let ended = stack.run(&["fleet", "list"]).await.code(0);
    assert!(!ended.text().contains(drives) && ended.text().contains("paused: \\u{1b}[2J"), "{ended:?}");
    let ended = stack.run(&["fleet", "list", "--output", "json"]).await.code(0);
    assert!(!ended.text().contains(drives), "{ended:?}");
    assert_eq!(ended.json()["workers"][0]["state"], state);
}

/// Runs a command while a supervisor does at once what is wished.
async fn obeyed(stack: &Stack, host: &str, args: &[&str]) -> Ended {
    let (queue, key) = (stack.queue(), keys::fleet(host));
    let obey = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Some(wanted) = field(&queue, &key, "wanted").await {
                put(&queue, &key, &[("running", &wanted)]).await;
            }
        }
    };
    tokio::select! { ended = stack.run(args) => ended, () = obey => unreachable!("it obeys for ever") }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_of_the_only_host_is_scaled() {
    let stack = Stack::new().await;
    let queue = stack.queue();
    plant_supervisor(&queue, "web1").await;
    stack.run(&["fleet", "scale", "5", "--dry-run"]).await.code(0).says(&["would set", "web1"]);
    assert_eq!(field(&queue, &keys::fleet("web1"), "wanted").await, None);

    let late = stack.run(&["fleet", "scale", "5", "--wait", "200ms", "--output", "json"]).await.code(3).json();
    assert_eq!((&late["running"], &late["reached"]), (&2.into(), &false.into()));

    obeyed(&stack, "web1", &["fleet", "scale", "4"]).await.code(0).says(&["web1 has 4 workers"]);
    let none = obeyed(&stack, "web1", &["fleet", "scale", "0", "--yes", "--output", "json"]).await.code(0).json();
    assert_eq!((&none["before"], &none["running"], &none["reached"]), (&"4".into(), &0.into(), &true.into()));
    stack.run(&["fleet", "scale", "auto"]).await.code(0).says(&["auto"]);
    assert_eq!(field(&queue, &keys::fleet("web1"), "wanted").await.as_deref(), Some("auto"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_without_a_clear_host_is_refused() {
    let stack = Stack::new().await;
    let queue = stack.queue();
    stack.run(&["fleet", "scale", "2"]).await.code(1).says(&["no host has a running supervisor"]);
    plant_supervisor(&queue, "web1").await;
    plant_supervisor(&queue, "web2").await;
    stack.run(&["fleet", "scale", "2"]).await.code(1).says(&["web1, web2", "--host"]);
    stack.run(&["fleet", "scale", "2", "--host", "web3"]).await.code(1).says(&["web3", "web1, web2"]);
    stack.run(&["fleet", "scale", "2", "--host", "web2", "--wait", "0s"]).await.code(0);
    assert_eq!(field(&queue, &keys::fleet("web2"), "wanted").await.as_deref(), Some("2"));

    put(&queue, &keys::fleet("web1"), &[("beat_ms", "1")]).await;
    stack.run(&["fleet", "scale", "3", "--wait", "0s"]).await.code(0).says(&["web2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extreme_number_of_workers_has_to_be_meant() {
    let stack = Stack::new().await;
    plant_supervisor(&stack.queue(), "web1").await;
    stack.run(&["fleet", "scale", "0"]).await.code(1).says(&["nothing is stored", "--yes"]);
    stack.run(&["fleet", "scale", "65"]).await.code(1).says(&["64", "--yes"]);
    stack.run(&["fleet", "scale", "0", "--dry-run"]).await.code(0).says(&["would set"]);
    stack.run(&["fleet", "scale", "65", "--yes", "--wait", "0s"]).await.code(0);
    stack.run(&["fleet", "scale", "some"]).await.code(2).says(&["neither a number nor auto"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_drained_by_the_beginning_of_its_name() {
    let stack = Stack::new().await;
    let worker = stack.worker(&[("worker.lease", "1s"), ("worker.name", "web1-4711-ab12")]).await;
    plant_supervisor(&stack.queue(), "elsewhere").await;
    stack.run(&["fleet", "drain", "web1", "--dry-run"]).await.code(0).says(&["would drain web1-4711-ab12"]);
    stack.run(&["fleet", "drain", "web1"]).await.code(0).says(&["web1-4711-ab12 has ended"]);
    assert_eq!(field(&stack.queue(), &keys::worker(&worker), "beat_ms").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_names_what_it_cannot_choose_and_what_comes_after() {
    let stack = Stack::new().await;
    let queue = stack.queue();
    plant_worker(&queue, "web1-1-aaaa", &[]).await;
    plant_worker(&queue, "web1-2-bbbb", &[]).await;
    plant_lease(&queue, 0, "web2-3-cccc", 60_000).await;
    plant_supervisor(&queue, "web1").await;
    stack.run(&["fleet", "drain", "web1"]).await.code(1).says(&["web1-1-aaaa, web1-2-bbbb"]);
    stack.run(&["fleet", "drain", "web3"]).await.code(1).says(&["no worker's name begins with web3"]);
    stack.run(&["fleet", "drain", "web2"]).await.code(1).says(&["no heartbeat"]);
    let late = stack.run(&["fleet", "drain", "web1-2", "--wait", "200ms"]).await.code(3);
    late.says(&["still runs", "starts another worker in its place", "weir fleet scale"]);
    assert!(field(&queue, &keys::worker("web1-2-bbbb"), "drain").await.is_some());
}

#[test]
fn help_of_fleet_is_as_it_was() {
    assert_help!("fleet");
    assert_help!("fleet" "list");
    assert_help!("fleet" "scale");
    assert_help!("fleet" "drain");
    assert_help!("fleet" "restart");
}
