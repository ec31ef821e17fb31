use weir_api::ApiKey;
use weir_stack::testing::eventually;
use weir_stack::{Signal, free_port};

use crate::http::request_with;
use crate::support::{NOBODY, PATIENCE, Stack, assert_help};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_and_listed_without_anything_that_could_be_used() {
    let stack = Stack::new().await;
    stack.run(&["key", "list"]).await.code(0).says(&["there are no keys", "weir key create"]);
    let made = stack.run(&["key", "create", "--role", "read", "back-office"]).await.code(0);
    // Standard output is the key and nothing else, so that `KEY=$(weir key create …)` works.
    let key = ApiKey::parse(made.stdout.trim_end()).expect("a key");
    assert!(made.stderr.contains("only time") && !made.stderr.contains(key.expose()), "{made:?}");

    let listed = stack.run(&["key", "list"]).await.code(0).says(&[key.prefix(), "back-office", "read"]);
    let secret = &key.expose()[13..];
    assert!(!listed.text().contains(secret), "{listed:?}");
    let json = stack.run(&["key", "list", "--output", "json"]).await.code(0);
    assert!(!json.text().contains(secret), "{json:?}");
    let line = &json.json()[0];
    assert_eq!(
        (&line["name"], &line["role"], &line["prefix"]),
        (&"back-office".into(), &"read".into(), &key.prefix().into())
    );
    assert!(line["created_at"].is_string() && line["last_used_at"].is_null() && line["revoked_at"].is_null(), "{line}");
    let made = stack.run(&["key", "create", "--role", "admin", "me", "--output", "json"]).await.code(0).json();
    assert!(ApiKey::parse(made["key"].as_str().unwrap()).is_some(), "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_revoked_by_its_prefix_or_by_itself_and_only_once() {
    let stack = Stack::new().await;
    for by_prefix in [true, false] {
        let made = stack.run(&["key", "create", "--role", "write", "x"]).await.code(0);
        let key = ApiKey::parse(made.stdout.trim_end()).expect("a key");
        let named = if by_prefix { key.prefix() } else { key.expose() };
        let asked = stack.run(&["key", "revoke", named]).await.code(1);
        assert!(asked.stderr.contains("Nothing was changed") && asked.stderr.contains("--yes"), "{asked:?}");
        stack.run(&["key", "revoke", named, "--yes"]).await.code(0).says(&["five seconds", key.prefix()]);
        stack.run(&["key", "revoke", named, "--yes"]).await.code(3).says(&["No valid key"]);
        let listed = stack.run(&["key", "list", "--output", "json"]).await.code(0).json();
        let line = listed.as_array().unwrap().iter().find(|line| line["prefix"] == key.prefix()).expect("it is listed");
        assert!(line["revoked_at"].is_string(), "{line}");
    }
    stack.run(&["key", "revoke", "nonsense", "--yes"]).await.code(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_role_or_no_name_is_refused() {
    let stack = Stack::new().await;
    stack.run(&["key", "create", "--role", "root", "x"]).await.code(2).says(&["monitor, read, write, admin"]);
    stack.run(&["key", "create", "--role", "read", "  "]).await.code(1).says(&["1 to 100 characters"]);
    stack.run(&["key", "create", "--role", "read", "a\x1b[2J"]).await.code(1);
}

/// The whole way: a key made by the command, the role as a process, and a stop in good order.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_answers_who_has_a_key_and_stops_when_it_is_told() {
    let mut stack = Stack::new().await;
    let port = free_port().expect("a port");
    stack.set("WEIR_API_LISTEN", &format!("127.0.0.1:{port}"));
    stack.prepared().await;
    let key = stack.run(&["key", "create", "--role", "read", "x"]).await.code(0).stdout;
    let api = stack.start_api();
    let get = async |path: &str, key: Option<&str>| {
        let header = key.map_or(String::new(), |key| format!("Authorization: Bearer {}\r\n", key.trim_end()));
        request_with(port, "GET", path, &header, "").await.map(|answer| answer.status)
    };
    eventually("it is well", PATIENCE, async || get("/health", None).await.is_ok_and(|status| status == 200)).await;
    assert_eq!(get("/api/v1/search", None).await.unwrap(), 401);
    assert_eq!(get("/api/v1/search", Some(&key)).await.unwrap(), 200);
    assert!(api.stop(Signal::TERM, PATIENCE).await.success());
    let log = std::fs::read_to_string(stack.log()).unwrap();
    assert!(log.contains("listening") && log.contains("the API has stopped") && !log.contains(key.trim_end()), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_named_with_the_way_out() {
    let mut stack = Stack::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    stack.set("WEIR_API_LISTEN", &address);
    stack.run(&["api"]).await.code(1).says(&[&address, "api.listen"]);
    stack.set("WEIR_API_LISTEN", NOBODY);
    stack.set("WEIR_API_AUTH", "nobody");
    stack.run(&["api"]).await.code(2).says(&["WEIR_API_AUTH", "keys nor development"]);
}

#[test]
fn help_is_what_it_was() {
    assert_help!("key");
    assert_help!("key" "create");
    assert_help!("key" "list");
    assert_help!("key" "revoke");
    assert_help!("api");
}
