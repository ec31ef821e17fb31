use crate::support::{Stack, assert_help};

#[tokio::test(flavor = "multi_thread")]
async fn migrations_go_up_and_down_again() {
    let stack = Stack::without_schema().await;
    let before = stack.run(&["migrate", "status"]).await.code(3);
    assert!(before.stderr.contains("weir migrate up"), "{before:?}");

    let planned = stack.run(&["migrate", "up", "--dry-run", "--output", "json"]).await.code(0).json();
    assert_eq!(planned["applied"][0], "0001_clients_and_dialogs");
    stack.run(&["migrate", "status"]).await.code(3);

    let applied = stack.run(&["migrate", "up", "--output", "json"]).await.code(0).json();
    assert_eq!((&applied["applied"], &applied["dry_run"]), (&planned["applied"], &false.into()));
    stack.run(&["migrate", "up"]).await.code(0).says(&["nothing to apply"]);
    let status = stack.run(&["migrate", "status", "--output", "json"]).await.code(0).json();
    assert!(status.as_array().unwrap().iter().all(|row| row["applied_at"].is_string()), "{status}");

    stack.run(&["migrate", "down", "--yes"]).await.code(0).says(&["undid 0"]);
    stack.run(&["migrate", "status"]).await.code(3);
    stack.run(&["migrate", "down", "--steps", "99", "--yes"]).await.code(0).says(&["undid 0001_clients_and_dialogs"]);
    stack.run(&["migrate", "down", "--yes"]).await.code(0).says(&["nothing to undo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn going_down_asks_first_and_shows_what_it_would_undo() {
    let stack = Stack::new().await;
    stack.run(&["migrate", "down"]).await.code(1).says(&["drop their tables", "--yes", "--dry-run"]);
    let planned = stack.run(&["migrate", "down", "--steps", "2", "--dry-run", "--output", "json"]).await.code(0).json();
    assert_eq!(planned["undone"].as_array().unwrap().len(), 2);
    stack.run(&["migrate", "status"]).await.code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let mut stack = Stack::new().await;
    stack.set("WEIR_DATABASE_URL", "postgres://weir:hunter2@127.0.0.1:1/weir");
    let ended = stack.run(&["migrate", "status"]).await.code(1).says(&["PostgreSQL"]);
    assert!(!ended.text().contains("hunter2"), "{ended:?}");
}

#[test]
fn help_of_migrate_is_as_it_was() {
    assert_help!("migrate");
    assert_help!("migrate" "up");
    assert_help!("migrate" "down");
    assert_help!("migrate" "status");
    assert_help!("migrate" "functions");
}
