//! Messages become rows, once each.

use std::time::Duration;

use weir_core::message::Message;
use weir_core::queue::letters::Shelf;
use weir_stack::testing::eventually;
use weir_store::testing;
use weir_worker::WorkerConfig;

use crate::support::{PATIENCE, World, message, messages};

#[tokio::test(flavor = "multi_thread")]
async fn accepted_messages_become_client_dialog_and_message_rows() {
    let world = World::new().await;
    world.accept_new(&messages(0..2500)).await;
    let worker = world.start();
    let balance = world.drained().await;
    assert_eq!((balance.accepted, balance.stored, balance.dead), (2500, 2500, 0));
    assert_eq!(world.rows().await, 2500);
    assert_eq!(world.number("SELECT count(*) FROM clients").await, 50);
    assert_eq!(world.number("SELECT count(*) FROM dialogs").await, 50);
    let sql = "SELECT concat_ws('|', external_message_id, text, extract(epoch from send_at)::bigint, trace_id) \
               FROM messages WHERE external_message_id = 'm7'";
    let row = testing::texts(&world.database, sql).await.unwrap();
    assert_eq!(row, ["m7|text 7|1640995207|4bf92f35-77b3-4da6-a3ce-929d0e0e4736"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steady_stream_is_stored_in_few_transactions_and_single_messages_wait_for_nobody() {
    let world = World::new().await;
    // All of a transaction have its time.
    let transactions = async || world.number("SELECT count(DISTINCT stored_at) FROM messages").await;
    world.accept_new(&messages(0..100)).await;
    let worker = world.start_with(WorkerConfig { gather: Duration::from_secs(3), ..World::config() });
    world.drained().await;
    let before = transactions().await;
    for five in (100..300).step_by(5) {
        world.accept_new(&messages(five..five + 5)).await;
    }
    world.drained().await;
    let gathered = transactions().await - before;
    assert!(gathered <= 10, "{gathered} transactions for 40 times 5 messages");
    worker.stop().await;

    let worker = world.start_with(WorkerConfig { gather: Duration::from_secs(3600), ..World::config() });
    for number in 300..320 {
        world.accept_new(&[message(number)]).await;
        world.drained().await;
    }
    assert_eq!(world.rows().await, 320);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_work_and_store_everything_once() {
    let world = World::new().await;
    let workers = [world.start(), world.start()];
    for chunk in 0..20 {
        world.accept_new(&messages(chunk * 500..chunk * 500 + 500)).await;
    }
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.duplicate), (10_000, 0));
    assert_eq!(world.rows().await, 10_000);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_the_dedupe_window_is_a_duplicate_and_no_second_row() {
    let world = World::new().await;
    let worker = world.start();
    world.accept_new(&messages(0..10)).await;
    world.drained().await;
    world.forget_ids().await;
    world.accept_new(&messages(0..10)).await;
    let balance = world.drained().await;
    assert_eq!((balance.accepted, balance.stored, balance.duplicate, balance.dead), (20, 10, 10, 0));
    assert_eq!(world.rows().await, 10);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_the_same_id_after_the_window_is_a_conflict_letter() {
    let world = World::new().await;
    let worker = world.start();
    world.accept_new(&[message(1)]).await;
    world.drained().await;
    world.forget_ids().await;
    world.accept_new(&[Message { message_text: "hush-hush".into(), ..message(1) }]).await;
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.duplicate, balance.dead), (1, 0, 1));
    let letters = world.letters(Shelf::Dead).await;
    assert_eq!((letters[0].class.as_str(), letters[0].external_message_id.as_str()), ("conflict", "m1"));
    assert!(!letters[0].error.contains("hush"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_another_time_is_still_one_row() {
    let world = World::new().await;
    let worker = world.start();
    world.accept_new(&[message(1)]).await;
    world.drained().await;
    world.forget_ids().await;
    let later = Message { send_at: 1_760_000_000, ..message(1) };
    world.accept_new(&[later]).await;
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead), (1, 1));
    assert_eq!(world.rows().await, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_the_streams_returns_after_a_drain() {
    let world = World::new().await;
    let worker = world.start();
    for chunk in 0..40 {
        world.accept_new(&messages(chunk * 1000..chunk * 1000 + 1000)).await;
    }
    world.drained().await;
    // Whole nodes are trimmed: a hundred finished entries may stay in each stream.
    eventually("the streams are trimmed", PATIENCE, async || world.balance().await.ingest_length <= 200).await;
    worker.stop().await;
}
