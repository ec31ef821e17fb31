//! PostgreSQL.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tokio::process::Command;
use weir_stack::testing::{eventually, own_postgres, postgres, postgres_with, scratch, unique_name};
use weir_stack::{PostgresOptions, PostgresServer, Signal};

use crate::{SOON, inhabitants, is_running};

/// What `psql` prints for a statement.
async fn query(url: &str, sql: &str) -> String {
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
        .args(["--dbname", url, "--command", sql])
        .output()
        .await
        .expect("psql (apt-get install postgresql-client)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn owner_of(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").uid()
}

#[tokio::test]
async fn postgres_never_runs_as_root() {
    let server = own_postgres().await;
    assert_ne!(owner_of(Path::new(&format!("/proc/{}", server.pid()))), 0);
    assert_ne!(owner_of(&server.real_dir().join("data")), 0);
}

#[tokio::test]
async fn the_settings_hold_what_the_promises_need() {
    let server = postgres_with(&[("work_mem", "7MB")]).await;
    let url = server.url("weir");
    for (name, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("checkpoint_timeout", "30min"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("log_parameter_max_length_on_error", "0"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("work_mem", "7MB"),
    ] {
        assert_eq!(query(&url, &format!("SHOW {name}")).await, value, "{name}");
    }
    let compression = query(&url, "SHOW wal_compression").await;
    assert!(["lz4", "pglz"].contains(&compression.as_str()), "{compression}");
}

#[tokio::test]
async fn what_was_committed_survives_a_stop_and_a_kill() {
    let mut server = own_postgres().await;
    let url = server.url("weir");
    query(&url, "CREATE TABLE survivors (name text)").await;
    query(&url, "INSERT INTO survivors VALUES ('stop')").await;
    assert!(server.stop().await.success());
    server.restart().await.expect("it starts after a stop");
    query(&url, "INSERT INTO survivors VALUES ('kill')").await;
    server.kill().await;
    server.restart().await.expect("it starts after a kill");
    assert_eq!(server.url("weir"), url);
    assert_eq!(query(&url, "SELECT string_agg(name, ' ') FROM survivors").await, "stop kill");
}

#[tokio::test]
async fn a_second_start_in_the_folder_of_a_killed_server_works() {
    let scratch = scratch();
    let first = PostgresServer::start(PostgresOptions::new(scratch.path())).await.expect("it starts");
    query(&first.url("weir"), "CREATE TABLE here ()").await;
    first.kill().await;
    drop(first);
    let second = PostgresServer::start(PostgresOptions::new(scratch.path())).await.expect("it starts");
    assert_eq!(query(&second.url("weir"), "SELECT count(*) FROM here").await, "0");
}

#[tokio::test]
async fn a_pid_file_that_names_a_stranger_does_not_prevent_a_start() {
    let mut server = own_postgres().await;
    server.stop().await;
    let stranger = std::process::id();
    let file = server.real_dir().join("data/postmaster.pid");
    fs::write(&file, format!("{stranger}\n")).expect("a stale file");
    server.restart().await.expect("it starts");
    assert_eq!(query(&server.url("weir"), "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_creation_that_failed_midway_is_repeated() {
    let scratch = scratch();
    let unfinished = scratch.path().join("data.new");
    fs::create_dir(&unfinished).expect("a folder");
    fs::write(unfinished.join("PG_VERSION"), "1").expect("a file");
    let server = PostgresServer::start(PostgresOptions::new(scratch.path())).await.expect("it starts");
    assert_eq!(query(&server.url("weir"), "SELECT current_database()").await, "weir");
    assert!(!unfinished.exists());
    assert!(!scratch.path().join("initdb.password").exists());
}

#[tokio::test]
async fn a_folder_that_the_account_cannot_reach_gets_its_data_elsewhere() {
    let scratch = scratch();
    let closed = scratch.path().join("closed");
    fs::create_dir(&closed).expect("a folder");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("permissions");
    let dir = closed.join("postgres");
    let server = PostgresServer::start(PostgresOptions::new(&dir)).await.expect("it starts");
    let home = server.real_dir().to_owned();
    let is_root = we_are_root();
    if is_root {
        let location = fs::read_to_string(dir.join("location")).expect("a location");
        assert_eq!(Path::new(location.trim_end()), home);
        assert_eq!(fs::metadata(&home).expect("a folder").permissions().mode() & 0o777, 0o700);
    }
    server.stop().await;
    drop(server);
    let again = PostgresServer::start(PostgresOptions::new(&dir)).await.expect("it starts");
    assert_eq!(again.real_dir(), home);
    again.stop().await;
    drop(again);
    if is_root {
        fs::remove_dir_all(&home).expect("the data goes");
        // The folder above goes as well if nobody else has data there.
        let _ = home.parent().map(fs::remove_dir);
    }
}

#[tokio::test]
async fn personal_data_of_failed_statements_stays_out_of_the_log() {
    let server = own_postgres().await;
    let url = server.url("weir");
    query(&url, "CREATE TABLE people (phone text PRIMARY KEY)").await;
    query(&url, "INSERT INTO people VALUES ('+79001234567')").await;
    query(&url, "INSERT INTO people VALUES ('+79001234567') ON CONFLICT DO NOTHING").await;
    for sql in ["INSERT INTO people VALUES ('+79001234567')", "SELECT '+79001234567'::uuid"] {
        let status = Command::new("psql").args(["--dbname", &url, "--command", sql]).output().await;
        assert!(!status.expect("psql").status.success(), "{sql}");
    }
    let log = fs::read_to_string(server.real_dir().join("postgres.log")).expect("a log");
    assert!(log.contains("ready to accept connections"), "{log}");
    assert!(!log.contains("79001234567"), "{log}");
}

#[tokio::test]
async fn a_mistake_in_the_settings_is_quoted_from_the_log() {
    let scratch = scratch();
    let mut options = PostgresOptions::new(scratch.path());
    options.settings.push(("no_such_setting".into(), "1".into()));
    let error = PostgresServer::start(options).await.expect_err("it refuses");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
    let server = PostgresServer::start(PostgresOptions::new(scratch.path())).await.expect("it starts without it");
    assert_eq!(query(&server.url("weir"), "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_drop_leaves_no_process_behind() {
    let server = own_postgres().await;
    let pid = server.pid();
    let data = server.real_dir().join("data");
    assert!(inhabitants(&data).len() > 1);
    drop(server);
    assert!(!is_running(pid));
    eventually("all its processes end", SOON, async || inhabitants(&data).is_empty()).await;
}

#[tokio::test]
async fn a_server_can_be_waited_for() {
    let mut server = own_postgres().await;
    server.process().signal(Signal::QUIT);
    assert!(server.process().wait().await.code().is_some());
}

#[test]
fn tests_with_runtimes_of_their_own_share_one_server() {
    let urls: Vec<String> = (0..3)
        .map(|_| {
            std::thread::spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async {
                    let database = unique_name();
                    let shared = postgres().await;
                    query(&shared.url("postgres"), &format!("CREATE DATABASE {database} TEMPLATE weir")).await;
                    assert_eq!(query(&shared.url(&database), "SELECT 1").await, "1");
                    shared.url("weir")
                })
            })
        })
        .map(|thread| thread.join().expect("a test"))
        .collect();
    assert!(urls.windows(2).all(|pair| pair[0] == pair[1]));
}

fn we_are_root() -> bool {
    owner_of(Path::new("/proc/self")) == 0
}
