//! What a slow disk shows: no answer leaves Redis before its fsync has ended, that to a duplicate as little as the
//! first one. strace delays the fsyncs and notes when each has ended.
//!
//! Redis syncs its log between running the commands of a turn of its event loop and writing their replies. A duplicate
//! that runs in the turn of the first message shares its fsync; in a later turn that fsync has ended already.

use std::path::{Path, PathBuf};

use weir_core::queue::Queue;
use weir_core::queue::enqueue::{Enqueued, Enqueuer};
use weir_core::secret::SecretUrl;
use weir_stack::testing::{Scratch, eventually, scratch};
use weir_stack::{Process, free_port, tied_command};

use crate::support::{BOUNDS, LATER, message, new_id};

const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/redis.conf");
const SLOW: &str = "inject=fdatasync:delay_enter=400000";

/// A Redis on a disk that takes 400 ms to sync.
struct SlowDisk {
    url: SecretUrl,
    _process: Process,
    scratch: Scratch,
}

impl SlowDisk {
    async fn start() -> Self {
        let (scratch, port) = (scratch(), free_port().unwrap());
        let dir = scratch.path().to_str().unwrap();
        let mut strace = tied_command(Path::new("strace"), "KILL").unwrap();
        strace.args(["-f", "-o", &format!("{dir}/trace"), "-e", "trace=fdatasync", "-e", SLOW]);
        // Redis ends with strace, as that does with us.
        strace.args(["setpriv", "--pdeathsig", "KILL", "redis-server", SETTINGS, "--bind", "127.0.0.1"]);
        strace.args(["--port", &port.to_string(), "--dir", dir, "--requirepass", "pw", "--supervised", "no"]);
        strace.stdout(std::fs::File::create(scratch.path().join("log")).unwrap());
        let process = Process::spawn(strace).expect("strace (apt-get install strace)");
        let url = SecretUrl::new(format!("redis://:pw@127.0.0.1:{port}/0"));
        let disk = Self { url, _process: process, scratch };
        let queue = disk.queue();
        eventually("Redis runs under strace (apt-get install strace)", LATER, async || {
            let exited = disk._process.exited();
            assert!(exited.is_none(), "strace or redis-server ended: {exited:?}");
            queue.prepare().await.is_ok()
        })
        .await;
        disk
    }

    fn queue(&self) -> Queue {
        Queue::new(&self.url, 1).unwrap()
    }

    fn enqueuer(&self) -> Enqueuer {
        Enqueuer::new(self.queue().on_own_link(LATER), BOUNDS)
    }

    /// Fsyncs that have ended.
    fn synced(&self) -> usize {
        let trace = std::fs::read_to_string(self.scratch.path().join("trace")).unwrap();
        trace.lines().filter(|line| line.contains("= 0 (DELAYED)")).count()
    }

    /// What was written to the log, synced or not.
    fn log_holds(&self, text: &str) -> bool {
        let folder: PathBuf = self.scratch.path().join("appendonlydir");
        let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
        files.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_comes_before_its_fsync_and_that_to_a_duplicate_neither() {
    let disk = SlowDisk::start().await;
    let (one, other) = (disk.enqueuer(), disk.enqueuer());
    new_id(&one.enqueue(&[message("warm", "x")]).await[0]);
    new_id(&other.enqueue(&[message("up", "x")]).await[0]);
    for round in 0..3 {
        let id = format!("slow-message-{round}");
        let before = disk.synced();
        let batch = [message(&id, "x")];
        let first = async {
            let result = one.enqueue(&batch).await.remove(0);
            assert!(disk.synced() > before, "it was answered before anything was synced");
            new_id(&result)
        };
        let again = async {
            eventually("it is written and not yet synced", LATER, async || disk.log_holds(&id)).await;
            let result = other.enqueue(&batch).await.remove(0);
            assert!(disk.synced() > before, "its duplicate was answered before anything was synced");
            result.unwrap()
        };
        let (first, again) = tokio::join!(first, again);
        assert_eq!(again, Enqueued::Duplicate(first));
    }
    assert!(disk.synced() >= 5, "{} fsyncs", disk.synced());
}
