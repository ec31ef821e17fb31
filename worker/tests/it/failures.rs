//! What cannot be stored harms only itself.

use std::time::Duration;

use weir_core::message::Message;
use weir_core::queue::letters::{Author, Shelf};
use weir_stack::testing::eventually;
use weir_store::testing;

use crate::support::{PATIENCE, World, message, messages};

/// Text that PostgreSQL refuses; a gateway never lets it through.
fn with_nul(number: usize) -> Message<'static> {
    Message { message_text: "a\0b".into(), ..message(number) }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_among_500_is_the_only_dead_letter() {
    let world = World::new().await;
    let mut batch = messages(0..500);
    batch[250] = with_nul(250);
    world.accept_new(&batch).await;
    let worker = world.start();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead), (499, 1));
    assert_eq!(world.rows().await, 499);
    let letter = &world.letters(Shelf::Dead).await[0];
    assert_eq!((letter.class.as_str(), letter.external_message_id.as_str()), ("data", "m250"));
    assert_eq!((letter.journey.attempts, letter.journey.log.len()), (1, 1));
    assert_eq!(letter.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(letter.code.starts_with("22"), "{}", letter.code);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_no_message_is_a_dead_letter_as_it_came() {
    let world = World::new().await;
    world.accept_new(&messages(0..3)).await;
    let keys = world.queue.keys(0);
    let add = |field: &'static str, value: &'static [u8]| {
        let mut cmd = redis::cmd("XADD");
        cmd.arg(&keys.ingest).arg("*").arg("v").arg("1").arg(field).arg(value);
        cmd
    };
    for cmd in [add("e", b"{\"src\":"), add("e", b"\xff\xfe"), add("what", b"ever")] {
        world.queue.command::<String>(&cmd).await.unwrap();
        // They came past `enqueue`, which counts.
        world.queue.command::<i64>(redis::cmd("HINCRBY").arg(&keys.count).arg("accepted").arg(1)).await.unwrap();
    }
    let worker = world.start();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead), (3, 3));
    let letters = world.letters(Shelf::Dead).await;
    assert!(letters.iter().all(|letter| letter.class == "decode"));
    assert!(letters.iter().any(|letter| letter.envelope == b"\xff\xfe"));
    assert!(letters.iter().any(|letter| String::from_utf8_lossy(&letter.envelope).contains("ever")));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_an_unknown_version_is_parked_and_can_be_sent_again() {
    let world = World::new().await;
    let keys = world.queue.keys(1);
    let mut add = redis::cmd("XADD");
    add.arg(&keys.ingest).arg("*").arg("v").arg("99").arg("e").arg("{\"from\":\"the future\"}");
    world.queue.command::<String>(&add).await.unwrap();
    world.queue.command::<i64>(redis::cmd("HINCRBY").arg(&keys.count).arg("accepted").arg(1)).await.unwrap();
    let worker = world.start();
    eventually("it is parked", PATIENCE, async || world.balance().await.parked == 1).await;
    let balance = world.balance().await;
    assert_eq!((balance.dead, balance.drift()), (0, 0));
    let letter = world.letters(Shelf::Parked).await.remove(0);
    assert_eq!((letter.version.as_str(), letter.envelope.as_slice()), ("99", b"{\"from\":\"the future\"}".as_slice()));
    let author = Author { who: "test".into(), why: "a newer worker is there".into() };
    let sent = world.queue.replay(1, Shelf::Parked, "r1", &author, &[&letter.entry]).await.unwrap();
    assert!(sent[0].is_some());
    eventually("it is parked again", PATIENCE, async || {
        world.letters(Shelf::Parked).await.first().is_some_and(|again| again.entry != letter.entry)
    })
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_a_newer_gateway_adds_harm_nothing_and_are_kept() {
    let world = World::new().await;
    let envelope = |message: &Message<'_>| {
        let mut fields: serde_json::Value = serde_json::from_slice(&message.encode()).unwrap();
        fields["colour"] = "blue".into();
        fields.to_string()
    };
    let (good, bad) = (envelope(&message(1)), envelope(&with_nul(2)));
    let keys = world.queue.keys(0);
    for envelope in [&good, &bad] {
        let mut add = redis::cmd("XADD");
        add.arg(&keys.ingest).arg("*").arg("v").arg("1").arg("e").arg(envelope).arg("shade").arg("dark");
        world.queue.command::<String>(&add).await.unwrap();
        for count in ["accepted", "open_ingest"] {
            world.queue.command::<i64>(redis::cmd("HINCRBY").arg(&keys.count).arg(count).arg(1)).await.unwrap();
        }
    }
    let worker = world.start();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead, world.rows().await), (1, 1, 1));
    let letter = world.letters(Shelf::Dead).await.remove(0);
    assert_eq!(String::from_utf8(letter.envelope).unwrap(), bad);
    let author = Author { who: "test".into(), why: "a newer worker is there".into() };
    world.queue.replay(0, Shelf::Dead, "r1", &author, &[&letter.entry]).await.unwrap();
    assert_eq!(world.drained().await.dead_total, 2);
    assert_eq!(String::from_utf8(world.letters(Shelf::Dead).await.remove(0).envelope).unwrap(), bad);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_curable_failure_is_tried_again_and_then_stored() {
    let world = World::new().await;
    let block = "ALTER TABLE messages ADD CONSTRAINT no_m5 CHECK (external_message_id <> 'm5')";
    testing::execute(&world.database, block).await.unwrap();
    let mut config = World::config();
    config.retry.constraint.base = Duration::from_millis(100);
    config.retry.constraint.attempts = 1000;
    config.retry.constraint.cap = Duration::from_millis(200);
    let worker = world.start_with(config);
    world.accept_new(&messages(0..10)).await;
    eventually("the others are stored and one is tried again", PATIENCE, async || {
        let balance = world.balance().await;
        balance.stored == 9 && balance.retried >= 2
    })
    .await;
    assert_eq!(world.balance().await.drift(), 0);
    testing::execute(&world.database, "ALTER TABLE messages DROP CONSTRAINT no_m5").await.unwrap();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead), (10, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_end_in_a_dead_letter_that_tells_them_all_and_can_be_replayed() {
    let world = World::new().await;
    let block = "ALTER TABLE messages ADD CONSTRAINT no_m5 CHECK (external_message_id <> 'm5')";
    testing::execute(&world.database, block).await.unwrap();
    let mut config = World::config();
    config.retry.constraint.base = Duration::from_millis(1);
    config.retry.constraint.attempts = 3;
    let worker = world.start_with(config);
    world.accept_new(&[message(5)]).await;
    world.drained().await;
    let letter = world.letters(Shelf::Dead).await.remove(0);
    assert_eq!((letter.class.as_str(), letter.code.as_str(), letter.journey.attempts), ("constraint", "23514", 3));
    assert_eq!(letter.journey.log.len(), 3);
    assert!(letter.journey.first_failed_ms > 0 && letter.journey.log[0].worker == worker.name);

    testing::execute(&world.database, "ALTER TABLE messages DROP CONSTRAINT no_m5").await.unwrap();
    let author = Author { who: "test".into(), why: "mended".into() };
    world.queue.replay(letter.partition, Shelf::Dead, "r1", &author, &[&letter.entry]).await.unwrap();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead), (1, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_statement_never_ends_does_not_hold_up_the_others() {
    let world = World::new().await;
    let slow = "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN IF NEW.external_message_id = 'm5' THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$; \
                CREATE TRIGGER dawdle BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION dawdle()";
    testing::execute(&world.database, slow).await.unwrap();
    let mut config = World::config();
    config.database.statement_timeout = Duration::from_millis(300);
    config.retry.timeout.attempts = 1;
    let worker = world.start_with(config);
    world.accept_new(&messages(0..8)).await;
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead), (7, 1));
    assert_eq!(world.letters(Shelf::Dead).await[0].class, "timeout");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replays_of_one_letter_at_once_store_it_once() {
    let world = World::new().await;
    let worker = world.start();
    world.accept_new(&[with_nul(1), with_nul(2), with_nul(3), with_nul(4)]).await;
    let balance = world.drained().await;
    assert_eq!(balance.dead, 4);
    let author = Author { who: "test".into(), why: "both".into() };
    for partition in 0..2 {
        let letters = world.queue.letters(partition, Shelf::Dead, "-", 10).await.unwrap();
        let ids: Vec<_> = letters.iter().map(|letter| letter.entry.as_str()).collect();
        if ids.is_empty() {
            continue;
        }
        let (one, two) = tokio::join!(
            world.queue.replay(partition, Shelf::Dead, "a", &author, &ids),
            world.queue.replay(partition, Shelf::Dead, "b", &author, &ids)
        );
        let moved = one.unwrap().into_iter().chain(two.unwrap()).flatten().count();
        assert_eq!(moved, ids.len());
    }
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead, balance.dead_total), (0, 4, 8));
    assert!(world.letters(Shelf::Dead).await.iter().all(|letter| !letter.replay.is_empty()));
    worker.stop().await;
}
