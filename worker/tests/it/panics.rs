//! A bug of ours panics in the middle of a batch: the worker must neither end nor go on without that part.

use weir_stack::testing::{Trap, eventually};

use crate::support::{PATIENCE, World, messages};

#[tokio::test]
async fn a_panic_between_commit_and_ack_costs_no_message() {
    let world = World::new().await;
    let trap = Trap::set(1, &["message=stored", "message_id="]);
    let worker = world.start();
    world.accept_new(&messages(0..200)).await;
    let balance = world.drained().await;
    assert_eq!(trap.sprung(), 1);
    assert_eq!((balance.stored, balance.duplicate, balance.dead_total, world.rows().await), (200, 0, 0, 200));
    // All lanes are there again.
    world.accept_new(&messages(200..300)).await;
    assert_eq!(world.drained().await.stored, 300);
    worker.stop().await;
}

#[tokio::test]
async fn a_message_that_makes_every_worker_panic_is_a_dead_letter_and_harms_no_other() {
    let world = World::new().await;
    let trap = Trap::set(usize::MAX, &["message=dead letter", "class=\"data\""]);
    let worker = world.start();
    let mut batch = messages(0..40);
    batch[20].message_text = "a\0b".into();
    world.accept_new(&batch).await;
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.dead, world.rows().await), (39, 1, 39));
    let letter = &world.letters(weir_core::queue::letters::Shelf::Dead).await[0];
    assert_eq!((letter.class.as_str(), letter.external_message_id.as_str(), letter.crashes), ("crash", "m20", 3));
    assert_eq!(trap.sprung(), 4, "in its batch, among suspects, and twice alone");
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_panics_while_it_stops_hands_nothing_over_twice() {
    let world = World::new().await;
    let trap = Trap::set(1, &["message=stored", "message_id="]);
    let worker = world.start();
    worker.stop.cancel();
    world.accept_new(&messages(0..50)).await;
    worker.stop().await;
    let next = world.start();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.duplicate, balance.dead_total, world.rows().await), (50, 0, 0, 50));
    eventually("it has panicked at last", PATIENCE, async || trap.sprung() == 1).await;
    next.stop().await;
}
