//! redis-server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_stack::testing::{redis, redis_with, scratch};
use weir_stack::{RedisOptions, RedisServer, Signal, StackError};

use crate::is_running;

/// Sends one command and returns the first line of the reply, or the value if it is a string.
async fn ask(server: &RedisServer, command: &str) -> String {
    let url = server.url();
    let password = url.split([':', '@']).nth(2).expect("a password");
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("a connection");
    let text = format!("AUTH {password}\r\n{command}\r\nQUIT\r\n");
    stream.write_all(text.as_bytes()).await.expect("a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a reply");
    let reply = reply.strip_prefix("+OK\r\n").expect("the password fits");
    let lines: Vec<&str> = reply.lines().filter(|line| !line.starts_with('$')).collect();
    let end = lines.len() - 1;
    lines[..end].join(" ")
}

#[tokio::test]
async fn redis_answers_with_the_settings_of_the_shared_file() {
    let server = redis().await;
    assert_eq!(ask(&server, "PING").await, "+PONG");
    for (name, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
        ("auto-aof-rewrite-min-size", "268435456"),
    ] {
        let answer = ask(&server, &format!("CONFIG GET {name}")).await;
        assert_eq!(answer, format!("*2 {name} {value}"));
    }
}

#[tokio::test]
async fn settings_win_over_the_shared_file() {
    let server = redis_with(&[("appendfsync", "no"), ("maxmemory", "5mb")]).await;
    assert_eq!(ask(&server, "CONFIG GET appendfsync").await, "*2 appendfsync no");
    assert_eq!(ask(&server, "CONFIG GET maxmemory").await, "*2 maxmemory 5242880");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let mut server = redis().await;
    let (url, pid) = (server.url(), server.pid());
    assert_eq!(ask(&server, "SET key value").await, "+OK");
    server.kill().await;
    assert!(!is_running(pid));
    server.restart().await.expect("it starts again");
    assert_eq!(server.url(), url);
    assert_eq!(ask(&server, "GET key").await, "value");
}

#[tokio::test]
async fn a_second_start_in_the_folder_keeps_data_and_password() {
    let scratch = scratch();
    let first = RedisServer::start(RedisOptions::new(scratch.path())).await.expect("it starts");
    let password = first.url().split('@').next().map(str::to_owned);
    ask(&first, "SET key value").await;
    assert!(first.stop().await.success());
    drop(first);
    let second = RedisServer::start(RedisOptions::new(scratch.path())).await.expect("it starts");
    assert_eq!(second.url().split('@').next().map(str::to_owned), password);
    assert_eq!(ask(&second, "GET key").await, "value");
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let server = redis().await;
    let error = RedisServer::start(RedisOptions::new(server.dir())).await.expect_err("it is in use");
    assert!(matches!(error, StackError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_loading_redis_is_waited_for() {
    // A millisecond per key makes it load for longer than a silent server is waited for.
    let mut server = redis_with(&[("key-load-delay", "1000")]).await;
    let fill = r#"EVAL "for i = 1, 12000 do redis.call('SET', i, i) end" 0"#;
    assert_eq!(ask(&server, fill).await, "");
    let before = Instant::now();
    server.restart().await.expect("it loads");
    assert!(before.elapsed() > Duration::from_secs(10));
    assert_eq!(ask(&server, "DBSIZE").await, ":12000");
}

#[tokio::test]
async fn a_mistake_in_the_settings_is_quoted_from_the_log() {
    let scratch = scratch();
    let mut options = RedisOptions::new(scratch.path());
    options.settings.push(("no-such-setting".into(), "1".into()));
    let error = RedisServer::start(options).await.expect_err("it refuses");
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_an_error_only_if_it_was_asked_for() {
    let holder = redis().await;
    let scratch = scratch();
    let mut options = RedisOptions::new(scratch.path());
    options.port = Some(holder.port());
    let error = RedisServer::start(options).await.expect_err("the port is taken");
    assert!(error.to_string().contains("Address already in use"), "{error}");
}

#[tokio::test]
async fn the_password_is_in_private_files_only() {
    let server = redis().await;
    let cmdline = fs::read(format!("/proc/{}/cmdline", server.pid())).expect("its arguments");
    let password = fs::read_to_string(server.dir().join("redis.password")).expect("a password");
    let password = password.trim_end();
    assert!(!String::from_utf8_lossy(&cmdline).contains(password));
    assert!(!format!("{server:?}").contains(password));
    for file in ["redis.password", "redis.conf", "redis.log"] {
        let meta = fs::metadata(server.dir().join(file)).expect(file);
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_chosen_password_may_hold_anything() {
    let scratch = scratch();
    let mut options = RedisOptions::new(scratch.path());
    options.password = Some("p \"q\\/@:ю#".into());
    let server = RedisServer::start(options).await.expect("it accepts its own password");
    assert!(server.url().contains("p%20%22q%5C%2F%40%3A%D1%8E%23@"), "{}", server.url());
}

#[tokio::test]
async fn a_paused_redis_answers_after_it_is_resumed() {
    let mut server = redis().await;
    server.pause();
    let silent = tokio::time::timeout(Duration::from_millis(100), ask(&server, "PING")).await;
    assert!(silent.is_err());
    server.resume();
    assert_eq!(ask(&server, "PING").await, "+PONG");
    server.process().signal(Signal::TERM);
    assert!(server.process().wait().await.success());
}
