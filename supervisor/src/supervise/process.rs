//! One process of the fleet: started, watched, started again with growing pauses, replaced when somebody wants a new
//! one, given up when it keeps crashing.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use weir_core::queue::Queue;
use weir_core::shutdown::Shutdown;
use weir_stack::{Process, Signal, free_port, tail, tied_command, tied_command_with};

use crate::context::Context;
use crate::stack_file::Role;
use crate::supervise::board::Board;
use crate::supervise::scrape;

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
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Worker => "worker",
        }
    }
}

/// The wish that a process be replaced by a new one; told how it went.
pub(crate) type Replace = oneshot::Sender<Result<()>>;

/// What every process of this host is started with.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) context: Context,
    pub(crate) board: Arc<Board>,
    pub(crate) queue: Queue,
    /// Our own program. Its path is kept: a new version may have taken the file's place when a process is started.
    pub(crate) program: PathBuf,
    /// What gateways accept on.
    pub(crate) sockets: Arc<Vec<TcpListener>>,
}

/// One process that is to run.
pub(crate) struct Supervised {
    pub(crate) kind: Kind,
    /// `gateway`, `worker-1` …: its place, which keeps its name when the process is started again.
    pub(crate) place: String,
    pub(crate) common: Common,
    /// Ends it in good order.
    pub(crate) stop: Shutdown,
    pub(crate) replace: mpsc::Receiver<Replace>,
    /// Processes that were replaced and still drain.
    pub(crate) leaving: JoinSet<()>,
}

/// How long a new process may take until it is ready.
const READY: Duration = Duration::from_secs(30);

/// Pause between two looks whether a process is ready.
const LOOK: Duration = Duration::from_millis(50);

/// Lines of its log that say why a process did not start.
const QUOTED_LINES: usize = 5;

/// A process that was started.
struct Running {
    process: Process,
    name: String,
    /// URL of its ops listener.
    ops: String,
    since: Instant,
}

/// How a run of the process ended.
enum Run {
    Stopped,
    Ended(ExitStatus),
}

impl Supervised {
    /// Keeps the process running until `stop`. Gives whether it was given up.
    pub(crate) async fn run(mut self) -> bool {
        let given_up = self.keep_running().await;
        while self.leaving.join_next().await.is_some() {}
        if !given_up {
            self.common.board.remove(&self.place);
        }
        given_up
    }

    async fn keep_running(&mut self) -> bool {
        let mut restarts = 0;
        let mut crashes = Crashes::default();
        let mut wish = None;
        loop {
            let mut since = Instant::now();
            match self.once(restarts, wish.take(), &mut since).await {
                Ok(Run::Stopped) => return false,
                Ok(Run::Ended(status)) if status.success() => {
                    tracing::info!(place = self.place, "ended in good order; starting another");
                }
                Ok(Run::Ended(status)) => tracing::error!(place = self.place, %status, "ended; see its log"),
                Err(error) => tracing::error!(place = self.place, error = format!("{error:#}"), "could not be started"),
            }
            restarts += 1;
            let Some(pause) = crashes.pause(since) else {
                tracing::error!(
                    place = self.place,
                    "given up after {CRASHES} crashes within a minute; mend it and use `weir fleet restart`"
                );
                self.note(&self.place, None, "given up", None, restarts);
                return true;
            };
            self.note(&self.place, None, "restarting", None, restarts);
            tokio::select! {
                () = tokio::time::sleep(pause) => (),
                () = self.stop.cancelled() => return false,
                // It is not there, so whoever wants a new one waits for the one that comes.
                Some(asked) = self.replace.recv() => wish = Some(asked),
            }
        }
    }

    /// Runs it once, `wish` being told when it is ready. A process that takes its place is the same run; `since` is
    /// when the last one was started.
    async fn once(&mut self, restarts: u32, wish: Option<Replace>, since: &mut Instant) -> Result<Run> {
        let mut running = self.start()?;
        self.note(&self.place, Some(running.process.pid()), "running", Some(running.ops.clone()), restarts);
        if let Some(wish) = wish {
            let ready = self.until_ready(&running).await;
            drop(wish.send(ready));
        }
        let run = loop {
            *since = running.since;
            tokio::select! {
                status = running.process.wait() => break Run::Ended(status),
                () = self.stop.cancelled() => {
                    self.note(&self.place, Some(running.process.pid()), "stopping", Some(running.ops.clone()), restarts);
                    self.end(&running).await;
                    return Ok(Run::Stopped);
                }
                Some(wish) = self.replace.recv() => match self.successor().await {
                    Ok(next) => {
                        self.note(&self.place, Some(next.process.pid()), "running", Some(next.ops.clone()), restarts);
                        let old = std::mem::replace(&mut running, next);
                        self.leave(old, wish);
                    }
                    Err(error) => drop(wish.send(Err(error))),
                },
            }
        };
        if !matches!(run, Run::Ended(status) if status.success()) {
            declare_dead(self.kind, &self.common.queue, &running.name).await;
        }
        Ok(run)
    }

    /// Starts a process beside the one that runs and waits until it is ready; one that is not is ended again.
    async fn successor(&self) -> Result<Running> {
        let next = self.start()?;
        let name = format!("{} next", self.place);
        self.note(&name, Some(next.process.pid()), "starting", None, 0);
        let ready = self.until_ready(&next).await;
        self.common.board.remove(&name);
        match ready {
            Ok(()) => Ok(next),
            Err(error) => {
                self.end(&next).await;
                Err(error)
            }
        }
    }

    /// Lets the process that was replaced drain; `wish` is told once it is gone.
    fn leave(&mut self, old: Running, wish: Replace) {
        let name = format!("{} old", self.place);
        self.note(&name, Some(old.process.pid()), "stopping", None, 0);
        let (kind, place, common) = (self.kind, self.place.clone(), self.common.clone());
        self.leaving.spawn(async move {
            end(kind, &place, &common.queue, &old).await;
            common.board.remove(&name);
            drop(wish.send(Ok(())));
        });
    }

    async fn end(&self, running: &Running) {
        end(self.kind, &self.place, &self.common.queue, running).await;
    }

    fn start(&self) -> Result<Running> {
        let name = match self.kind {
            Kind::Gateway => self.place.clone(),
            Kind::Worker => format!("{}-{}-{:04x}", host(), self.place, rand::random::<u16>()),
        };
        let ops = format!("127.0.0.1:{}", free_port()?);
        let process = Process::spawn(self.command(&name, &ops)?)?;
        tracing::info!(place = self.place, pid = process.pid(), "started");
        Ok(Running { process, name, ops: format!("http://{ops}"), since: Instant::now() })
    }

    /// Waits until the process says that it is ready.
    async fn until_ready(&self, running: &Running) -> Result<()> {
        let asked = async {
            loop {
                match scrape::get(&running.ops, "/ready").await {
                    Ok((200, _)) => return,
                    Ok(_) | Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        };
        tokio::select! {
            () = asked => Ok(()),
            status = running.process.wait() => {
                let log = tail(&self.log_path(), QUOTED_LINES);
                bail!("the new process of {} ended ({status}) before it was ready:\n{log}", self.place)
            }
            () = tokio::time::sleep(READY) => {
                let reasons = scrape::get(&running.ops, "/ready").await.map(|(_, text)| text).unwrap_or_default();
                Err(anyhow!("the new process of {} is not ready after {READY:?}: {reasons}", self.place))
            }
            () = self.stop.cancelled() => bail!("{} is being stopped", self.place),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.common.context.data.join("log").join(format!("{}.log", self.place))
    }

    fn note(&self, name: &str, pid: Option<u32>, state: &str, ops: Option<String>, restarts: u32) {
        self.common.board.put(Role {
            name: name.to_owned(),
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
        let Common { context, board, program, sockets, .. } = &self.common;
        let mut command = match self.kind {
            Kind::Gateway => tied_command_with(sockets, program, "TERM")?,
            Kind::Worker => tied_command(program, "TERM")?,
        };
        command.arg(self.kind.name()).arg("--data").arg(&context.global.data);
        if self.kind == Kind::Gateway {
            command.arg("--with-api");
        }
        if let Some(file) = &context.global.config {
            command.arg("--config").arg(file);
        }
        for pair in &context.global.set {
            command.arg("--set").arg(pair);
        }
        command.arg("--set").arg(format!("ops.listen={ops}")).arg("--set").arg("ops.enabled=true");
        command.arg("--set").arg(format!("{}.name={name}", self.kind.name()));
        let stack = board.read();
        command.env("WEIR_REDIS_URL", stack.redis.url).env("WEIR_DATABASE_URL", stack.database.url);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.log());
        Ok(command)
    }

    /// The log, added to. A role does its work without one, should the disk be full.
    fn log(&self) -> Stdio {
        let path = self.log_path();
        match OpenOptions::new().create(true).append(true).open(&path) {
            Ok(file) => file.into(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the log cannot be written; going on without");
                Stdio::null()
            }
        }
    }
}

/// Ends a process in good order.
async fn end(kind: Kind, place: &str, queue: &Queue, running: &Running) {
    let status = running.process.stop(Signal::TERM, GRACE).await;
    tracing::info!(place, pid = running.process.pid(), %status, "stopped");
    if !status.success() {
        declare_dead(kind, queue, &running.name).await;
    }
}

/// Lets the other workers take over at once instead of when the lease has run out.
async fn declare_dead(kind: Kind, queue: &Queue, name: &str) {
    if kind != Kind::Worker {
        return;
    }
    // At once: a partition that cannot be reached must not cost the others.
    let all = (0..queue.partitions()).map(|partition| queue.declare_dead(partition, name));
    for error in join_all(all).await.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a dead worker could not be declared dead; its lease runs out by itself");
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
    fn pause(&mut self, since: Instant) -> Option<Duration> {
        let now = Instant::now();
        if now - since > CRASH_WINDOW {
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
