use std::collections::HashSet;

use uuid::Uuid;
use weir_store::{NewEvent, Place};

use crate::support::{Fixture, again, key, message, messages, stored_id};

#[tokio::test]
async fn a_stored_message_is_found_with_all_that_belongs_to_it() {
    let f = Fixture::new().await;
    let sent = NewEvent {
        trace_id: Some(Uuid::from_u128(9)),
        send_at: time::macros::datetime!(2026-03-03 3:03 UTC),
        ..message(1)
    };
    let fates = f.persist(std::slice::from_ref(&sent)).await;
    let found = f.store.find_message(sent.key).await.unwrap().expect("a message");
    assert_eq!(found.message_id, Some(stored_id(&fates[0])));
    assert_eq!((found.key, found.place, found.send_at), (sent.key, sent.place, sent.send_at));
    assert_eq!(found.partition_table.as_deref(), Some("messages_y2026m03"));
    assert_eq!(found.external_message_id.as_deref(), Some("message-1"));
    assert_eq!(found.external_client_id.as_deref(), Some("client-1"));
    assert_eq!(found.external_dialog_id.as_deref(), Some(""));
    assert_eq!((found.source.as_deref(), found.trace_id), (Some("messenger"), sent.trace_id));
    assert!(found.stored_at.is_some() && found.client_id.is_some() && found.dialog_id.is_some());
}

#[tokio::test]
async fn an_unknown_key_is_not_found() {
    let f = Fixture::new().await;
    assert!(f.store.find_message(key(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_key_outlives_its_message() {
    let f = Fixture::new().await;
    f.persist(&[message(1)]).await;
    sqlx::query("ALTER TABLE messages DETACH PARTITION messages_before_2025").execute(f.pool()).await.unwrap();
    let found = f.store.find_message(key(1)).await.unwrap().expect("a key");
    assert!(found.message_id.is_some() && found.partition_table.is_none() && found.client_id.is_none());
}

#[tokio::test]
async fn only_the_keys_that_exist_are_named() {
    let f = Fixture::new().await;
    f.persist(&messages(0..5)).await;
    let found = f.store.find_keys(&[key(1), key(4), key(5)]).await.unwrap();
    assert_eq!(found, HashSet::from([key(1), key(4)]));
}

#[tokio::test]
async fn an_entry_leads_to_the_key_that_it_stored() {
    let f = Fixture::new().await;
    f.persist(&messages(0..5)).await;
    f.persist(&[again(&message(1))]).await;
    assert_eq!(f.store.find_by_place(message(3).place).await.unwrap(), Some(key(3)));
    assert_eq!(f.store.find_by_place(again(&message(1)).place).await.unwrap(), None);
    let elsewhere = Place { partition: 2, ..message(3).place };
    assert_eq!(f.store.find_by_place(elsewhere).await.unwrap(), None);
}

#[tokio::test]
async fn an_entry_is_looked_up_in_a_few_ranges_of_a_large_table() {
    let f = Fixture::new().await;
    // Four partitions fill at once; every thousandth entry waited for its retry.
    sqlx::query(
        "INSERT INTO event_keys (id, send_at, fingerprint, partition, entry_ms, entry_seq)
         SELECT gen_random_uuid(), now(), n, n % 4, CASE WHEN n % 1000 = 0 THEN n - n % 7919 ELSE n / 10 * 10 END, n % 10
         FROM generate_series(1, 200000) n",
    )
    .execute(f.pool())
    .await
    .unwrap();
    sqlx::query("VACUUM ANALYZE event_keys").execute(f.pool()).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN ANALYZE SELECT id FROM event_keys WHERE entry_ms = 123450 AND entry_seq = 7 AND partition = 1",
    )
    .fetch_all(f.pool())
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("Bitmap Index Scan on event_keys_entry_ms_idx"), "{plan}");
    let rechecked = plan.lines().find_map(|line| line.trim().strip_prefix("Rows Removed by Index Recheck: "));
    let rechecked: u32 = rechecked.map_or(0, |rows| rows.parse().unwrap());
    assert!(rechecked < 10_000, "{plan}");
    let place = Place { partition: 1, ms: 123_450, seq: 7 };
    assert!(f.store.find_by_place(place).await.unwrap().is_some());
}
