//! One process of the fleet: started, watched, started again with growing pauses, given up when it keeps crashing.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use weir_core::queue::Queue;
use weir_core::shutdown::Shutdown;
use weir_stack::{Process, Signal, free_port, tied_command};

use crate::context::Context;
use crate::stack_file::Role;
use crate::supervise::board::Board;

/// Crashes within [`CRASH_WINDOW`] after which a process is given up.
const CRASHES: usize = 6;
const CRASH_WINDOW: Duration = Duration::from_secs(60);

/// Longer than any drain.
const GRACE: Duration = Duration::from_secs(30);

/// Which role a process plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gateway,
    Worker,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Worker => "worker",
        }
    }
}

/// One process that is to run.
pub(crate) struct Supervised {
    pub(crate) kind: Kind,
    /// `gateway`, `worker-1` …: its place, which keeps its name when the process is started again.
    pub(crate) place: String,
    pub(crate) context: Context,
    pub(crate) board: Arc<Board>,
    pub(crate) queue: Queue,
    /// Ends it in good order.
    pub(crate) stop: Shutdown,
}

/// How a run of the process ended.
enum Run {
    Stopped,
    Ended(ExitStatus),
}

impl Supervised {
    /// Keeps the process running until `stop`. Gives whether it was given up.
    pub(crate) async fn run(self) -> bool {
        let mut restarts = 0;
        let mut crashes = Crashes::default();
        loop {
            let started = Instant::now();
            match self.once(restarts).await {
                Ok(Run::Stopped) => break,
                Ok(Run::Ended(status)) if status.success() => {
                    tracing::info!(place = self.place, "ended in good order; starting another");
                }
                Ok(Run::Ended(status)) => tracing::error!(place = self.place, %status, "ended; see its log"),
                Err(error) => tracing::error!(place = self.place, error = format!("{error:#}"), "could not be started"),
            }
            restarts += 1;
            match crashes.pause(started) {
                Some(pause) => {
                    self.note(None, "restarting", None, restarts);
                    if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        break;
                    }
                }
                None => {
                    tracing::error!(
                        place = self.place,
                        "given up after {CRASHES} crashes within a minute; mend it and use `weir fleet scale`"
                    );
                    self.note(None, "given up", None, restarts);
                    return true;
                }
            }
        }
        self.board.remove(&self.place);
        false
    }

    /// Runs it once.
    async fn once(&self, restarts: u32) -> Result<Run> {
        let name = match self.kind {
            Kind::Gateway => self.place.clone(),
            Kind::Worker => format!("{}-{}-{:04x}", host(), self.place, rand::random::<u16>()),
        };
        let ops = format!("127.0.0.1:{}", free_port()?);
        let process = Process::spawn(self.command(&name, &ops)?)?;
        self.note(Some(process.pid()), "running", Some(format!("http://{ops}")), restarts);
        tracing::info!(place = self.place, pid = process.pid(), "started");
        let run = tokio::select! {
            status = process.wait() => Run::Ended(status),
            () = self.stop.cancelled() => {
                self.note(Some(process.pid()), "stopping", Some(format!("http://{ops}")), restarts);
                let status = process.stop(Signal::TERM, GRACE).await;
                tracing::info!(place = self.place, %status, "stopped");
                Run::Stopped
            }
        };
        if self.kind == Kind::Worker && !matches!(run, Run::Ended(status) if status.success()) {
            self.declare_dead(&name).await;
        }
        Ok(run)
    }

    /// Lets the other workers take over at once instead of when the lease has run out.
    async fn declare_dead(&self, name: &str) {
        for partition in 0..self.queue.partitions() {
            if let Err(error) = self.queue.declare_dead(partition, name).await {
                tracing::debug!(%error, "a dead worker could not be declared dead; its lease runs out by itself");
                return;
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        self.context.data.join("log").join(format!("{}.log", self.place))
    }

    fn note(&self, pid: Option<u32>, state: &str, ops: Option<String>, restarts: u32) {
        self.board.put(Role {
            name: self.place.clone(),
            role: self.kind.name().to_owned(),
            pid,
            state: state.to_owned(),
            ops,
            restarts,
            log: self.log_path(),
        });
    }

    /// The command of the role, with its secrets in the environment and its log in a file.
    fn command(&self, name: &str, ops: &str) -> Result<Command> {
        let path = self.log_path();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("{} cannot be written", path.display()))?;
        let global = &self.context.global;
        let exe = std::env::current_exe().context("the path of this program is not known")?;
        let mut command = tied_command(&exe, "TERM")?;
        command.arg(self.kind.name()).arg("--data").arg(&global.data);
        if let Some(file) = &global.config {
            command.arg("--config").arg(file);
        }
        for pair in &global.set {
            command.arg("--set").arg(pair);
        }
        command.arg("--set").arg(format!("ops.listen={ops}")).arg("--set").arg("ops.enabled=true");
        if self.kind == Kind::Worker {
            command.arg("--set").arg(format!("worker.name={name}"));
        }
        let stack = self.board.read();
        command.env("WEIR_REDIS_URL", stack.redis.url).env("WEIR_DATABASE_URL", stack.database.url);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command)
    }
}

/// Name of this host.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Remembers when a process ended.
#[derive(Default)]
struct Crashes {
    times: VecDeque<Instant>,
    backoff: Option<ExponentialBackoff>,
}

impl Crashes {
    /// How long to wait before the next start; `None` when there were too many.
    fn pause(&mut self, started: Instant) -> Option<Duration> {
        let now = Instant::now();
        if now - started > CRASH_WINDOW {
            self.backoff = None;
        }
        self.times.push_back(now);
        while self.times.front().is_some_and(|time| now - *time > CRASH_WINDOW) {
            self.times.pop_front();
        }
        if self.times.len() >= CRASHES {
            return None;
        }
        let fresh = || {
            let builder = ExponentialBuilder::default().with_min_delay(Duration::from_millis(100));
            builder.with_max_delay(Duration::from_secs(10)).with_jitter().without_max_times().build()
        };
        self.backoff.get_or_insert_with(fresh).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_keeps_crashing_is_given_up() {
        let mut crashes = Crashes::default();
        let pauses: Vec<_> = (0..CRASHES).map(|_| crashes.pause(Instant::now())).collect();
        assert!(pauses[..CRASHES - 1].iter().all(Option::is_some));
        assert_eq!(pauses[CRASHES - 1], None);
    }
}
