use weir_store::{DialogKey, NewEvent};

use crate::support::{Fixture, message, messages};

#[tokio::test]
async fn ids_are_remembered_after_commit_and_are_those_of_the_rows() {
    let f = Fixture::new().await;
    f.persist(&messages(0..10)).await;
    for message in messages(0..10) {
        let known = f.cache.get(&DialogKey::of(&message)).expect("a remembered dialog");
        let row: (i64, i64) = sqlx::query_as(
            "SELECT c.id, d.id FROM clients c JOIN dialogs d ON d.client_id = c.id WHERE c.external_client_id = $1",
        )
        .bind(&message.external_client_id)
        .fetch_one(f.pool())
        .await
        .unwrap();
        assert_eq!((known.client_id(), known.dialog_id), row);
    }
}

#[tokio::test]
async fn a_batch_that_fails_is_not_remembered() {
    let f = Fixture::new().await;
    let bad = NewEvent { text: Some("\0".to_owned()), ..message(1) };
    f.store.persist(&f.cache, &[message(0), bad]).await.expect_err("a refused batch");
    assert!(f.cache.get(&DialogKey::of(&message(0))).is_none());
    assert_eq!((f.count("clients").await, f.count("event_keys").await), (0, 0));
}

#[tokio::test]
async fn a_batch_without_an_answer_to_its_commit_is_not_remembered() {
    let f = Fixture::new().await;
    // Fails at COMMIT, after all statements succeeded.
    for statement in [
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'late' USING ERRCODE = '40001'; END$$",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON event_keys DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION fail()",
    ] {
        sqlx::query(statement).execute(f.pool()).await.unwrap();
    }
    let error = f.store.persist(&f.cache, &[message(0)]).await.expect_err("a refused commit");
    assert_eq!(error.class, weir_store::Class::Dependency);
    assert!(f.cache.get(&DialogKey::of(&message(0))).is_none());
}

#[tokio::test]
async fn several_dialogs_of_a_client_are_kept_apart() {
    let f = Fixture::new().await;
    let of = |n: usize, dialog: &str| NewEvent {
        external_client_id: "one".to_owned(),
        external_dialog_id: dialog.to_owned(),
        ..message(n)
    };
    f.persist(&[of(1, "a"), of(2, "b"), of(3, "a")]).await;
    // One known dialog and one new dialog of a known client.
    f.persist(&[of(4, "b"), of(5, "c"), of(6, "")]).await;
    assert_eq!((f.count("clients").await, f.count("dialogs").await), (1, 4));
    let messages: Vec<i64> = sqlx::query_scalar(
        "SELECT count(*) FROM messages m JOIN dialogs d ON d.id = m.dialog_id GROUP BY external_dialog_id
         ORDER BY external_dialog_id",
    )
    .fetch_all(f.pool())
    .await
    .unwrap();
    assert_eq!(messages, [1, 2, 2, 1]);
}

#[tokio::test]
async fn the_same_ids_of_two_sources_are_two_clients() {
    let f = Fixture::new().await;
    let other = NewEvent { source: "max".into(), external_client_id: "client-1".to_owned(), ..message(2) };
    f.persist(&[message(1), other]).await;
    assert_eq!(f.count("clients").await, 2);
}

#[tokio::test]
async fn a_remembered_client_that_was_deleted_is_made_again() {
    let f = Fixture::new().await;
    f.persist(&[message(1)]).await;
    sqlx::query("TRUNCATE clients, dialogs").execute(f.pool()).await.unwrap();
    let known = message(1).external_client_id;
    let new_dialog =
        |n| NewEvent { external_client_id: known.clone(), external_dialog_id: format!("{n}"), ..message(n) };
    let in_known_dialog = NewEvent { external_client_id: known.clone(), ..message(3) };
    f.persist(&[new_dialog(2), in_known_dialog]).await;
    assert_eq!((f.count("clients").await, f.count("dialogs").await), (1, 2));
}

#[tokio::test]
async fn a_cold_cache_finds_the_rows_that_are_there() {
    let f = Fixture::new().await;
    f.persist(&messages(0..100)).await;
    let cold = weir_store::DialogCache::new(1000);
    let later: Vec<_> = messages(100..200)
        .into_iter()
        .zip(messages(50..150))
        .map(|(new, known)| NewEvent { external_client_id: known.external_client_id, ..new })
        .collect();
    f.store.persist(&cold, &later).await.unwrap();
    assert_eq!((f.count("clients").await, f.count("dialogs").await), (150, 150));
}
