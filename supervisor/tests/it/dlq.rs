use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use weir_core::message::MessageKey;
use weir_core::queue::Queue;
use weir_core::queue::consume::Lane;
use weir_stack::testing::eventually;

use crate::letters::{Hand, PHONE, TEXT, accept, entries, message, plant, plant_at, plant_messages, plant_rubbish};
use crate::support::{NOBODY, PATIENCE, Stack, assert_help};

fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

/// The external ids of a list.
fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|row| row["external_message_id"].as_str().unwrap().to_owned()).collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m-{n:04}")).collect()
}

async fn plant_many(queue: &Queue, count: usize) {
    let ids = numbered(count);
    plant(queue, &ids.iter().map(String::as_str).collect::<Vec<_>>(), |_| {}).await;
}

/// Letters of every kind: five by messenger, one by max, one that is no message; `old` died three hours ago.
async fn plant_all_kinds(queue: &Queue) {
    plant_at(
        queue,
        MessageKey::new("messenger", "old").partition(4),
        now_ms() - 3 * 3_600_000,
        "old",
        "conflict",
        "3-1-1 has the same id",
    )
    .await;
    plant(queue, &["data-1"], |_| {}).await;
    plant(queue, &["data-2"], |letter| letter.error = "value 9 is too long".into()).await;
    plant_messages(
        queue,
        &[weir_core::message::Message { source: "max".into(), message_text: "say \"hi\"".into(), ..message("max-1") }],
        |_| {},
    )
    .await;
    plant(queue, &["check"], |letter| {
        (letter.class, letter.code, letter.error) =
            ("constraint".into(), "23514".into(), "breaks messages_check".into());
    })
    .await;
    plant(queue, &["again"], |letter| {
        (letter.class, letter.code, letter.replay) = ("crash".into(), String::new(), "r-1".into());
    })
    .await;
    plant_rubbish(queue, 2, b"\xff\x00 rubbish").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_selects_its_letters_in_every_command() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_all_kinds(&queue).await;
    let all = stack.run(&["dlq", "list", "--output", "json"]).await.code(0).json();
    let row = |id: &str| all.as_array().unwrap().iter().find(|row| row["external_message_id"] == id).unwrap().clone();
    let (place, message_id) = (row("check")["place"].clone(), row("data-2")["message_id"].clone());
    let stats = stack.run(&["dlq", "stats", "--output", "json"]).await.code(0).json();
    let hash = stats[0]["hash"].as_str().unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--source", "max"], &["max-1"]),
        (&["--source", "max", "--source", "messenger", "--class", "data"], &["data-1", "data-2", "max-1"]),
        (&["--class", "constraint"], &["check"]),
        (&["--code", "23514"], &["check"]),
        (&["--signature", "data: 22021: value # is too long"], &["data-1", "data-2", "max-1"]),
        (&["--signature", hash], &["data-1", "data-2", "max-1"]),
        (&["--signature", "conf"], &["old"]),
        (&["--older-than", "2h"], &["old"]),
        (&["--newer-than", "2h", "--class", "conflict"], &[]),
        (&["--older-than", "1h", "--newer-than", "4h"], &["old"]),
        (&["--id", "data-1", "--id", "old"], &["data-1", "old"]),
        (&["--id", message_id.as_str().unwrap()], &["data-2"]),
        (&["--entry", place.as_str().unwrap()], &["check"]),
        (&["--text", "say \"hi\""], &["max-1"]),
        (&["--text", "messages_check"], &["check"]),
        (&["--replayed"], &["again"]),
        (&["--class", "decode"], &[""]),
    ];
    for (filter, expected) in cases {
        let with = |words: &[&str]| -> Vec<String> {
            words.iter().chain(*filter).chain(&["--output", "json"]).map(|word| (*word).to_owned()).collect()
        };
        let run = async |words: &[&str]| {
            let words = with(words);
            stack.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await.code(0)
        };
        let list = run(&["dlq", "list"]).await.json();
        let found: BTreeSet<_> = ids(&list).into_iter().collect();
        assert_eq!(found, expected.iter().map(|id| (*id).to_owned()).collect(), "{filter:?}");
        let count = expected.len() as u64;
        let counted: u64 =
            run(&["dlq", "stats"]).await.json().as_array().unwrap().iter().map(|g| g["count"].as_u64().unwrap()).sum();
        assert_eq!(counted, count, "stats {filter:?}");
        assert_eq!(run(&["dlq", "replay", "--dry-run"]).await.json()["count"], count, "replay {filter:?}");
        assert_eq!(run(&["dlq", "purge", "--dry-run"]).await.json()["selected"], count, "purge {filter:?}");
        assert_eq!(run(&["dlq", "export", "-"]).await.stdout.lines().count() as u64, count, "export {filter:?}");
    }
    assert_eq!(entries(&queue, "dead").await.len(), 7, "looking changes nothing");
    assert_eq!(entries(&queue, "audit").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_through_all_partitions_in_order_and_page_by_page() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    for ids in numbered(1200).chunks(300) {
        plant(&queue, &ids.iter().map(String::as_str).collect::<Vec<_>>(), |_| {}).await;
    }
    let died = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|row| row["died_at"].as_str().unwrap().to_owned()).collect()
    };
    let oldest =
        stack.run(&["dlq", "list", "--oldest-first", "--limit", "5000", "--output", "json"]).await.code(0).json();
    assert!(died(&oldest).is_sorted());
    assert_eq!(ids(&oldest).into_iter().collect::<BTreeSet<_>>().len(), 1200);
    let newest = stack.run(&["dlq", "list", "--limit", "1100", "--output", "json"]).await.code(0).json();
    assert!(died(&newest).iter().rev().is_sorted());
    assert_eq!(newest.as_array().unwrap().len(), 1100);
    stack.run(&["dlq", "list"]).await.code(0).says(&["There are more", "PLACE", "m-1"]);
    stack.run(&["dlq", "list", "--limit", "1200"]).await.code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_letters_are_a_shelf_of_their_own() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant(&queue, &["dead-1"], |_| {}).await;
    accept(&queue, &[message("parked-1")]).await;
    let hand = Hand::join(&queue, "hand").await;
    hand.park(&hand.read(Lane::Ingest).await).await;
    let list = stack.run(&["dlq", "list", "--parked", "--output", "json"]).await.code(0).json();
    assert_eq!(ids(&list), ["parked-1"]);
    stack.run(&["dlq", "show", "parked-1"]).await.code(0).says(&["(parked)", "version"]);
    stack.run(&["dlq", "edit", "parked-1", "--field", "send_at=1", "--reason", "x"]).await.code(1).says(&["is parked"]);
    stack.run(&["dlq", "replay", "--parked", "--all", "--yes", "--wait", "0s"]).await.code(0);
    assert_eq!((entries(&queue, "parked").await.len(), entries(&queue, "dead").await.len()), (0, 1));
    assert_eq!(queue.balance().await.unwrap().drift(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_group_letters_by_what_they_died_of() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    for n in 0..6 {
        plant_at(
            &queue,
            n % 4,
            1_746_057_600_000 + 60_000 * u64::from(n),
            &format!("id-{n}"),
            "data",
            &format!("row {n} is wrong"),
        )
        .await;
    }
    plant_at(&queue, 0, 1_746_060_000_000, "other", "conflict", "other content").await;
    let ended = stack.run(&["dlq", "stats"]).await.code(0);
    insta::assert_snapshot!("dlq_stats", ended.stdout);
    assert_eq!(ended.stderr, "7 dead letters, 2 signatures.\n");
    stack.run(&["dlq", "stats", "--class", "none"]).await.code(0).says(&["0 dead letters"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_all_but_personal_data_unless_asked() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant(&queue, &["shown"], |letter| letter.crashes = 2).await;
    let (place, fields) = entries(&queue, "dead").await.remove(0);
    let message_id = format!("{}-{}", place.split_once('/').unwrap().0, fields["o"]);
    for id in ["shown", place.as_str(), message_id.as_str()] {
        let ended = stack.run(&["dlq", "show", id]).await.code(0);
        assert!(!ended.text().contains(PHONE) && !ended.text().contains(TEXT), "{ended:?}");
        ended.says(&[
            &place,
            "data",
            "22021",
            "value 17 is too long",
            &message_id,
            "worker-7",
            "2025-05-01T00:00:00",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "crashes",
            "…1182",
            "(15 characters)",
        ]);
    }
    stack.run(&["dlq", "show", "shown", "--reveal"]).await.code(0).says(&[PHONE, TEXT]);
    let json = stack.run(&["dlq", "show", "shown", "--output", "json"]).await.code(0).json();
    assert_eq!((&json["payload"]["phone"], &json["log"][0]["worker"]), (&"…1182".into(), &"worker-7".into()));
    stack.run(&["dlq", "show", "nobody"]).await.code(3).says(&["No letter"]);
    stack.run(&["dlq", "show", "9/1-1"]).await.code(1).says(&["no partition 9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_no_message_is_dumped_only_when_asked() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_rubbish(&queue, 1, b"\xff\x00phone +79194961182").await;
    let place = entries(&queue, "dead").await.remove(0).0;
    let hidden = stack.run(&["dlq", "show", &place]).await.code(0);
    assert!(!hidden.text().contains("7919"), "{hidden:?}");
    hidden.says(&["20 bytes that are no JSON object"]);
    stack.run(&["dlq", "show", &place, "--reveal"]).await.code(0).says(&["ff 00 70 68", "|..phone +7919496|"]);
    stack
        .run(&["dlq", "edit", &place, "--field", "send_at=1", "--reason", "x"])
        .await
        .code(1)
        .says(&["holds no message", "weir dlq export --entry"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_payload_drives_the_terminal() {
    const EVIL: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{9b}31m\u{202e}";
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    let text = weir_core::message::Message { message_text: EVIL.into(), ..message("evil") };
    plant_messages(&queue, &[text], |letter| {
        letter.error = EVIL.into();
        letter.class = format!("class{EVIL}");
        letter.source = format!("messenger{EVIL}");
        letter.code = EVIL.into();
        letter.trace = EVIL.into();
        letter.edited = EVIL.into();
        letter.journey.log[0].worker = EVIL.into();
        letter.journey.log[0].error = EVIL.into();
    })
    .await;
    plant_rubbish(&queue, 0, EVIL.as_bytes()).await;
    let rubbish = entries(&queue, "dead").await.into_iter().find(|(_, fields)| fields["id"].is_empty()).unwrap().0;
    for command in [
        vec!["dlq", "list"],
        vec!["dlq", "stats"],
        vec!["dlq", "show", "evil", "--reveal"],
        vec!["dlq", "show", &rubbish, "--reveal"],
        vec!["dlq", "replay", "--dry-run", "--all"],
        vec!["dlq", "purge", "--dry-run", "--all"],
        vec!["dlq", "export", "-"],
        vec!["message", "show", "evil"],
        vec!["dlq", "show", EVIL],
        vec!["message", "show", EVIL],
    ] {
        for form in ["table", "json"] {
            let ended = stack.run(&[&command[..], &["--output", form]].concat()).await;
            let sly = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!ended.text().contains(sly), "{command:?}: {ended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_to_letters_that_nobody_named_or_confirmed() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant(&queue, &["a", "b"], |_| {}).await;
    for verb in ["replay", "purge"] {
        stack.run(&["dlq", verb]).await.code(1).says(&["every dead letter", "--all"]);
        stack.run(&["dlq", verb, "--yes"]).await.code(1).says(&["--all"]);
        stack.run(&["dlq", verb, "--limit", "1", "--yes"]).await.code(1).says(&["--all"]);
        stack.run(&["dlq", verb, "--class", "data"]).await.code(1).says(&[
            "2 dead letters",
            "Nothing was changed",
            "--yes",
        ]);
        stack.run(&["dlq", verb, "--all"]).await.code(1).says(&["--yes"]);
        stack.run(&["dlq", verb, "--all", "--class", "data", "--yes"]).await.code(1).says(&["contradicts"]);
        stack.run(&["dlq", verb, "--class", "data", "--dry-run"]).await.code(0);
    }
    assert_eq!((entries(&queue, "dead").await.len(), entries(&queue, "audit").await.len()), (2, 0));
    stack.run(&["dlq", "replay", "--class", "none", "--yes"]).await.code(0).says(&["selected"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_a_replay_would_do() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_all_kinds(&queue).await;
    let ended = stack.run(&["dlq", "replay", "--all", "--dry-run", "--rate", "1/s"]).await.code(0);
    ended.says(&[
        "7 letters would be replayed at 1/s, which takes 7s",
        "under 10 min",
        "value # is too long",
        "under 6 h",
    ]);
    let json = stack.run(&["dlq", "replay", "--class", "data", "--dry-run", "--limit", "2", "--output", "json"]).await;
    let json = json.code(0).json();
    assert_eq!(
        (&json["count"], &json["groups"][0]["count"], &json["duration_s"]),
        (&2.into(), &2.into(), &0.01.into())
    );
    assert_eq!(entries(&queue, "dead").await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_letter_becomes_a_row_and_leaves_an_audit() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_many(&queue, 60).await;
    stack.worker(&[]).await;
    let args =
        ["dlq", "replay", "--all", "--yes", "--rate", "unlimited", "--reason", "it is fixed", "--output", "json"];
    let json = stack.run(&args).await.code(0).json();
    assert_eq!((&json["replayed"], &json["stored"], &json["under_way"]), (&60.into(), &60.into(), &0.into()), "{json}");
    let audit = entries(&queue, "audit").await;
    assert_eq!(audit.iter().map(|(_, act)| act["count"].parse::<u64>().unwrap()).sum::<u64>(), 60);
    for (_, act) in audit {
        assert_eq!(
            (&*act["act"], &*act["why"], &act["replay"]),
            ("replay", "it is fixed", &json["replay"].as_str().unwrap().to_owned())
        );
        assert!(act["who"].contains('@'), "{act:?}");
    }
    assert_eq!(queue.balance().await.unwrap().drift(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_takes_the_oldest() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    for id in ["first", "second", "third"] {
        plant(&queue, &[id], |_| {}).await;
    }
    let args = ["dlq", "replay", "--all", "--limit", "2", "--yes", "--wait", "0s", "--output", "json"];
    let json = stack.run(&args).await.code(0).json();
    assert_eq!((&json["selected"], &json["replayed"], &json["failed_again"]), (&2.into(), &2.into(), &Value::Null));
    let left = stack.run(&["dlq", "list", "--output", "json"]).await.code(0).json();
    assert_eq!(ids(&left), ["third"]);
    let blind = ["dlq", "replay", "--all", "--yes", "--wait", "0s", "--canary", "1"];
    stack.run(&blind).await.code(1).says(&["--wait must not be 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_stored_before_is_found_to_be_there_already() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    let worker = stack.worker(&[]).await;
    accept(&queue, &[message("twice")]).await;
    eventually("the first is stored", PATIENCE, async || queue.balance().await.unwrap().stored == 1).await;
    let partition = MessageKey::new("messenger", "twice").partition(4);
    plant_at(&queue, partition, now_ms(), "twice", "data", "it came again").await;
    let json = stack.run(&["dlq", "replay", "--id", "twice", "--yes", "--output", "json"]).await.code(0).json();
    assert_eq!((&json["there_already"], &json["stored"]), (&1.into(), &0.into()), "{worker} {json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replays_at_once_move_each_letter_once() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_many(&queue, 600).await;
    let args = ["dlq", "replay", "--all", "--yes", "--rate", "3000/s", "--wait", "0s", "--output", "json"];
    let (one, two) = tokio::join!(stack.run(&args), stack.run(&args));
    let (one, two) = (one.code(0).json(), two.code(0).json());
    let sum = |name: &str| one[name].as_u64().unwrap() + two[name].as_u64().unwrap();
    assert_eq!(sum("replayed"), 600, "{one} {two}");
    assert_eq!(sum("gone_already"), sum("selected") - 600);
    replayed_once(&queue, 600).await;
}

/// Every letter is in the retry stream, and none twice.
async fn replayed_once(queue: &Queue, count: usize) {
    let retries = entries(queue, "retry").await;
    let origins: HashSet<_> = retries.iter().map(|(_, fields)| fields["e"].clone()).collect();
    assert_eq!((retries.len(), origins.len(), entries(queue, "dead").await.len()), (count, count, 0));
    assert_eq!(queue.balance().await.unwrap().drift(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replay_goes_on_where_it_stopped() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_many(&queue, 300).await;
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let before = entries(&queue, "retry").await.len();
        let mut command = stack.weir(&["dlq", "replay", "--all", "--yes", "--rate", "20/s", "--wait", "0s"]);
        let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        eventually("some are replayed", PATIENCE, async || entries(&queue, "retry").await.len() > before + 3).await;
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        if signal == rustix::process::Signal::INT {
            assert_eq!(ended.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&ended.stderr).contains("interrupted"), "{ended:?}");
            assert!(String::from_utf8_lossy(&ended.stdout).contains("replayed"), "{ended:?}");
        }
    }
    let left = entries(&queue, "dead").await.len();
    assert!(left > 0 && left < 300);
    stack.run(&["dlq", "replay", "--all", "--yes", "--rate", "unlimited", "--wait", "0s"]).await.code(0);
    replayed_once(&queue, 300).await;
}

/// A worker that buries everything it is sent again, until it is told to stop.
async fn gravedigger(queue: &Queue) -> (Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let hand = Hand::join(queue, "gravedigger").await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            let held = hand.read(Lane::Retry).await;
            hand.bury(&held, |letter| letter.error = "it is still wrong".into()).await;
        }
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_dies_again_stops_the_replay() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_many(&queue, 30).await;
    let (stop, task) = gravedigger(&queue).await;
    let ended = stack.run(&["dlq", "replay", "--all", "--yes", "--canary", "2", "--output", "json"]).await.code(3);
    assert!(ended.stderr.contains("canaries died again"), "{ended:?}");
    let json = ended.json();
    assert_eq!((&json["replayed"], &json["failed_again"], &json["left"]), (&2.into(), &2.into(), &28.into()), "{json}");
    let replayed = stack.run(&["dlq", "list", "--replayed", "--output", "json"]).await.code(0).json();
    assert_eq!(replayed.as_array().unwrap().len(), 2);
    stop.store(true, Ordering::Relaxed);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_that_are_stored_let_the_rest_follow() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_many(&queue, 150).await;
    stack.worker(&[]).await;
    let args = ["dlq", "replay", "--all", "--yes", "--canary", "1", "--rate", "unlimited", "--output", "json"];
    let json = stack.run(&args).await.code(0).json();
    assert_eq!((&json["replayed"], &json["stored"]), (&150.into(), &150.into()), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_without_a_worker_is_not_waited_for_for_ever() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_many(&queue, 10).await;
    let ended =
        stack.run(&["dlq", "replay", "--all", "--yes", "--canary", "1", "--wait", "1s", "--output", "json"]).await;
    let json = ended.code(3).says(&["do workers run"]).json();
    assert_eq!((&json["replayed"], &json["under_way"], &json["left"]), (&1.into(), &1.into(), &9.into()), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_stops_when_too_many_die_again() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_many(&queue, 1500).await;
    let (stop, task) = gravedigger(&queue).await;
    let args =
        ["dlq", "replay", "--all", "--yes", "--stop-if-failing", "5%", "--rate", "unlimited", "--output", "json"];
    let json = stack.run(&args).await.code(3).says(&["too many of them died again"]).json();
    let (replayed, failed) = (json["replayed"].as_u64().unwrap(), json["failed_again"].as_u64().unwrap());
    assert!((20..=700).contains(&replayed) && failed >= 20, "{json}");
    stop.store(true, Ordering::Relaxed);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_die_again_are_not_replayed_twice_in_one_run() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    // More than a page in each partition: the later pages are read when the first letters have died again.
    plant_many(&queue, 900).await;
    let (stop, task) = gravedigger(&queue).await;
    let args = ["dlq", "replay", "--all", "--yes", "--rate", "1000/s", "--output", "json"];
    let json = stack.run(&args).await.code(0).json();
    assert_eq!((&json["replayed"], &json["failed_again"]), (&900.into(), &900.into()), "{json}");
    assert_eq!(entries(&queue, "dead").await.len(), 900);
    stop.store(true, Ordering::Relaxed);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_without_postgresql_says_what_redis_knows() {
    let mut stack = Stack::new().await;
    stack.set("WEIR_DATABASE_URL", &format!("postgres://weir:hunter2@{NOBODY}/weir"));
    let queue = stack.prepared().await;
    plant_many(&queue, 10).await;
    let hand = Hand::join(&queue, "hand").await;
    let settling = queue.clone();
    let settler = tokio::spawn(async move {
        let mut settled = 0;
        while settled < 10 {
            let held = hand.read(Lane::Retry).await;
            settled += held.len();
            hand.settle(&held).await;
        }
        settling.balance().await.unwrap().stored
    });
    let ended = stack.run(&["dlq", "replay", "--all", "--yes", "--output", "json"]).await.code(0);
    assert!(!ended.text().contains("hunter2"), "{ended:?}");
    assert!(ended.stderr.contains("as far as Redis tells"), "{ended:?}");
    let json = ended.json();
    assert_eq!(
        (&json["stored"], &json["processed"], &json["under_way"]),
        (&Value::Null, &10.into(), &0.into()),
        "{json}"
    );
    assert_eq!(settler.await.unwrap(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_wait_for_a_retry_are_under_way() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_many(&queue, 5).await;
    let hand = Hand::join(&queue, "hand").await;
    let delayer = tokio::spawn(async move {
        let mut delayed = 0;
        while delayed < 5 {
            let held = hand.read(Lane::Retry).await;
            delayed += held.len();
            hand.delay(&held, Duration::from_secs(600)).await;
        }
    });
    let json = stack.run(&["dlq", "replay", "--all", "--yes", "--wait", "3s", "--output", "json"]).await.code(0).json();
    delayer.await.unwrap();
    assert_eq!((&json["under_way"], &json["processed"], &json["stored"]), (&5.into(), &0.into(), &0.into()), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_changes_the_message_and_keeps_the_one_that_came() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant(&queue, &["edited"], |_| {}).await;
    let came = entries(&queue, "dead").await.remove(0).1["e"].clone();
    let edit = async |more: &[&str]| {
        let args = [
            &["dlq", "edit", "edited", "--reason", "a digit was wrong", "--field", "client_phone=+7 919 496-11-83"],
            more,
        ]
        .concat();
        stack.run(&args).await
    };
    let ended = edit(&["--dry-run"]).await.code(0).says(&["…1182", "…1183", "dry run"]);
    assert!(!ended.text().contains("496118"), "{ended:?}");
    assert_eq!(entries(&queue, "dead").await[0].1["e"], came);
    let ended = edit(&[]).await.code(0).says(&["weir dlq replay --entry", "keeps the message as it came"]);
    let (place, letter) = entries(&queue, "dead").await.remove(0);
    assert!(ended.stdout.contains(&place), "{ended:?}");
    assert_eq!((&letter["original"], &letter["e"]), (&came, &came.replace(PHONE, "+79194961183")));
    assert!(letter["edited"].contains('@'));
    let audit = entries(&queue, "audit").await.remove(0).1;
    assert_eq!((&*audit["act"], &*audit["why"]), ("edit", "a digit was wrong"));
    edit(&[]).await.code(1).says(&["nothing would change"]);
    stack.worker(&[]).await;
    let json = stack.run(&["dlq", "replay", "--entry", &place, "--yes", "--output", "json"]).await.code(0).json();
    assert_eq!(json["stored"], 1, "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_refuses_what_the_gateway_would_refuse() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant(&queue, &["edited"], |_| {}).await;
    let came = entries(&queue, "dead").await;
    let edit =
        async |field: &str| stack.run(&["dlq", "edit", "edited", "--reason", "x", "--field", field]).await.code(1);
    for (field, reason) in [
        ("client_phone=89194961182", "client_phone must be E.164"),
        ("message_text=", "message_text must have 1 to 4096"),
        ("send_at=4102444800", "send_at must be between"),
        ("external_message_id=other", "cannot be changed"),
        ("source=max", "cannot be changed"),
        ("colour=red", "there is no such field"),
    ] {
        edit(field).await.says(&[reason]);
    }
    stack.run(&["dlq", "edit", "edited", "--field", "send_at=1640995201"]).await.code(2).says(&["--reason"]);
    stack.run(&["dlq", "edit", "edited", "--field", "send_at=1640995201", "--reason", " "]).await.code(1);
    stack.run(&["dlq", "edit", "edited", "--reason", "x"]).await.code(1).says(&["$EDITOR"]);
    stack.run(&["dlq", "edit", "nobody", "--reason", "x", "--field", "send_at=1640995201"]).await.code(3);
    assert_eq!(entries(&queue, "dead").await, came);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_can_be_made_in_an_editor() {
    let mut stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant(&queue, &["edited"], |_| {}).await;
    let edit = ["dlq", "edit", "edited", "--reason", "x", "--reveal"];
    stack.set("EDITOR", "sed -i s/messenger/max/");
    stack.run(&edit).await.code(1).says(&["cannot be changed"]);
    stack.set("EDITOR", "sed -i 's/secret/public/'");
    stack
        .run(&edit)
        .await
        .code(0)
        .says(&["- message_text: \"the secret text\"", "+ message_text: \"the public text\""]);
    assert!(entries(&queue, "dead").await[0].1["e"].contains("the public text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_removes_what_was_selected_after_exporting_it() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_all_kinds(&queue).await;
    plant_many(&queue, 450).await;
    let file = stack.data().join("purged.ndjson");
    let path = file.to_str().unwrap();
    let args = ["dlq", "purge", "--class", "data", "--yes", "--reason", "junk", "--export", path, "--output", "json"];
    let json = stack.run(&args).await.code(0).json();
    assert_eq!(
        (&json["purged"], &json["exported"], &json["gone_already"]),
        (&453.into(), &453.into(), &0.into()),
        "{json}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 453);
    assert_eq!(entries(&queue, "dead").await.len(), 4);
    let purged: u64 = entries(&queue, "audit").await.iter().map(|(_, act)| act["count"].parse::<u64>().unwrap()).sum();
    assert_eq!(purged, 453);
    let again = ["dlq", "purge", "--all", "--yes", "--export", path];
    stack.run(&again).await.code(1).says(&["exists already"]);
    assert_eq!(entries(&queue, "dead").await.len(), 4, "nothing is purged that was not exported");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_survive_export_purge_and_import() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant_all_kinds(&queue).await;
    plant_many(&queue, 150).await;
    stack.run(&["dlq", "edit", "check", "--reason", "x", "--field", "message_text=other"]).await.code(0);
    let without_places = async || {
        let letters = entries(&queue, "dead").await;
        let fields = letters.into_iter().map(|(place, fields)| {
            let partition = place.split_once('/').unwrap().0.to_owned();
            (partition, fields.into_iter().collect::<std::collections::BTreeMap<_, _>>())
        });
        fields.collect::<BTreeSet<_>>()
    };
    let before = without_places().await;
    let file = stack.data().join("letters.ndjson");
    let path = file.to_str().unwrap();
    stack.run(&["dlq", "export", path]).await.code(0).says(&["157 dead letters exported"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    stack.run(&["dlq", "export", path]).await.code(1).says(&["exists already"]);
    stack.run(&["dlq", "import", path, "--yes", "--output", "json"]).await.code(0).says(&["\"there_already\": 157"]);
    stack.run(&["dlq", "purge", "--all", "--yes"]).await.code(0);
    assert!(without_places().await.is_empty());

    let dry = stack.run(&["dlq", "import", path, "--dry-run", "--output", "json"]).await.code(0).json();
    assert_eq!((&dry["imported"], &dry["dry_run"]), (&157.into(), &true.into()));
    assert!(without_places().await.is_empty());
    stack.run(&["dlq", "import", path]).await.code(1).says(&["Import 157 dead letters?", "--yes"]);
    let import = ["dlq", "import", path, "--yes", "--reason", "back", "--output", "json"];
    assert_eq!(stack.run(&import).await.code(0).json()["imported"], 157);
    assert_eq!(without_places().await, before);
    let again = stack.run(&import).await.code(0).json();
    assert_eq!((&again["imported"], &again["there_already"]), (&0.into(), &157.into()));
    assert_eq!(without_places().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_wrong_line_is_not_imported_at_all() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    plant(&queue, &["a", "b"], |_| {}).await;
    let exported = stack.run(&["dlq", "export", "-"]).await.code(0).stdout;
    stack.run(&["dlq", "purge", "--all", "--yes"]).await.code(0);
    let file = stack.data().join("broken.ndjson");
    fs::write(&file, format!("{exported}{{\"s3cret\n\n{}", exported.replace("\"partition\"", "\"s3cret\""))).unwrap();
    let ended = stack.run(&["dlq", "import", file.to_str().unwrap(), "--yes"]).await.code(1);
    ended.says(&["nothing was imported", "line 3: it is no JSON", "line 5:", "line 6:"]);
    assert_eq!(entries(&queue, "dead").await.len(), 0);
    stack.run(&["dlq", "import", "no-such-file", "--yes"]).await.code(1).says(&["no-such-file cannot be read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_other_partitions_is_refused() {
    let stack = Stack::new().await;
    stack.prepared().await;
    let ended = stack.run(&["dlq", "list", "--set", "redis.partitions=8"]).await.code(1);
    ended.says(&["4 partitions", "redis.partitions is 8", "--set redis.partitions=4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_down_is_named_without_its_password() {
    let mut stack = Stack::new().await;
    stack.set("WEIR_REDIS_URL", &format!("redis://:hunter2@{NOBODY}/0"));
    let ended = stack.run(&["dlq", "list"]).await.code(1).says(&[NOBODY, "cannot be reached"]);
    assert!(!ended.text().contains("hunter2"), "{ended:?}");
}

#[test]
fn help_has_examples() {
    assert_help!("dlq");
    assert_help!("dlq" "list");
    assert_help!("dlq" "show");
    assert_help!("dlq" "stats");
    assert_help!("dlq" "replay");
    assert_help!("dlq" "edit");
    assert_help!("dlq" "purge");
    assert_help!("dlq" "export");
    assert_help!("dlq" "import");
}
