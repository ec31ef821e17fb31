use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use weir_store::{DialogCache, Effect, Fate, NewEvent};

use crate::support::{ACCEPTED_MS, Fixture, key, message, messages};

/// What worker `w` reads in round `r`: mostly the same keys and clients as the others, in another order, each with a
/// phone and seen long after the last round, so that every row is locked.
fn batch(round: usize, worker: usize) -> Vec<NewEvent> {
    let share = |n: usize| {
        let mut message = message(round * 1000 + n);
        message.external_client_id = format!("client-{}", n % 40 + round / 2 * 20);
        message.external_dialog_id = format!("{}", n % 3);
        message.client_phone = Some(format!("{worker}-{round}"));
        message.place.partition = i16::try_from(worker).unwrap();
        message.place.ms = ACCEPTED_MS + i64::try_from(round * 100_000).unwrap();
        message
    };
    let mut batch: Vec<_> = (worker * 20..worker * 20 + 200).map(share).collect();
    match worker % 3 {
        0 => batch,
        1 => {
            batch.reverse();
            batch
        }
        _ => {
            batch.rotate_left(77);
            batch
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_with_the_same_keys_and_clients_never_deadlock_and_store_each_key_once() {
    const WORKERS: usize = 4;
    const ROUNDS: usize = 30;
    let f = Arc::new(Fixture::new().await);
    let caches: Vec<_> = (0..WORKERS).map(|_| DialogCache::new(10_000)).collect();
    let mut stored = 0;
    for round in 0..ROUNDS {
        let mut workers = JoinSet::new();
        for (worker, cache) in caches.iter().enumerate() {
            let (f, cache) = (Arc::clone(&f), cache.clone());
            workers.spawn(async move { f.store.persist(&cache, &batch(round, worker)).await });
        }
        for fates in workers.join_all().await {
            let fates = fates.expect("no deadlock and no lost race");
            stored += fates.fates.iter().filter(|fate| matches!(fate, Fate::Stored { .. })).count();
            assert!(fates.fates.iter().all(|fate| matches!(fate, Fate::Stored { .. } | Fate::Duplicate { .. })));
        }
    }
    let distinct = ROUNDS * (200 + (WORKERS - 1) * 20);
    assert_eq!(stored, distinct);
    assert_eq!(f.count("event_keys").await, i64::try_from(distinct).unwrap());
    assert_eq!(f.count("messages").await, i64::try_from(distinct).unwrap());
    let orphans: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM messages m LEFT JOIN dialogs d ON d.id = m.dialog_id WHERE d.id IS NULL",
    )
    .fetch_one(f.pool())
    .await
    .unwrap();
    assert_eq!(orphans, 0);
}

/// Keys of its own, and so nothing to wait for before the clients: in even rounds most of them are new, in odd rounds
/// they are known, with a new dialog for some and a new phone for all.
fn batch_of_own_keys(round: usize, worker: usize) -> Vec<NewEvent> {
    let mut batch = batch(round, worker);
    for (n, message) in batch.iter_mut().enumerate() {
        message.key = key(1_000_000 * (worker + 1) + round * 1000 + n);
        message.external_client_id =
            format!("client-{}", message.fingerprint % 50 + i64::try_from(round / 2).unwrap() * 45);
        message.external_dialog_id = format!("{}", if n % 5 == worker { round } else { 0 });
    }
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_of_the_same_clients_never_deadlock() {
    const WORKERS: usize = 4;
    let f = Arc::new(Fixture::new().await);
    let caches: Vec<_> = (0..WORKERS).map(|_| DialogCache::new(10_000)).collect();
    for round in 0..60 {
        let mut workers = JoinSet::new();
        for (worker, cache) in caches.iter().enumerate() {
            let (f, cache) = (Arc::clone(&f), cache.clone());
            workers.spawn(async move { f.store.persist(&cache, &batch_of_own_keys(round, worker)).await });
        }
        for fates in workers.join_all().await {
            let fates = fates.expect("no deadlock and no lost race");
            assert!(fates.fates.iter().all(|fate| matches!(fate, Fate::Stored { .. })));
        }
    }
    assert_eq!(f.count("messages").await, 60 * 4 * 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_newest_of_many_phones_written_at_once_wins() {
    let f = Arc::new(Fixture::new().await);
    for round in 0..10 {
        let mut workers = JoinSet::new();
        for n in 0..8 {
            let f = Arc::clone(&f);
            let mut told = message(round * 8 + n);
            told.external_client_id = "one".to_owned();
            told.client_phone = Some(format!("{}", round * 8 + n));
            // Memories of their own: each of them takes its phone for the newest.
            workers.spawn(async move { f.store.persist(&DialogCache::new(10), &[told]).await });
        }
        assert!(workers.join_all().await.iter().all(Result::is_ok));
        let phone: String = sqlx::query_scalar("SELECT phone FROM clients").fetch_one(f.pool()).await.unwrap();
        assert_eq!(phone, format!("{}", round * 8 + 7));
    }
}

#[tokio::test]
async fn a_key_that_another_transaction_holds_is_waited_for() {
    let f = Fixture::new().await;
    let mut other = f.pool().begin().await.unwrap();
    sqlx::query(
        "INSERT INTO event_keys (id, send_at, fingerprint, partition, entry_ms, entry_seq)
         VALUES ($1, now(), 1, 3, 2, 1)",
    )
    .bind(message(1).key)
    .execute(&mut *other)
    .await
    .unwrap();
    let store = f.store.clone();
    let cache = f.cache.clone();
    let waiting = tokio::spawn(async move { store.persist(&cache, &messages(0..3)).await });
    f.until_so_many_wait(1).await;
    other.rollback().await.unwrap();
    let fates = waiting.await.unwrap().unwrap();
    assert!(fates.fates.iter().all(|fate| matches!(fate, Fate::Stored { .. })));
}

/// Event number `n`, which does something to a message.
fn change(n: usize, effect: Effect) -> NewEvent {
    NewEvent { effect, ..message(n) }
}

#[tokio::test]
async fn batches_that_edit_and_remove_the_same_messages_crosswise_do_not_deadlock() {
    // Longer than anything that is waited for here.
    let f = Fixture::with(|options| {
        (options.lock_timeout, options.statement_timeout) = (Duration::from_secs(60), Duration::from_secs(60));
    })
    .await;
    f.persist(&messages(0..2)).await;
    let [first, second] = [message(0).key, message(1).key];
    let mut other = f.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM messages WHERE external_message_id = 'message-1' FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let mut batches = JoinSet::new();
    // Both want the second one; who gets it first may not want the first one only then, as the other one has it.
    for (n, (edited, removed)) in [(second, first), (first, second)].into_iter().enumerate() {
        let (store, cache) = (f.store.clone(), f.cache.clone());
        let (edit, removal) = (Effect::Edit { of: edited }, Effect::Removal { of: removed });
        let batch = [change(10 * n + 10, edit), change(10 * n + 11, removal)];
        batches.spawn(async move { store.persist(&cache, &batch).await });
        f.until_so_many_wait(n as i64 + 1).await;
    }
    other.rollback().await.unwrap();
    for result in batches.join_all().await {
        result.expect("no deadlock");
    }
    let changed = "SELECT count(*) FROM messages WHERE edited_at IS NOT NULL AND removed_at IS NOT NULL";
    assert_eq!(sqlx::query_scalar::<_, i64>(changed).fetch_one(f.pool()).await.unwrap(), 2);
}
