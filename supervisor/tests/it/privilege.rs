//! Every process with the rights that it needs and no others: `deploy/redis.acl` and `deploy/postgres-roles.sql`.

use std::fs;
use std::path::PathBuf;

use redis::Value;
use weir_core::queue::{Queue, QueueError};
use weir_core::secret::SecretUrl;
use weir_stack::testing::{Clustered, TestPostgres, TestRedis, eventually, own_postgres, redis_from};
use weir_store::testing;

use crate::http::{body, request};
use crate::letters::{accept, message};
use crate::support::{Ended, NOBODY, PATIENCE, Stack, clean};

const PASSWORD: &str = "of-a-test";

fn deploy(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// The users of the deployment, all with the same password; the test itself may do everything.
fn rules() -> String {
    let rules = fs::read_to_string(deploy("redis.acl")).expect("the rules");
    assert!(rules.starts_with("user default off\n"), "whoever does not say who it is has no rights");
    let rules = rules.replace(" on ", &format!(" on >{PASSWORD} "));
    rules.replace("user default off", &format!("user default on >{PASSWORD} ~* &* +@all"))
}

/// A Redis with these users.
async fn redis() -> TestRedis {
    redis_from(|options| {
        let file = options.dir.with_extension("acl");
        fs::write(&file, rules()).expect("the rules");
        options.password = Some(PASSWORD.into());
        // So that it is the rules that forbid DEBUG.
        let debug = ("enable-debug-command".into(), "yes".into());
        options.settings = vec![("aclfile".into(), file.display().to_string()), debug];
    })
    .await
}

fn as_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (_, host) = rest.split_once('@').expect("a login");
    format!("{scheme}://{user}:{PASSWORD}@{host}")
}

/// Applies `postgres-roles.sql` as its first lines say.
async fn apply_roles(server: &TestPostgres) -> Ended {
    let mut command = std::process::Command::new("psql");
    clean(&mut command).arg("--dbname").arg(server.url("weir")).arg("--file").arg(deploy("postgres-roles.sql"));
    Ended::of(command).await.code(0)
}

/// A database with the roles of the deployment, migrated by its owner.
async fn database(stack: &mut Stack, server: &TestPostgres) -> String {
    apply_roles(server).await.says(&["there are no tables yet"]);
    let url = server.url("weir");
    for role in ["weir_owner", "weir_worker", "weir_api", "weir_operator"] {
        testing::execute(&url, &format!("ALTER ROLE {role} PASSWORD '{PASSWORD}'")).await.expect("a password");
    }
    stack.set("WEIR_DATABASE_URL", &as_user(&url, "weir_owner"));
    stack.run(&["migrate", "up"]).await.code(0);
    apply_roles(server).await;
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_worker_and_operator_do_their_work_with_the_rights_of_the_deployment() {
    let postgres = own_postgres().await;
    let mut stack = Stack::on(redis().await, postgres.url("weir"));
    let (admin, url) = (stack.redis.url(), database(&mut stack, &postgres).await);
    // A month that the worker has to make.
    let last = "SELECT max(c.relname::text) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'messages'::regclass AND c.relname ~ '^messages_y'";
    let month = testing::texts(&url, last).await.expect("months").remove(0);
    testing::execute(&url, &format!("DROP TABLE {month}")).await.expect("a month less");

    // Before the functions are loaded a gateway says who may load them.
    stack.set("WEIR_REDIS_URL", &as_user(&admin, "weir-gateway"));
    stack.run(&["migrate", "functions"]).await.code(1).says(&["may not load them", "weir migrate functions", "NOPERM"]);
    stack.set("WEIR_REDIS_URL", &as_user(&admin, "weir-operator"));
    stack.run(&["migrate", "functions"]).await.code(0).says(&["is loaded"]);
    let queue = stack.queue();
    queue.command::<Value>(redis::cmd("ACL").arg("LOG").arg("RESET")).await.expect("an empty log");

    stack.set("WEIR_REDIS_URL", &as_user(&admin, "weir-gateway"));
    let (gateway, port) = stack.start_gateway().await;
    stack.set("WEIR_REDIS_URL", &as_user(&admin, "weir-worker"));
    let worker = stack.start_worker(&as_user(&url, "weir_worker"));
    let months = format!("SELECT count(*) FROM pg_class WHERE relname = '{month}'");
    eventually("the month is there", PATIENCE, async || testing::number(&url, &months).await == Ok(1)).await;

    // Rows, a retry, a dead letter.
    let late = "ALTER TABLE messages ADD CONSTRAINT late CHECK (text <> 'too early')";
    testing::execute(&url, late).await.expect("a rule");
    for number in 0..20 {
        let text = if number == 7 { "too early" } else { "text" };
        let sent = body(&format!("m{number}"), "c", text);
        assert_eq!(request(port, "POST", "/api/v1/webhook", &sent).await.expect("an answer").status, 202);
    }
    // What MAX sends: an edit before its message, the message, a person.
    let told = |kind: &str, text: &str, at: u64| {
        format!(
            r#"{{"update_type":"{kind}","timestamp":{at},"message":{{"timestamp":1775000000000,"recipient":{{"chat_id":1}},
               "body":{{"mid":"m","text":"{text}"}},"sender":{{"user_id":7,"first_name":"Anna","is_bot":false}}}}}}"#
        )
    };
    for sent in [told("message_edited", "b", 1_775_000_009_000), told("message_created", "a", 1_775_000_001_000)] {
        assert_eq!(request(port, "POST", "/webhook/max", &sent).await.expect("an answer").status, 200);
    }
    let edited = "SELECT count(*) FROM messages m, profiles p WHERE m.text = 'b' AND p.max_first_name = 'Anna'";
    eventually("the edit is applied", PATIENCE, async || testing::number(&url, edited).await == Ok(1)).await;
    let mut poison = message("poison");
    poison.message_text = "a\0b".into();
    accept(&queue, &[poison]).await;
    eventually("a retry is due", PATIENCE, async || stack.balance().await.retried > 0).await;
    testing::execute(&url, "ALTER TABLE messages DROP CONSTRAINT late").await.expect("a rule less");
    let balance = stack.drained().await;
    assert_eq!((balance.stored, balance.dead), (22, 1));

    operate(&mut stack, &admin, &url).await;
    for role in [worker, gateway] {
        role.stop(weir_stack::Signal::TERM, PATIENCE).await;
    }
    let refused: Vec<Value> = queue.command(redis::cmd("ACL").arg("LOG")).await.expect("the log");
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_worker_and_operator_do_their_work_in_a_cluster_with_the_rights_of_the_deployment() {
    let mut stack = Stack::new().await;
    let file = stack.data().join("redis.acl");
    fs::write(&file, rules()).expect("the rules");
    let settings = vec![("aclfile", file.display().to_string())];
    let set = Clustered { password: Some(PASSWORD.into()), settings, ..Clustered::default() }.start().await;
    let as_role = |role: &str| as_user(&set.url(), role);
    stack.queue_at(&set.url());
    stack.set("WEIR_REDIS_URL", &as_role("weir-operator"));
    stack.run(&["migrate", "functions"]).await.code(0).says(&["is loaded"]);
    stack.set("WEIR_REDIS_URL", &as_role("weir-gateway"));
    let (_gateway, port) = stack.start_gateway().await;
    stack.set("WEIR_REDIS_URL", &as_role("weir-worker"));
    let _worker = stack.start_worker(&stack.database);

    // A slot that has moved half-way takes repeats by the name of its new place.
    let post =
        async |id: &str| request(port, "POST", "/api/v1/webhook", &body(id, "c", "text")).await.map(|a| a.status);
    for number in 0..20 {
        assert_eq!(post(&format!("m{number}")).await.expect("an answer"), 202);
    }
    stack.drained().await;
    let slot = set.slot(&stack.queue().keys(0).ingest).await;
    let from = set.holder(slot).await.expect("a primary");
    let to = (from + 1) % 3;
    set.begin_move(slot, from, to).await;
    while set.move_some(slot, from, to).await {}
    stack.set("WEIR_REDIS_URL", &as_role("weir-operator"));
    for number in 0..20 {
        assert_eq!(post(&format!("m{number}")).await.expect("an answer"), 200);
    }
    set.end_move(slot, from, to).await;
    for args in [&["status"][..], &["fleet", "list"], &["message", "show", "m7"], &["dlq", "stats"], &["doctor"]] {
        let ended = stack.run(args).await;
        assert!([0, 3].contains(&ended.code) && !ended.text().contains("NOPERM"), "{args:?}: {ended:#?}");
    }
    for node in 0..3 {
        let refused = set.ask(node, &["ACL", "LOG"]).await;
        assert!(refused.ends_with("*0\r\n"), "node {node}: {refused}");
    }
}

/// What an operator does in a day.
async fn operate(stack: &mut Stack, admin: &str, url: &str) {
    stack.set("WEIR_REDIS_URL", &as_user(admin, "weir-operator"));
    stack.set("WEIR_DATABASE_URL", &as_user(url, "weir_operator"));
    for args in [
        &["status", "--partitions"][..],
        &["fleet", "list"],
        &["message", "show", "m7"],
        &["dlq", "stats"],
        &["dlq", "list"],
        &["dlq", "replay", "--all", "--yes", "--reason", "a test"],
        &["migrate", "status"],
        &["psql", "-c", "SELECT count(*) FROM messages"],
    ] {
        let ended = stack.run(args).await;
        assert!([0, 3].contains(&ended.code) && !ended.text().contains("NOPERM"), "{args:?}: {ended:#?}");
        assert!(!ended.text().contains("permission denied"), "{args:?}: {ended:#?}");
    }
    eventually("the replayed letter is dead again", PATIENCE, async || {
        let balance = stack.balance().await;
        (balance.dead, balance.dead_total) == (1, 2)
    })
    .await;
    let file = stack.data().join("letters.jsonl").display().to_string();
    let mended = ["dlq", "edit", "poison", "--field", "message_text=mended", "--reason", "a test"];
    stack.run(&["dlq", "export", &file]).await.code(0);
    stack.run(&["dlq", "purge", "--all", "--yes", "--reason", "a test"]).await.code(0);
    stack.run(&["dlq", "import", &file, "--yes", "--reason", "a test"]).await.code(0);
    stack.run(&mended).await.code(0);
    stack.run(&["dlq", "replay", "--all", "--yes", "--reason", "a test"]).await.code(0);
    assert_eq!(stack.drained().await.dead, 0);
    let report = stack.run(&["doctor", "--output", "json"]).await.json();
    for finding in report["findings"].as_array().expect("findings") {
        assert!(finding["check"] != "rights" && finding["check"] != "readable", "{finding}");
    }
    let fleet = stack.run(&["fleet", "list", "--output", "json"]).await.json();
    let worker = &fleet["workers"][0];
    assert_eq!(worker["version"], env!("CARGO_PKG_VERSION"), "{fleet:#}");
    stack.run(&["fleet", "drain", worker["name"].as_str().expect("a name")]).await.code(0);
}

fn functions_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/core/src/queue/functions")
}

/// The commands that a function file calls.
fn calls(function: &str) -> Vec<String> {
    let text = fs::read_to_string(functions_folder().join(format!("{function}.lua"))).expect("a function");
    let containers = ["xgroup", "xinfo"];
    let call = |rest: &str| {
        let mut words =
            rest.split('\'').filter(|word| word.chars().all(|c| c.is_ascii_uppercase()) && !word.is_empty());
        let command = words.next()?.to_lowercase();
        match containers.contains(&command.as_str()) {
            true => Some(format!("{command}|{}", words.next()?.to_lowercase())),
            false => Some(command),
        }
    };
    text.split("call(").skip(1).filter_map(call).collect()
}

/// A function runs with the rights of its caller, so a role needs the rights of every function that it calls, also of the
/// branches that no test comes to.
#[test]
fn the_rules_of_a_role_allow_what_its_functions_do() {
    let rules = fs::read_to_string(deploy("redis.acl")).expect("the rules");
    let gateway = ["ensure", "enqueue", "sweep", "balance", "tally"];
    let worker = [
        "prelude",
        "ensure",
        "beat",
        "settle",
        "move",
        "due",
        "reap",
        "suspects",
        "leave",
        "put_profiles",
        "drop_profiles",
        "tally",
    ];
    let api = ["put_profiles", "drop_profiles"];
    let operator = ["balance", "condemn", "replay", "purge", "amend", "import"];
    let all = fs::read_dir(functions_folder()).expect("the functions").count();
    let mut assigned: Vec<&str> = [&gateway[..], &worker, &operator].concat();
    assigned.sort_unstable();
    assigned.dedup();
    assert_eq!(assigned.len(), all, "each function is some role's: {assigned:?}");
    for (role, functions) in [("gateway", &gateway[..]), ("worker", &worker), ("api", &api), ("operator", &operator)] {
        let rule = rules.lines().find(|line| line.starts_with(&format!("user weir-{role} "))).expect("a rule");
        let granted: Vec<&str> = rule.split(' ').filter_map(|word| word.strip_prefix('+')).collect();
        for function in functions {
            let called = calls(function);
            assert!(!called.is_empty(), "{function}");
            for command in called {
                assert!(granted.contains(&command.as_str()), "{role} lacks {command}, which {function}.lua calls");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_a_right_that_a_role_does_not_need_at_redis() {
    let redis = redis().await;
    let try_as = async |user: &str, words: &[&str]| {
        let queue = Queue::new(&SecretUrl::new(as_user(&redis.url(), user)), 1).expect("a queue");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        queue.command::<Value>(&command).await
    };
    for user in ["weir-gateway", "weir-worker", "weir-api", "weir-operator", "weir-monitor"] {
        for words in [
            &["EVAL", "return 1", "0"][..],
            &["EVALSHA", "0000000000000000000000000000000000000000", "0"],
            &["SCRIPT", "LOAD", "return 1"],
            &["FUNCTION", "FLUSH"],
            &["CONFIG", "SET", "appendfsync", "no"],
            &["CONFIG", "RESETSTAT"],
            &["FLUSHALL"],
            &["FLUSHDB"],
            &["KEYS", "*"],
            &["SHUTDOWN", "NOSAVE"],
            &["DEBUG", "SLEEP", "0"],
            &["ACL", "LIST"],
            &["REPLICAOF", "NO", "ONE"],
            &["MODULE", "LIST"],
            &["MONITOR"],
            &["SAVE"],
            &["MIGRATE", "127.0.0.1", "1", "k", "0", "1"],
            &["CLIENT", "LIST"],
            &["GET", "weir:meta"],
            &["SET", "weir:meta", "1"],
            &["HGET", "another:key", "field"],
        ] {
            let refused = try_as(user, words).await;
            assert!(
                matches!(&refused, Err(QueueError::Deployment(text)) if text.contains("NOPERM")),
                "{user} {words:?}: {refused:?}"
            );
        }
    }
    let loads = ["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() return 1 end)"];
    let wipes = ["DEL", "weir:{0}:ingest"];
    let hides = ["HGET", "weir:worker:a", "drain"];
    for (user, words) in [
        ("weir-gateway", &loads[..]),
        ("weir-worker", &loads),
        ("weir-api", &loads),
        ("weir-monitor", &loads),
        ("weir-gateway", &wipes),
        ("weir-api", &wipes),
        ("weir-api", &["XADD", "weir:{0}:ingest", "*", "a", "b"]),
        ("weir-api", &["HSET", "weir:meta", "a", "b"]),
        ("weir-monitor", &wipes),
        ("weir-gateway", &hides),
        ("weir-monitor", &["HGETALL", "weir:meta"]),
        ("weir-monitor", &["CONFIG", "GET", "*"]),
        ("weir-worker", &["CONFIG", "GET", "*"]),
    ] {
        let refused = try_as(user, words).await;
        assert!(
            matches!(&refused, Err(QueueError::Deployment(text)) if text.contains("NOPERM")),
            "{user} {words:?}: {refused:?}"
        );
    }
    // And what the last one is for.
    for words in [&["INFO"][..], &["PING"], &["SLOWLOG", "LEN"], &["LATENCY", "LATEST"]] {
        try_as("weir-monitor", words).await.expect("a watcher may watch");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_a_right_that_a_role_does_not_need_at_postgresql() {
    let postgres = own_postgres().await;
    let mut stack = Stack::on(weir_stack::testing::redis().await, postgres.url("weir"));
    stack.set("WEIR_GATEWAY_LISTEN", NOBODY);
    let url = database(&mut stack, &postgres).await;
    let common = [
        "DROP TABLE messages",
        "ALTER TABLE messages ADD COLUMN x int",
        "CREATE TABLE x (y int)",
        "CREATE TEMPORARY TABLE messages (y int)",
        "CREATE SCHEMA weir_worker",
        "CREATE ROLE x",
        "CREATE DATABASE x",
        "CREATE FUNCTION public.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION weir_ensure_message_partitions(months_ahead integer) RETURNS SETOF text LANGUAGE sql AS 'SELECT 1::text'",
        "SELECT count(*) FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "ALTER SYSTEM SET fsync = off",
        "SET ROLE weir_owner",
        "TRUNCATE messages",
        "DELETE FROM event_keys",
        "DELETE FROM clients",
        "DELETE FROM messages",
        "UPDATE messages SET accepted_at = now()",
        "DELETE FROM profiles",
        "UPDATE profile_history SET actor = ''",
        "UPDATE api_keys SET role = 'admin'",
        "UPDATE event_keys SET fingerprint = 0",
        "UPDATE clients SET source = ''",
        "UPDATE _sqlx_migrations SET checksum = ''",
        "INSERT INTO _sqlx_migrations (version) VALUES (99)",
    ];
    let refused = async |role: &str, sql: &str| {
        let error = testing::execute(&as_user(&url, role), sql).await.expect_err(sql);
        assert_eq!(error.sqlstate.as_deref(), Some("42501"), "{role}: {sql}: {error}");
    };
    for sql in common {
        refused("weir_api", sql).await;
        refused("weir_worker", sql).await;
        refused("weir_operator", sql).await;
    }
    refused("weir_worker", "SELECT text FROM messages").await;
    refused("weir_worker", "SELECT hash FROM api_keys").await;
    for sql in [
        "UPDATE messages SET text = ''",
        "INSERT INTO api_keys (name, role, prefix, hash) VALUES ('', 'admin', '', '')",
    ] {
        refused("weir_api", sql).await;
    }
    refused("weir_operator", "UPDATE messages SET text = ''").await;
    refused("weir_operator", "INSERT INTO dialogs (client_id) VALUES (1)").await;
    for sql in
        ["SELECT count(*) FROM pg_authid", "CREATE ROLE x", "CREATE DATABASE x", "COPY (SELECT 1) TO PROGRAM 'true'"]
    {
        refused("weir_owner", sql).await;
    }
    // The function that makes months is its owner's, looks nowhere but in the schema, and takes no number it is given.
    let pinned = "SELECT array_to_string(proconfig, ' ') FROM pg_proc WHERE proname = 'weir_ensure_message_partitions'
                  AND prosecdef AND proowner = 'weir_owner'::regrole";
    assert_eq!(testing::texts(&url, pinned).await.expect("a function"), ["search_path=public, pg_temp"]);
    for months in ["-1", "121", "2147483647", "NULL"] {
        let sql = format!("SELECT weir_ensure_message_partitions({months})");
        let error = testing::execute(&as_user(&url, "weir_worker"), &sql).await.expect_err(months);
        assert_eq!(error.sqlstate.as_deref(), Some("22023"), "{error}");
    }
    let superusers = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'weir\\_%'
                      AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)";
    assert_eq!(testing::number(&url, superusers).await, Ok(0));
}
