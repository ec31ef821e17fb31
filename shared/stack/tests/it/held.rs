//! What becomes of servers and folders when the process that started them is killed.
//!
//! The process is this test program once more, running nothing but [`a_process_to_kill`].

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use weir_stack::testing::{Scratch, eventually, own_postgres, redis, scratch};
use weir_stack::{PostgresOptions, PostgresServer, Process, RedisOptions, RedisServer, tied_command};

use crate::{SOON, inhabitants, is_running};

/// What the process is to start; without it there is nothing to do.
const WHAT: &str = "WEIR_TEST_HOLD";
/// Where it starts that, and where it reports.
const DIR: &str = "WEIR_TEST_HOLD_DIR";

#[test]
#[ignore = "other tests run it as a process of its own"]
fn a_process_to_kill() {
    let (Ok(what), Some(dir)) = (env::var(WHAT), env::var_os(DIR)) else {
        return;
    };
    let dir = PathBuf::from(dir);
    let report = dir.join("report.new");
    // The thread and its runtime end; what they started stays.
    let server = thread::spawn({
        let dir = dir.clone();
        move || start(&what, &dir)
    });
    let (_held, text) = server.join().expect("a server");
    fs::write(&report, text).expect("a report");
    fs::rename(&report, dir.join("report")).expect("a report");
    loop {
        thread::park();
    }
}

type Held = Box<dyn Send>;

fn start(what: &str, dir: &Path) -> (Held, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let task = match what {
        "redis" => runtime.spawn(hold_redis(dir.join("redis"))),
        "postgres" => runtime.spawn(hold_postgres(dir.join("postgres"))),
        "scratch" => runtime.spawn(hold_scratch()),
        other => panic!("{other} is unknown"),
    };
    runtime.block_on(task).expect("a server")
}

async fn hold_redis(dir: PathBuf) -> (Held, String) {
    let server = RedisServer::start(RedisOptions::new(dir)).await.expect("it starts");
    let pid = server.pid().to_string();
    (Box::new(server), pid)
}

async fn hold_postgres(dir: PathBuf) -> (Held, String) {
    let server = PostgresServer::start(PostgresOptions::new(dir)).await.expect("it starts");
    let pid = server.pid().to_string();
    (Box::new(server), pid)
}

/// A folder with servers in it; one of them is frozen and ends by no signal but SIGKILL.
async fn hold_scratch() -> (Held, String) {
    let (redis, frozen, postgres, empty) = (redis().await, redis().await, own_postgres().await, scratch());
    frozen.pause();
    let dirs = [redis.dir(), frozen.dir(), postgres.dir(), empty.path()];
    let text = dirs.map(|dir| dir.display().to_string()).join("\n");
    (Box::new((redis, frozen, postgres, empty)), text)
}

/// The other process, and what it reported.
struct Holder {
    process: Process,
    report: String,
    scratch: Scratch,
}

impl Holder {
    async fn start(what: &str) -> Holder {
        let scratch = scratch();
        let program = env::current_exe().expect("this program");
        let mut command = tied_command(&program, "KILL").expect("setpriv");
        command
            .args(["--ignored", "--exact", "held::a_process_to_kill", "--nocapture"])
            .env(WHAT, what)
            .env(DIR, scratch.path())
            .stdout(Stdio::null());
        let process = Process::spawn(command).expect("a process");
        let path = scratch.path().join("report");
        eventually("the process reports", SOON, async || path.exists()).await;
        let report = fs::read_to_string(&path).expect("a report");
        Holder { process, report, scratch }
    }
}

#[tokio::test]
async fn redis_dies_with_a_killed_parent_and_starts_in_its_folder_again() {
    let holder = Holder::start("redis").await;
    let pid: u32 = holder.report.parse().expect("a pid");
    assert!(is_running(pid));
    holder.process.kill().await;
    let next = RedisServer::start(RedisOptions::new(holder.scratch.path().join("redis"))).await;
    let next = next.expect("it starts");
    assert!(!is_running(pid));
    assert_ne!(next.pid(), pid);
}

#[tokio::test]
async fn postgres_dies_with_a_killed_parent_and_starts_in_its_folder_again() {
    let holder = Holder::start("postgres").await;
    let pid: u32 = holder.report.parse().expect("a pid");
    assert!(is_running(pid));
    holder.process.kill().await;
    let next = PostgresServer::start(PostgresOptions::new(holder.scratch.path().join("postgres"))).await;
    let next = next.expect("it starts");
    assert!(!is_running(pid));
    assert_ne!(next.pid(), pid);
}

#[tokio::test]
async fn nothing_stays_of_a_killed_test_process() {
    let holder = Holder::start("scratch").await;
    let dirs: Vec<PathBuf> = holder.report.lines().map(PathBuf::from).collect();
    assert_eq!(dirs.len(), 4);
    assert!(dirs.iter().all(|dir| dir.exists()));
    holder.process.kill().await;
    for dir in dirs {
        // Servers live one level below their scratch folder.
        let root = dir.ancestors().find(|folder| folder.parent() == Some(&env::temp_dir()));
        let root = root.expect("a scratch folder");
        eventually("the folder goes", SOON, async || !root.exists()).await;
        assert!(inhabitants(root).is_empty());
    }
}

#[test]
fn a_dropped_scratch_folder_is_gone_at_once() {
    let scratch = scratch();
    let path = scratch.path().to_owned();
    fs::write(path.join("file"), "text").expect("a file");
    drop(scratch);
    assert!(!path.exists());
}
