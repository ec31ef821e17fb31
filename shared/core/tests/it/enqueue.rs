//! New, duplicate, conflict, and what keeps a batch out.

use weir_core::message::MessageKey;
use weir_core::queue::enqueue::{Bounds, EnqueueError, Enqueued, find};
use weir_core::queue::{Queue, QueueError};
use weir_core::secret::SecretUrl;

use crate::support::{BOUNDS, Place, accepted, message, new_id};

#[tokio::test]
async fn one_batch_holds_new_duplicate_and_conflict() {
    let place = Place::with_partitions(4).await;
    let enqueuer = place.enqueuer();
    let first: Vec<_> = (0..20).map(|i| message(&format!("old-{i}"), "one")).collect();
    let old: Vec<_> = enqueuer.enqueue(&first).await.iter().map(new_id).collect();

    let batch = [message("new", "one"), message("old-3", "one"), message("old-7", "two"), message("newer", "one")];
    let results = enqueuer.enqueue(&batch).await;
    assert_eq!(results[1].as_ref().unwrap(), &Enqueued::Duplicate(old[3]));
    assert_eq!(results[2].as_ref().unwrap(), &Enqueued::Conflict(old[7]));
    assert_ne!(new_id(&results[0]), new_id(&results[3]));
    assert_eq!(place.balance().await.accepted, 22);
}

#[tokio::test]
async fn twins_in_one_batch_are_one_message() {
    let place = Place::new().await;
    let batch = [message("a", "one"), message("a", "one"), message("a", "two")];
    let results = place.enqueuer().enqueue(&batch).await;
    let id = new_id(&results[0]);
    assert_eq!(results[1].as_ref().unwrap(), &Enqueued::Duplicate(id));
    assert_eq!(results[2].as_ref().unwrap(), &Enqueued::Conflict(id));
    assert_eq!(place.balance().await.accepted, 1);
}

#[tokio::test]
async fn a_duplicate_is_answered_with_the_first_id_by_another_gateway_too() {
    let place = Place::with_partitions(4).await;
    let (one, two) = (place.enqueuer(), place.enqueuer());
    let batch: Vec<_> = (0..50).map(|i| message(&i.to_string(), "x")).collect();
    let (first, second) = tokio::join!(one.enqueue(&batch), two.enqueue(&batch));
    for (first, second) in first.iter().zip(&second) {
        match (first.as_ref().unwrap(), second.as_ref().unwrap()) {
            (Enqueued::New(a), Enqueued::Duplicate(b)) | (Enqueued::Duplicate(a), Enqueued::New(b)) => {
                assert_eq!(a, b);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(place.balance().await.accepted, 50);
}

#[tokio::test]
async fn a_message_id_names_the_entry_and_its_partition() {
    let place = Place::with_partitions(4).await;
    let batch: Vec<_> = (0..20).map(|i| message(&i.to_string(), "x")).collect();
    for (entry, result) in batch.iter().zip(place.enqueuer().enqueue(&batch).await) {
        let id = new_id(&result);
        assert_eq!(id.partition, entry.key.partition(4));
        let stream = &place.queue.keys(id.partition).ingest;
        let found = place.queue.range(stream, &id.entry(), &id.entry(), 1).await.unwrap();
        assert_eq!(found[0].fields["e"], entry.envelope);
        assert_eq!(find(&place.queue, entry.key).await.unwrap(), Some(id));
    }
    assert_eq!(find(&place.queue, MessageKey::new("s", "unknown")).await.unwrap(), None);
}

#[tokio::test]
async fn a_stream_of_a_wrong_type_leaves_no_dedupe_field_behind() {
    let place = Place::new().await;
    place.fill(1).await;
    let before = place.buckets().await.len();
    let () = place.ask(&["DEL", "weir:{0}:ingest"]).await;
    let () = place.ask(&["SET", "weir:{0}:ingest", "rubbish"]).await;
    let results = place.enqueuer().enqueue(&[message("a", "x")]).await;
    assert!(matches!(results[0], Err(EnqueueError::Queue(QueueError::Deployment(_)))), "{results:?}");
    assert_eq!(place.buckets().await.len(), before);

    let () = place.ask(&["DEL", "weir:{0}:ingest"]).await;
    new_id(&place.enqueuer().enqueue(&[message("a", "x")]).await[0]);
}

#[tokio::test]
async fn an_entry_that_cannot_be_appended_leaves_no_dedupe_field_behind() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    accepted(&enqueuer.enqueue(&[message("first", "x")]).await[0]);
    let buckets = place.buckets().await.len();
    // After the last id that there can be, XADD fails although everything before it succeeds.
    let last = format!("{0}-{0}", u64::MAX);
    let () = place.ask(&["XSETID", "weir:{0}:ingest", &last]).await;
    for _ in 0..2 {
        let results = enqueuer.enqueue(&[message("a", "x"), message("b", "x")]).await;
        assert!(results.iter().all(Result::is_err), "{results:?}");
    }
    assert_eq!((place.balance().await.accepted, place.buckets().await.len()), (1, buckets));
    let () = place.ask(&["XTRIM", "weir:{0}:ingest", "MAXLEN", "0"]).await;
    let () = place.ask(&["XSETID", "weir:{0}:ingest", "1-1"]).await;
    for result in enqueuer.enqueue(&[message("a", "x"), message("b", "x")]).await {
        accepted(&result);
    }
}

#[tokio::test]
async fn a_bucket_of_a_wrong_type_costs_only_its_own_messages() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    new_id(&enqueuer.enqueue(&[message("a", "x")]).await[0]);
    let bucket = place.buckets().await.remove(0);
    let () = place.ask(&["DEL", &bucket]).await;
    let () = place.ask(&["SET", &bucket, "rubbish"]).await;

    let results = enqueuer.enqueue(&[message("b", "x"), message("a", "x"), message("c", "x")]).await;
    assert!(matches!(results[1], Err(EnqueueError::Queue(QueueError::Deployment(_)))), "{results:?}");
    new_id(&results[0]);
    new_id(&results[2]);
    assert_eq!(place.balance().await.accepted, 3);
}

#[tokio::test]
async fn a_full_backlog_takes_nothing_until_it_is_drained() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer_with(Bounds { backlog: 10, ..BOUNDS });
    let batch: Vec<_> = (0..10).map(|i| message(&i.to_string(), "x")).collect();
    enqueuer.enqueue(&batch).await.iter().for_each(accepted);
    let refused = enqueuer.enqueue(&[message("one more", "x"), message("3", "x")]).await;
    assert!(refused.iter().all(|result| matches!(result, Err(EnqueueError::Full))), "{refused:?}");
    assert_eq!(place.balance().await.accepted, 10);

    place.join("w").await;
    let entries = place.read(weir_core::queue::consume::Lane::Ingest, "w", 100).await;
    place.settle(entries[0].lane, "w", &crate::support::ids(&entries)).await;
    new_id(&enqueuer.enqueue(&[message("one more", "x")]).await[0]);
}

#[tokio::test]
async fn an_empty_batch_is_done_at_once() {
    assert!(Place::new().await.enqueuer().enqueue(&[]).await.is_empty());
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let place = Place::with_partitions(4).await;
    let other = Queue::new(&SecretUrl::new(place.redis.url()), 8).unwrap();
    let error = other.prepare().await.unwrap_err();
    assert!(matches!(error, QueueError::Deployment(_)));
    assert_eq!(
        error.to_string(),
        "this Redis holds a queue with partitions 4, but partitions 8 is configured; use the same value, or another \
         Redis"
    );
    assert_eq!(place.elsewhere().prepare().await.unwrap(), 0);
}

#[tokio::test]
async fn a_large_batch_goes_in_whole() {
    let place = Place::with_partitions(2).await;
    let batch: Vec<_> = (0..5000).map(|i| message(&i.to_string(), "x")).collect();
    let results = place.enqueuer().enqueue(&batch).await;
    results.iter().for_each(accepted);
    assert_eq!(place.balance().await.accepted, 5000);
}

#[tokio::test]
async fn an_entry_that_cannot_be_added_behind_another_leaves_no_id_behind() {
    let place = Place::new().await;
    let enqueuer = place.enqueuer();
    new_id(&enqueuer.enqueue(&[message("warm", "x")]).await[0]);
    // The next number still has fourteen digits, the one behind it is no number of an entry when Lua writes it.
    let () = place.ask(&["XSETID", "weir:{0}:ingest", "9999999999999-99999999999998"]).await;
    let batch = [message("a", "x"), message("b", "x")];
    let results = enqueuer.enqueue(&batch).await;
    assert!(results[0].is_ok() && results[1].is_err(), "{results:?}");
    assert_eq!((place.length("weir:{0}:ingest").await, place.balance().await.accepted), (2, 2));
    new_id(&enqueuer.enqueue(&batch[1..]).await[0]);
    assert_eq!((place.length("weir:{0}:ingest").await, place.balance().await.accepted), (3, 3));
}
