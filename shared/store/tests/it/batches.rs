use serde_json::value::RawValue;
use uuid::Uuid;
use weir_store::{Fate, NewEvent};

use crate::support::{Fixture, again, message, messages, stored_id};

#[tokio::test]
async fn a_batch_is_stored_and_answered_in_its_order() {
    let f = Fixture::new().await;
    let batch = messages(0..1000);
    let fates = f.persist(&batch).await;
    for (message, fate) in batch.iter().zip(&fates) {
        let row: (String, String, String) = sqlx::query_as(
            "SELECT m.external_message_id, m.text, c.external_client_id
             FROM messages m JOIN dialogs d ON d.id = m.dialog_id JOIN clients c ON c.id = d.client_id WHERE m.id = $1",
        )
        .bind(stored_id(fate))
        .fetch_one(f.pool())
        .await
        .unwrap();
        let text = message.text.clone().unwrap();
        assert_eq!(row, (message.external_message_id.clone(), text, message.external_client_id.clone()));
    }
    assert_eq!(f.count("messages").await, 1000);
}

#[tokio::test]
async fn an_empty_batch_is_nothing() {
    let f = Fixture::new().await;
    assert_eq!(f.persist(&[]).await, []);
}

#[tokio::test]
async fn every_field_reaches_its_column() {
    let f = Fixture::new().await;
    let full = NewEvent {
        extra: Some(RawValue::from_string(r#"{"b": [1, 2.50], "a": "ё"}"#.to_owned()).unwrap()),
        trace_id: Some(Uuid::from_u128(7)),
        external_dialog_id: "dialog".to_owned(),
        client_phone: Some("+79001234567".to_owned()),
        ..message(1)
    };
    let bare = NewEvent { text: None, ..message(2) };
    let fates = f.persist(&[full.clone(), bare]).await;
    let row: (Option<String>, Option<Uuid>, time::OffsetDateTime, time::OffsetDateTime) =
        sqlx::query_as("SELECT extra::text, trace_id, send_at, accepted_at FROM messages WHERE id = $1")
            .bind(stored_id(&fates[0]))
            .fetch_one(f.pool())
            .await
            .unwrap();
    let extra = r#"{"a": "ё", "b": [1, 2.50]}"#.to_owned();
    assert_eq!(row, (Some(extra), full.trace_id, full.send_at, full.place.accepted_at()));
    let nulls: bool =
        sqlx::query_scalar("SELECT text IS NULL AND extra IS NULL AND trace_id IS NULL FROM messages WHERE id = $1")
            .bind(stored_id(&fates[1]))
            .fetch_one(f.pool())
            .await
            .unwrap();
    assert!(nulls);
}

#[tokio::test]
async fn the_same_entries_again_were_already_stored() {
    let f = Fixture::new().await;
    let batch = messages(0..1000);
    let first = f.persist(&batch).await;
    let second = f.persist(&batch).await;
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(*second, Fate::AlreadyStored { message_id: Some(stored_id(first)) });
    }
    assert_eq!(f.count("messages").await, 1000);
}

#[tokio::test]
async fn the_same_message_from_another_entry_is_a_duplicate_of_the_first() {
    let f = Fixture::new().await;
    let batch = messages(0..10);
    let first = f.persist(&batch).await;
    let repeats: Vec<_> = batch.iter().map(again).collect();
    for ((original, first), second) in batch.iter().zip(&first).zip(f.persist(&repeats).await) {
        assert_eq!(second, Fate::Duplicate { first: original.place, message_id: Some(stored_id(first)) });
    }
    assert_eq!(f.count("messages").await, 10);
}

#[tokio::test]
async fn other_content_under_the_same_key_is_a_conflict() {
    let f = Fixture::new().await;
    f.persist(&[message(1)]).await;
    let other = NewEvent { fingerprint: -1, ..again(&message(1)) };
    assert_eq!(f.persist(&[other]).await, [Fate::Conflict { first: message(1).place }]);
}

#[tokio::test]
async fn of_twins_in_one_batch_the_first_is_stored() {
    let f = Fixture::new().await;
    let twin = again(&message(1));
    let stranger = NewEvent { fingerprint: -1, ..again(&twin) };
    let fates = f.persist(&[message(2), message(1), stranger, message(3), twin, message(1)]).await;
    let (first, message_id) = (message(1).place, Some(stored_id(&fates[1])));
    assert_eq!(fates[2], Fate::Conflict { first });
    assert_eq!(fates[4], Fate::Duplicate { first, message_id });
    assert_eq!(fates[5], Fate::AlreadyStored { message_id });
    assert_eq!(f.count("messages").await, 3);
}

#[tokio::test]
async fn old_and_new_messages_mix_in_a_batch() {
    let f = Fixture::new().await;
    f.persist(&messages(0..500)).await;
    let fates = f.persist(&messages(250..750)).await;
    assert!(fates[..250].iter().all(|fate| matches!(fate, Fate::AlreadyStored { .. })));
    assert!(fates[250..].iter().all(|fate| matches!(fate, Fate::Stored { .. })));
    assert_eq!(f.count("messages").await, 750);
}

#[tokio::test]
async fn a_key_is_unique_across_partitions() {
    let f = Fixture::new().await;
    f.persist(&[message(1)]).await;
    let moved = NewEvent { send_at: time::macros::datetime!(2026-03-03 3:03 UTC), ..again(&message(1)) };
    assert!(matches!(f.persist(&[moved]).await[..], [Fate::Duplicate { .. }]));
    assert_eq!(f.count("messages").await, 1);
}

#[tokio::test]
async fn an_event_without_a_message_is_a_duplicate_all_the_same() {
    let f = Fixture::new().await;
    f.persist(&[message(1)]).await;
    sqlx::query("UPDATE event_keys SET message_id = NULL").execute(f.pool()).await.unwrap();
    let fates = f.persist(&[again(&message(1))]).await;
    assert_eq!(fates, [Fate::Duplicate { first: message(1).place, message_id: None }]);
}

/// Two statements beside BEGIN and COMMIT, prepared once per connection: the rate rests on it.
#[tokio::test]
async fn known_clients_cost_two_prepared_statements_per_batch() {
    let f = Fixture::with(|options| options.max_connections = 1).await;
    let of_known = |from| messages(from..from + 100).into_iter().zip(messages(0..100));
    let batch = |from| -> Vec<NewEvent> {
        of_known(from).map(|(new, known)| NewEvent { external_client_id: known.external_client_id, ..new }).collect()
    };
    f.persist(&batch(0)).await;
    let before = executions(&f).await;
    for from in 1..=20 {
        f.persist(&batch(from * 100)).await;
    }
    let after = executions(&f).await;
    let ran: Vec<_> = after.iter().filter(|(statement, times)| before.get(*statement) != Some(times)).collect();
    assert_eq!(ran.len(), 2, "{ran:?}");
    for (statement, times) in ran {
        assert_eq!(times - before[statement], 20, "{statement}");
    }
}

async fn executions(f: &Fixture) -> std::collections::HashMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT statement, generic_plans + custom_plans FROM pg_prepared_statements WHERE statement LIKE '%INSERT%'
         OR statement LIKE '%clients%' OR statement LIKE '%event_keys%'",
    )
    .persistent(false)
    .fetch_all(f.pool())
    .await
    .unwrap();
    rows.into_iter().collect()
}
