use weir_store::{DialogCache, NewEvent};

use crate::support::{Fixture, message, unmigrated};

/// The files, oldest first.
fn names() -> Vec<String> {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations")).expect("the migrations");
    let files = folder.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    let mut names: Vec<String> = files.filter_map(|file| Some(file.strip_suffix(".up.sql")?.to_owned())).collect();
    names.sort();
    names
}

fn recent(n: usize) -> NewEvent {
    NewEvent { send_at: time::macros::datetime!(2026-03-03 3:03 UTC), ..message(n) }
}

#[tokio::test]
async fn every_migration_goes_up_down_and_up_again_with_rows_in_its_tables() {
    let (f, names) = (Fixture::new().await, names());
    for steps in 1..=names.len() {
        f.store.persist(&DialogCache::new(10), &[message(steps), recent(steps + 10)]).await.unwrap();
        let undone: Vec<_> = names.iter().rev().take(steps).cloned().collect();
        assert_eq!(f.store.migrate_down(steps).await.unwrap(), undone);
        assert!(!f.store.schema_is_current().await.unwrap());
        let made: Vec<_> = names[names.len() - steps..].to_vec();
        assert_eq!(f.store.migrate_up().await.unwrap(), made);
        assert!(f.store.schema_is_current().await.unwrap());
    }
}

#[tokio::test]
async fn the_way_down_leaves_nothing_behind() {
    let f = Fixture::new().await;
    f.persist(&[message(1)]).await;
    f.store.migrate_down(100).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname !~ '^_sqlx'
         UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    )
    .fetch_all(f.pool())
    .await
    .unwrap();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(f.store.migrate_down(1).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn the_months_that_hold_messages_survive_the_way_down_of_their_function() {
    let f = Fixture::new().await;
    f.persist(&[recent(1)]).await;
    // Down to before the fourth, which is the function.
    f.store.migrate_down(names().len() - 3).await.unwrap();
    f.store.migrate_up().await.unwrap();
    assert_eq!(f.count("messages_y2026m03").await, 1);
}

#[tokio::test]
async fn an_empty_database_says_what_it_lacks_and_gets_it() {
    let store = unmigrated().await;
    assert!(!store.schema_is_current().await.unwrap());
    assert!(store.migration_status().await.unwrap().iter().all(|migration| migration.applied_at.is_none()));
    assert_eq!(store.migrate_up().await.unwrap(), names());
    assert_eq!(store.migrate_up().await.unwrap(), Vec::<String>::new());
    let status = store.migration_status().await.unwrap();
    assert!(status.iter().all(|migration| migration.applied_at.is_some()));
    assert_eq!((status[1].version, status[1].description.as_str()), (2, "event keys"));
}

#[tokio::test]
async fn two_who_migrate_at_once_take_turns() {
    let store = unmigrated().await;
    let (one, other) = tokio::join!(store.migrate_up(), store.migrate_up());
    let mut made = [one.unwrap(), other.unwrap()].concat();
    made.sort();
    assert_eq!(made, names());
}

#[tokio::test]
async fn a_newer_schema_is_good_enough_and_a_changed_migration_is_not() {
    let f = Fixture::new().await;
    let run = async |statement: &'static str| sqlx::query(statement).execute(f.pool()).await.unwrap();
    run("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '\\x00', 0)")
    .await;
    assert!(f.store.schema_is_current().await.unwrap());
    run("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    assert!(!f.store.schema_is_current().await.unwrap());
}
