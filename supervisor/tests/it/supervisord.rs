//! Weir under the real supervisord, with the file of `deploy/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_stack::testing::eventually;
use weir_stack::{Process, Signal, free_port, tied_command};

use crate::http::accepts;
use crate::ledger::Ledger;
use crate::support::{Ended, PATIENCE, Stack, WEIR, clean};

/// As Debian's own main file, with everything in one folder.
const MAIN_FILE: &str = "\
[unix_http_server]
file=DIR/supervisor.sock

[supervisord]
nodaemon=true
logfile=DIR/supervisord.log
pidfile=DIR/supervisord.pid
childlogdir=DIR

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://DIR/supervisor.sock

[include]
files = DEPLOY/supervisord/weir.conf
";

/// Where distributions and pip put it.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin".into(), "/usr/local/bin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("{name} was not found: it is in the Debian package supervisor, which `make test` installs")
        })
}

/// A supervisord that keeps a gateway and workers alive.
struct Supervisord {
    process: Process,
    main_file: PathBuf,
    log: PathBuf,
}

impl Supervisord {
    fn start(stack: &Stack, gateway: u16, workers: usize) -> Self {
        let dir = stack.data();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let text =
            MAIN_FILE.replace("DIR", &dir.display().to_string()).replace("DEPLOY", &deploy.display().to_string());
        let main_file = dir.join("supervisord.conf");
        fs::write(&main_file, text).expect("a configuration");

        // It stops its children when it is told so because this process is gone.
        let mut command = tied_command(&program("supervisord"), "TERM").expect("setpriv");
        clean(&mut command)
            .arg("--configuration")
            .arg(&main_file)
            .current_dir(dir)
            .env("PATH", path_to_weir())
            .env("WEIR_REDIS_URL", stack.redis.url())
            .env("WEIR_DATABASE_URL", &stack.database)
            .env("WEIR_GATEWAY_LISTEN", format!("127.0.0.1:{gateway}"))
            .env("WEIR_API_LISTEN", "127.0.0.1:0")
            .env("WEIR_GRPC_LISTEN", "127.0.0.1:0")
            .env("WEIR_LIMIT_PER_ADDRESS", "off")
            .env("WEIR_OPS_ENABLED", "false")
            .env("WEIR_WORKER_LEASE", "1500ms")
            .env("WEIR_WORKERS", workers.to_string())
            .env("WEIR_USER", user())
            .env("WEIR_LOG_DIR", dir)
            .stdout(fs::File::create(dir.join("supervisord.out")).expect("a log"));
        let process = Process::spawn(command).expect("supervisord starts");
        Self { process, main_file, log: dir.join("supervisord.log") }
    }

    /// The process id of a program that has run for `startsecs`: only then `autorestart` brings it back.
    async fn running(&self, program: &str) -> Option<u32> {
        let mut command = Command::new(self::program("supervisorctl"));
        command.arg("--configuration").arg(&self.main_file).args(["status", &format!("weir:{program}")]);
        let line = Ended::of(command).await.stdout;
        let pid = line.split_once("RUNNING")?.1.trim().strip_prefix("pid ")?;
        pid.split(',').next()?.parse().ok()
    }

    /// What it reports of programs that it started, stopped or lost.
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Processes that it started and that are there.
    fn children(&self) -> Vec<u32> {
        let pid = self.process.pid();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Drop for Supervisord {
    /// A test that failed leaves a supervisord that has not stopped its programs.
    fn drop(&mut self) {
        let children = self.children();
        self.process.signal(Signal::KILL);
        for pid in children.into_iter().filter_map(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?)) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// supervisord finds `weir` where it would find it in production: in its PATH.
fn path_to_weir() -> std::ffi::OsString {
    let folder = Path::new(WEIR).parent().expect("a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path))).expect("a PATH")
}

/// Who runs the tests, and so who may run the programs.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}

/// Whether a process is there and has not ended.
fn lives(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).is_some_and(|state| state != 'Z')
}

#[tokio::test(flavor = "multi_thread")]
async fn supervisord_brings_a_killed_worker_back_and_stops_everything_in_order() {
    let stack = Stack::new().await;
    let port = free_port().expect("a port");
    let supervisord = Supervisord::start(&stack, port, 2);
    accepts(port).await;
    let worker = "weir-worker-00";
    eventually("the worker runs", PATIENCE, async || supervisord.running(worker).await.is_some()).await;
    let victim = supervisord.running(worker).await.expect("a worker");

    let mut ledger = Ledger::start(port, 8);
    eventually("some hundreds are accepted", PATIENCE, async || ledger.accepted() > 300).await;
    let pid = rustix::process::Pid::from_raw(victim.try_into().expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the worker is there");
    eventually("the worker is back", PATIENCE, async || {
        supervisord.running(worker).await.is_some_and(|pid| pid != victim)
    })
    .await;
    let so_far = ledger.accepted();
    eventually("some hundreds more are accepted", PATIENCE, async || ledger.accepted() > so_far + 300).await;
    ledger.stop().await;
    ledger.judge(&stack).await;
    assert_eq!(stack.rows().await, i64::try_from(stack.balance().await.accepted).expect("a number"));

    let children = supervisord.children();
    assert_eq!(children.len(), 4, "a gateway, an API and two workers");
    let log_before = supervisord.log().len();
    supervisord.process.signal(Signal::TERM);
    let status = tokio::time::timeout(PATIENCE, supervisord.process.wait()).await.expect("supervisord stops");
    let log = supervisord.log().split_off(log_before);
    assert!(status.success(), "{status}\n{log}");
    // Each ended by itself after its drain, none by SIGKILL.
    assert_eq!(log.matches("(exit status 0)").count(), 4, "{log}");
    eventually("no process is left", Duration::from_secs(5), async || !children.iter().any(|pid| lives(*pid))).await;
}
