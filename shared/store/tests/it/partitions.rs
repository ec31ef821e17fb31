use std::time::Duration;

use weir_store::NewEvent;

use crate::support::{Fixture, message};

#[tokio::test]
async fn months_are_made_once() {
    let f = Fixture::new().await;
    assert_eq!(f.store.ensure_partitions(3).await.unwrap(), Vec::<String>::new());
    let made = f.store.ensure_partitions(5).await.unwrap();
    assert_eq!(made.len(), 2, "{made:?}");
    assert_eq!(f.store.ensure_partitions(5).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn months_that_are_missing_are_named_until_they_are_made() {
    let f = Fixture::new().await;
    assert_eq!(f.store.missing_partitions(3).await.unwrap(), Vec::<String>::new());
    let missing = f.store.missing_partitions(5).await.unwrap();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert_eq!(f.store.ensure_partitions(5).await.unwrap(), missing);
    assert_eq!(f.store.missing_partitions(5).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn every_moment_from_long_ago_to_the_months_ahead_has_its_partition() {
    let f = Fixture::new().await;
    let mut at = time::macros::datetime!(2000-01-01 0:00 UTC);
    let end = time::OffsetDateTime::now_utc() + time::Duration::days(60);
    let mut batch = Vec::new();
    while at < end {
        batch.push(NewEvent { send_at: at, ..message(batch.len()) });
        at += time::Duration::days(5);
    }
    let edges = [
        time::macros::datetime!(2024-12-31 23:59:59.999999 UTC),
        time::macros::datetime!(2025-01-01 0:00 UTC),
        time::macros::datetime!(2025-12-31 23:59:59.999999 UTC),
    ];
    batch.extend(edges.iter().enumerate().map(|(n, &send_at)| NewEvent { send_at, ..message(900_000 + n) }));
    f.persist(&batch).await;
    for (n, table) in ["messages_before_2025", "messages_y2025m01", "messages_y2025m12"].into_iter().enumerate() {
        let found = f.store.find_message(message(900_000 + n).key).await.unwrap().unwrap();
        assert_eq!(found.partition_table.as_deref(), Some(table));
    }
}

#[tokio::test]
async fn months_are_those_of_utc_in_every_time_zone() {
    let f = Fixture::new().await;
    let mut session = f.pool().acquire().await.unwrap();
    sqlx::query("SET timezone = 'Pacific/Auckland'").execute(&mut *session).await.unwrap();
    sqlx::query("SELECT weir_ensure_message_partitions(8)").execute(&mut *session).await.unwrap();
    let bounds: Vec<String> = sqlx::query_scalar(
        "SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'messages'::regclass AND set_config('timezone', 'UTC', false) = 'UTC'",
    )
    .fetch_all(&mut *session)
    .await
    .unwrap();
    for bound in bounds {
        assert!(bound.contains("-01 00:00:00+00') TO") || bound.contains("(MINVALUE) TO"), "{bound}");
    }
    sqlx::query("RESET timezone").execute(&mut *session).await.unwrap();
}

#[tokio::test]
async fn two_who_make_months_at_once_take_turns() {
    let f = Fixture::new().await;
    let (one, other) = tokio::join!(f.store.ensure_partitions(9), f.store.ensure_partitions(9));
    let mut made = [one.unwrap(), other.unwrap()].concat();
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 6, "{made:?}");
}

#[tokio::test]
async fn months_are_made_beside_a_transaction_that_inserts() {
    let f = Fixture::with(|options| options.lock_timeout = Duration::from_millis(300)).await;
    f.persist(&[message(1)]).await;
    let mut writer = f.pool().begin().await.unwrap();
    let insert = "INSERT INTO messages (id, send_at, dialog_id, external_message_id, accepted_at)
                  VALUES (-1, now(), 1, 'open', now())";
    sqlx::query(insert).execute(&mut *writer).await.unwrap();
    assert_eq!(f.store.ensure_partitions(6).await.unwrap().len(), 3);
    writer.commit().await.unwrap();
}

#[tokio::test]
async fn a_new_month_is_like_the_others() {
    let f = Fixture::new().await;
    f.store.ensure_partitions(6).await.unwrap();
    let shapes: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT string_agg(regexp_replace(pg_get_indexdef(x.indexrelid), 'messages_[a-z0-9_]+', '', 'g'), ' '
                ORDER BY x.indnatts, x.indisprimary) || x2.attached
         FROM pg_inherits i JOIN pg_index x ON x.indrelid = i.inhrelid,
         LATERAL (SELECT count(*) AS attached FROM pg_inherits p JOIN pg_index px ON px.indexrelid = p.inhrelid
                  WHERE px.indrelid = i.inhrelid) x2
         WHERE i.inhparent = 'messages'::regclass GROUP BY i.inhrelid, x2.attached",
    )
    .fetch_all(f.pool())
    .await
    .unwrap();
    assert_eq!(shapes.len(), 1, "{shapes:#?}");
    assert!(shapes[0].ends_with('3'), "{shapes:#?}");
}

#[tokio::test]
async fn a_detached_month_that_was_kept_does_not_stop_the_others() {
    let f = Fixture::new().await;
    sqlx::query("ALTER TABLE messages DETACH PARTITION messages_y2025m02").execute(f.pool()).await.unwrap();
    assert_eq!(f.store.ensure_partitions(4).await.unwrap().len(), 1);
    sqlx::query("ALTER TABLE messages_y2025m02 RENAME TO old_messages").execute(f.pool()).await.unwrap();
    assert_eq!(f.store.ensure_partitions(4).await.unwrap(), ["messages_y2025m02"]);
}
