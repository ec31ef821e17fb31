//! How PostgreSQL answers the reads of the API, and those of a batch, on tables with many rows: no table is read whole, and nothing large sorted.

use sqlx::{AssertSqlSafe, PgPool};

use crate::support::Fixture;

/// Messages of the fixture: two clients in three have one dialog with a few messages, one has many.
const MESSAGES: i64 = 200_000;

/// Rows in two months, as a busy day would leave them, and the statistics that autovacuum would make.
async fn full() -> Fixture {
    let f = Fixture::new().await;
    for statement in [
        "INSERT INTO clients (source, external_client_id, phone, phone_at, first_seen_at, last_seen_at)
         SELECT CASE WHEN n % 10 = 0 THEN 'max' ELSE 'messenger' END, 'client-' || n,
                '+7919' || lpad((n % 15000)::text, 7, '0'), now(), now(), now()
         FROM generate_series(1, 20000) n",
        "INSERT INTO dialogs (client_id, external_dialog_id) SELECT id, '' FROM clients",
        // The first client has a thousand dialogs, and the first dialog a tenth of all messages.
        "INSERT INTO dialogs (client_id, external_dialog_id) SELECT 1, 'd' || n FROM generate_series(1, 1000) n",
        "INSERT INTO event_keys (id, send_at, fingerprint, partition, entry_ms, entry_seq)
         SELECT md5(n::text)::uuid, timestamptz '2026-06-16 00:00Z' + n * interval '13 seconds', n, 0, n, 0
         FROM generate_series(1, 200000) n",
        "INSERT INTO messages (id, send_at, dialog_id, external_message_id, text, accepted_at)
         SELECT k.message_id, k.send_at, CASE WHEN k.entry_ms % 10 = 0 THEN 1 ELSE 1 + k.entry_ms % 20000 END,
                'm-' || k.entry_ms, repeat('text ', 10), k.send_at
         FROM event_keys k",
        "VACUUM ANALYZE clients, dialogs, event_keys, messages",
    ] {
        sqlx::query(statement).execute(f.pool()).await.unwrap();
    }
    assert_eq!(f.count("messages").await, MESSAGES);
    f
}

/// The plan of a statement as the product runs it: prepared, and with a plan for any value of its parameters, which is the
/// harder one.
async fn plan(pool: &PgPool, sql: &str, types: &str, values: &str) -> String {
    let mut connection = pool.acquire().await.unwrap();
    let mut before = vec!["SET plan_cache_mode = force_generic_plan".to_owned()];
    if sql.contains("dialog_id = ") {
        before.push(statement("browse", "const IN_ORDER").replace("LOCAL ", ""));
    }
    before.push(format!("PREPARE asked ({types}) AS {sql}"));
    for statement in before {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await.unwrap();
    }
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS) EXECUTE asked ({values})");
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    drop(connection.detach());
    lines.join("\n")
}

/// Neither reads a table whole, unless it is an empty one, nor touches more than `pages`.
#[track_caller]
fn is_small(plan: &str, pages: u64) {
    for node in plan.split("->").filter(|node| node.contains("Seq Scan")) {
        let is_empty = node.contains("rows=0 ") && !node.contains("Rows Removed");
        assert!(node.contains("(never executed)") || is_empty, "{node}: {plan}");
    }
    let line = plan.lines().find(|line| line.trim().starts_with("Buffers: ")).unwrap_or_default();
    let numbers = line.split([' ', '=']).filter_map(|word| word.parse::<u64>().ok());
    let touched: u64 = numbers.sum();
    assert!(touched <= pages && touched > 0, "{touched} pages: {plan}");
}

/// Sorts no more rows than this.
#[track_caller]
fn sorts_at_most(plan: &str, rows: u64) {
    let lines: Vec<&str> = plan.lines().collect();
    for (place, line) in
        lines.iter().enumerate().filter(|(_, line)| line.trim_start_matches([' ', '-', '>']).starts_with("Sort "))
    {
        // What a sort is given is what the node below it returns.
        let below = lines[place + 1..].iter().find(|line| line.contains("->")).unwrap_or(&"");
        let given = below.split("(actual").nth(1).and_then(|rest| rest.split("rows=").nth(1));
        let given: u64 = given.and_then(|rest| rest.split(' ').next()).and_then(|text| text.parse().ok()).unwrap_or(0);
        assert!(given <= rows, "{line} sorts {given} rows: {plan}");
    }
}

/// Taken from the code, so that what is explained is what runs.
fn statement(file: &str, start: &str) -> String {
    let source = match file {
        "browse" => include_str!("../../src/browse.rs"),
        "profiles/known" => include_str!("../../src/profiles/known.rs"),
        "profiles/write" => include_str!("../../src/profiles/write.rs"),
        _ => include_str!("../../src/search.rs"),
    };
    let at = source.find(start).unwrap_or_else(|| panic!("{start} is not in {file}.rs"));
    let quote = source[at..].find('"').expect("a statement") + at;
    let (open, close) = if source[..quote].ends_with("r#") { ("\"", "\"#") } else { ("\"", "\"") };
    let text = &source[quote + open.len()..];
    let text = &text[..text.find(close).expect("its end")];
    // Names of columns with the macro's marks are plain SQL in quotes.
    text.to_owned()
}

#[tokio::test]
async fn a_page_of_a_large_dialog_is_read_from_the_index_wherever_it_is() {
    let f = full().await;
    let sql = statement("browse", "pub async fn messages_of_dialog");
    for (before, id) in [("2026-07-16 12:00Z", i64::MAX), ("2026-06-20 00:00Z", 77), ("9999-12-31 23:59:59Z", i64::MAX)]
    {
        let plan =
            plan(f.pool(), &sql, "bigint, timestamptz, bigint, bigint", &format!("1, '{before}', {id}, 50")).await;
        is_small(&plan, 400);
        assert!(!plan.contains("Sort "), "{plan}");
    }
}

#[tokio::test]
async fn a_thousand_keys_are_looked_up_one_by_one() {
    let f = full().await;
    let sql = statement("browse", "pub async fn find_messages");
    let keys = "(SELECT array_agg(md5(n::text)::uuid) FROM generate_series(199001, 200000) n)";
    // A parameter cannot be a query: its value is asked for first.
    let keys: String = sqlx::query_scalar(AssertSqlSafe(format!("SELECT quote_literal({keys}::text)")))
        .fetch_one(f.pool())
        .await
        .unwrap();
    let plan = plan(f.pool(), &sql, "uuid[]", &keys).await;
    is_small(&plan, 16_000);
    assert!(plan.contains("Index Scan using event_keys_pkey"), "{plan}");
}

#[tokio::test]
async fn dialogs_of_a_client_and_of_a_phone_come_from_their_indexes() {
    let f = full().await;
    let sql = statement("browse", "pub async fn dialogs_of_client");
    let page = plan(f.pool(), &sql, "bigint, text, boolean, bigint", "1, 'd5', false, 50").await;
    is_small(&page, 200);
    assert!(!page.contains("Sort "), "{page}");
    let sql = statement("browse", "pub async fn find_client");
    let client = plan(f.pool(), &sql, "text[], text", "'{messenger,max}', 'client-777'").await;
    is_small(&client, 20);
    let sql = statement("search", "async fn dialogs_of_phone");
    let dialogs = plan(f.pool(), &sql, "text, text, bigint", "'+79190000777', NULL, 1001").await;
    is_small(&dialogs, 50);
    assert!(dialogs.contains("clients_phone_idx"), "{dialogs}");
}

#[tokio::test]
async fn a_search_by_phone_takes_a_page_of_each_dialog_and_no_more() {
    let f = full().await;
    let sql = statement("search", "async fn newest_of_dialogs");
    let values = "'{1,2,3,4,5}', '2000-01-01Z', '2026-07-10 00:00Z', 9223372036854775807, 50";
    let plan = plan(f.pool(), &sql, "bigint[], timestamptz, timestamptz, bigint, bigint", values).await;
    is_small(&plan, 800);
    sorts_at_most(&plan, 250);
}

#[tokio::test]
async fn a_search_by_time_reads_the_pages_of_its_span() {
    let f = full().await;
    let sql = statement("search", "async fn newest_between");
    // An hour of thirty days: 277 messages.
    let values = "'2026-07-10 00:00Z', '2026-07-10 01:00Z', 9223372036854775807, 2000";
    let plan = plan(f.pool(), &sql, "timestamptz, timestamptz, bigint, bigint", values).await;
    is_small(&plan, 300);
    assert!(plan.contains("send_at_idx"), "{plan}");
    sorts_at_most(&plan, 3000);
}

#[tokio::test]
async fn who_has_written_since_is_found_without_reading_what_was_written_before() {
    let f = full().await;
    let sql = statement("profiles/write", "async fn take_back_overtaken");
    // The last second of the messages: nobody has written later, and one in ten was written by the first client.
    let values = "'{client-1,client-2,nobody}', '{messenger,messenger,messenger}', \
                  '{2026-07-16 12:00Z,2026-07-16 12:00Z,2026-07-16 12:00Z}'";
    let plan = plan(f.pool(), &sql, "text[], text[], timestamptz[]", values).await;
    assert!(!plan.contains("Rows Removed by Join Filter"), "{plan}");
    is_small(&plan, 5000);
}

#[tokio::test]
async fn who_is_known_is_looked_up_by_their_id() {
    let f = full().await;
    for statement in [
        "INSERT INTO profiles (user_id, max_first_name, names_at, first_seen_at, updated_at, search)
         SELECT n::text, 'Анна', now(), now(), now(), 'анна' FROM generate_series(1, 50000) n",
        "VACUUM ANALYZE profiles",
    ] {
        sqlx::query(statement).execute(f.pool()).await.unwrap();
    }
    let sql = statement("profiles/known", "pub(crate) async fn unlike");
    let values = "'{7,77,x}', '{true,true,false}', '{Анна,Иван,NULL}', '{NULL,NULL,NULL}'";
    let plan = plan(f.pool(), &sql, "text[], boolean[], text[], text[]", values).await;
    is_small(&plan, 20);
    assert!(plan.contains("(actual") && plan.contains("rows=2 loops=1"), "{plan}");
}

#[tokio::test]
async fn whole_messages_are_read_by_their_keys() {
    let f = full().await;
    let found: String = sqlx::query_scalar(
        "SELECT quote_literal(array_agg(id)::text) || ', ' || quote_literal(array_agg(send_at)::text)
         FROM (SELECT id, send_at FROM messages WHERE dialog_id = 1 ORDER BY send_at DESC LIMIT 500) m",
    )
    .fetch_one(f.pool())
    .await
    .unwrap();
    let sql = statement("search", "async fn whole_messages");
    let plan = plan(f.pool(), &sql, "bigint[], timestamptz[]", &found).await;
    is_small(&plan, 8000);
    sorts_at_most(&plan, 500);
    let sql = statement("search", "async fn of_source");
    let dialogs: Vec<String> = (1..=2000).map(|id| id.to_string()).collect();
    let values = format!("'{{{}}}', 'max'", dialogs.join(","));
    let plan = self::plan(f.pool(), &sql, "bigint[], text", &values).await;
    is_small(&plan, 16_000);
}
