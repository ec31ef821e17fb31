//! A large batch is staked on all of its keys being new. Nothing of that shows in what becomes of it.

use std::sync::Arc;

use tokio::task::JoinSet;
use weir_store::{DialogCache, Fate, NewEvent, Store};

use crate::support::{Fixture, again, message, messages, stored_id};

/// Messages whose key leads to their row.
async fn reachable(f: &Fixture) -> i64 {
    let found = "SELECT count(*) FROM event_keys k JOIN messages m ON m.id = k.message_id AND m.send_at = k.send_at
                 WHERE m.external_message_id = 'message-' || k.fingerprint";
    sqlx::query_scalar(found).fetch_one(f.pool()).await.expect("a count")
}

#[tokio::test]
async fn every_key_of_a_large_batch_leads_to_its_own_row() {
    let f = Fixture::new().await;
    let mut ids: Vec<_> = f.persist(&messages(0..3000)).await.iter().map(stored_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), reachable(&f).await), (3000, 3000));
}

#[tokio::test]
async fn a_large_batch_with_a_few_known_keys_is_stored_but_for_those() {
    let f = Fixture::new().await;
    f.persist(&messages(0..200)).await;
    let mut batch = messages(199..400);
    batch.push(again(&message(7)));
    batch.push(NewEvent { fingerprint: -1, ..again(&message(8)) });
    let fates = f.persist(&batch).await;
    assert!(matches!(fates[0], Fate::AlreadyStored { message_id: Some(_) }));
    assert!(fates[1..201].iter().all(|fate| matches!(fate, Fate::Stored { .. })));
    let [seventh, eighth] = [message(7).place, message(8).place];
    assert!(matches!(fates[201], Fate::Duplicate { first, .. } if first == seventh));
    assert!(matches!(fates[202], Fate::Conflict { first } if first == eighth));
    assert_eq!((f.count("messages").await, reachable(&f).await), (400, 400));
}

#[tokio::test]
async fn a_large_batch_that_is_read_again_was_stored_already() {
    let f = Fixture::new().await;
    let batch = messages(0..500);
    let ids: Vec<_> = f.persist(&batch).await.iter().map(stored_id).collect();
    let fates = f.persist(&batch).await;
    assert!(fates.iter().zip(ids).all(|(fate, id)| *fate == Fate::AlreadyStored { message_id: Some(id) }));
    // And what comes after it is new again.
    let fates = f.persist(&messages(500..1000)).await;
    assert!(fates.iter().all(|fate| matches!(fate, Fate::Stored { .. })));
}

#[tokio::test]
async fn twins_in_a_large_batch_are_stored_once() {
    let f = Fixture::new().await;
    let mut batch = messages(0..300);
    batch.push(again(&message(3)));
    let fates = f.persist(&batch).await;
    let first = message(3).place;
    assert_eq!(fates[300], Fate::Duplicate { first, message_id: Some(stored_id(&fates[3])) });
    assert_eq!(f.count("messages").await, 300);
}

/// Each worker believes in its keys anew in every round, as its store is a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stakes_on_the_same_keys_never_deadlock_and_store_each_key_once() {
    const WORKERS: usize = 4;
    let f = Arc::new(Fixture::new().await);
    for round in 0..10 {
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let mut batch = messages(round * 1000 + worker * 10..round * 1000 + worker * 10 + 200);
            batch.rotate_left(worker * 50);
            let options = f.options.clone();
            workers.spawn(async move {
                let store = Store::connect(&options).await.expect("a store");
                let fates = store.persist(&DialogCache::new(1000), &batch).await;
                store.close().await;
                fates.expect("no deadlock and no lost race")
            });
        }
        let fates: Vec<_> = workers.join_all().await.into_iter().flat_map(|persisted| persisted.fates).collect();
        let stored = fates.iter().filter(|fate| matches!(fate, Fate::Stored { .. })).count();
        assert_eq!((stored, fates.len()), (200 + (WORKERS - 1) * 10, 200 * WORKERS));
    }
    assert_eq!(reachable(&f).await, 10 * 230);
}
