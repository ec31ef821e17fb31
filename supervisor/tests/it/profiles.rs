use weir_stack::testing::eventually;
use weir_store::testing::{Session, execute, number, texts};

use crate::support::{PATIENCE, Stack, assert_help};

/// So many employees without a name who are Иван Петров at MAX.
async fn employ(stack: &Stack, count: u32) {
    let sql = format!(
        "INSERT INTO profiles (user_id, max_first_name, max_last_name, first_seen_at, updated_at, search)
         VALUES ('1', 'Иван', 'Петров', now(), now(), 'иван петров');
         INSERT INTO employees (phone, max_id, first_name, last_name)
         SELECT '+1234567890', '1', 'Неизвестно', '' FROM generate_series(1, {count})"
    );
    let mut session = Session::open(&stack.database).await.expect("a session");
    for statement in sql.split(';') {
        session.run(statement).await.expect("rows");
    }
}

async fn named(stack: &Stack) -> i64 {
    let sql = "SELECT count(*) FROM employees WHERE first_name = 'Иван' AND last_name = 'Петров' AND profile_source = 'webhook'";
    number(&stack.database, sql).await.expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_is_tried_done_and_undone() {
    let stack = Stack::new().await;
    employ(&stack, 7).await;
    let tried = stack
        .run(&["profiles", "backfill", "--names", "--sources", "--dry-run", "--output", "json"])
        .await
        .code(0)
        .json();
    assert_eq!(
        (&tried[0]["kind"], &tried[0]["changed"], &tried[1]["changed"]),
        (&"names".into(), &7.into(), &7.into())
    );
    assert_eq!(named(&stack).await, 0);

    stack.run(&["profiles", "backfill", "--names"]).await.code(1).says(&["7 employees", "--dry-run", "--yes"]);
    let done = stack
        .run(&["profiles", "backfill", "--names", "--yes", "--batch", "2", "--output", "json"])
        .await
        .code(0)
        .json();
    assert_eq!((&done[0]["employees"], &done[0]["changed"]), (&7.into(), &7.into()));
    assert_eq!(named(&stack).await, 7);
    stack.run(&["profiles", "backfill", "--names", "--yes"]).await.code(0);

    let first = done[0]["backfill"].to_string();
    let look = stack.run(&["profiles", "backfill", "--undo", &first, "--dry-run"]).await.code(0);
    look.says(&["7"]);
    assert_eq!(named(&stack).await, 7);
    let undone =
        stack.run(&["profiles", "backfill", "--undo", &first, "--yes", "--output", "json"]).await.code(0).json();
    assert_eq!(undone["restored"], 7);
    assert_eq!(named(&stack).await, 0);
    stack.run(&["profiles", "backfill", "--undo", &first, "--yes"]).await.code(1).says(&["undone already"]);
    stack.run(&["profiles", "backfill", "--undo", "99", "--yes"]).await.code(3).says(&["there is no backfill 99"]);
    stack.run(&["profiles", "backfill"]).await.code(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_was_killed_goes_on_where_it_was() {
    let stack = Stack::new().await;
    employ(&stack, 100).await;
    // It cannot get past the middle.
    let mut somebody = Session::open(&stack.database).await.expect("a session");
    somebody.run("BEGIN; UPDATE employees SET university_id = 5 WHERE id = (SELECT id FROM employees ORDER BY id OFFSET 50 LIMIT 1)").await.expect("a lock");
    let mut backfill =
        stack.weir(&["profiles", "backfill", "--names", "--yes", "--batch", "10"]).spawn().expect("a process");
    eventually("it is in the middle", PATIENCE, async || named(&stack).await == 50).await;
    backfill.kill().await.ok();
    somebody.run("COMMIT").await.expect("a commit");
    let rest = stack
        .run(&["profiles", "backfill", "--names", "--yes", "--output", "json"])
        .await
        .code(0)
        .says(&["goes on behind"]);
    assert_eq!((&rest.json()[0]["employees"], &rest.json()[0]["changed"]), (&50.into(), &50.into()));
    assert_eq!(named(&stack).await, 100);
    let begun = texts(&stack.database, "SELECT kind FROM employee_backfills").await.expect("rows");
    assert_eq!(begun, ["names"], "one backfill, in two processes");
    execute(
        &stack.database,
        "UPDATE employees SET first_name = 'Пётр', updated_at = now() WHERE id = (SELECT min(id) FROM employees)",
    )
    .await
    .expect("a change");
    stack.run(&["profiles", "backfill", "--undo", "--yes", "--batch", "7"]).await.code(0).says(&["99"]);
    assert_eq!(named(&stack).await, 0);
    let kept = "SELECT count(*) FROM employees WHERE first_name = 'Пётр'";
    assert_eq!(number(&stack.database, kept).await, Ok(1));
}

#[test]
fn help_of_profiles_is_as_it_was() {
    assert_help!("profiles");
    assert_help!("profiles" "backfill");
}
