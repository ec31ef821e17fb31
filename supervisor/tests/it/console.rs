use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use weir_stack::testing::eventually;

use crate::support::{Ended, PATIENCE, Stack, assert_help};

/// Runs a client that reads commands from its standard input, and gives its arguments too, as everybody can see them.
async fn converse(stack: &Stack, program: &str, input: &str) -> (Ended, String) {
    let mut client = stack.weir(&[program]);
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().unwrap();
    let cmdline = format!("/proc/{}/cmdline", child.id().unwrap());
    let mut seen = String::new();
    eventually("the client has taken our place", PATIENCE, async || {
        seen = std::fs::read_to_string(&cmdline).unwrap_or_default().replace('\0', " ");
        seen.split(' ').any(|word| word.ends_with(program)) && !seen.contains(env!("CARGO_BIN_EXE_weir"))
    })
    .await;
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    (child.wait_with_output().await.unwrap().into(), seen)
}

fn password(url: &str) -> &str {
    let authority = url.split_once("://").unwrap().1.split_once('@').unwrap().0;
    authority.split_once(':').unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_is_connected_and_its_password_is_no_argument() {
    let stack = Stack::new().await;
    let (ended, cmdline) = converse(&stack, "psql", "select 6 * 7 as answer, count(*) from messages;\n").await;
    ended.code(0).says(&["42"]);
    assert!(!cmdline.contains(password(&stack.database)), "{cmdline}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_is_connected_and_its_password_is_no_argument() {
    let stack = Stack::new().await;
    let (ended, cmdline) = converse(&stack, "redis-cli", "PING\n").await;
    ended.code(0).says(&["PONG"]);
    assert!(!cmdline.contains(password(&stack.redis.url())), "{cmdline}");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_reach_the_clients() {
    let stack = Stack::new().await;
    stack.run(&["psql", "-At", "-c", "select 'it works'"]).await.code(0).says(&["it works"]);
    stack.run(&["redis-cli", "--raw", "echo", "it works"]).await.code(0).says(&["it works"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_installed_is_named_with_its_package() {
    let stack = Stack::new().await;
    let mut psql = stack.weir(&["psql"]);
    psql.env("PATH", "/nowhere");
    Ended::of(psql).await.code(1).says(&["psql is not installed", "postgresql-client"]);
}

#[test]
fn help_of_the_clients_is_as_it_was() {
    assert_help!("psql");
    assert_help!("redis-cli");
}
