//! A child process that does not outlive its owner.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use std::{fmt, io};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use crate::{Result, StackError};

/// A killed process is gone within milliseconds; a drop waits this long for the rare one that is not.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// A child process in a process group of its own: Ctrl-C in a terminal does not reach it, its owner stops it.
///
/// Dropping it kills it (SIGKILL) and waits until it is gone. If we end without dropping it, it stays unless its command
/// says otherwise: see [`tied_command`](crate::tied_command). It works with any runtime, or several.
pub struct Process {
    pid: u32,
    /// Names the process for good, where its pid may be given to another one.
    handle: OwnedFd,
    status: watch::Receiver<Option<ExitStatus>>,
    /// Hangs up when the process has ended.
    end: Mutex<mpsc::Receiver<Infallible>>,
}

impl Process {
    /// Starts `command`.
    ///
    /// Every process is forked by one thread that never ends. Linux sends a "parent died" signal when the *thread* that
    /// forked ends, so that a child started by a worker thread of a runtime would be killed with that runtime.
    pub fn spawn(command: Command) -> Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        spawn_on_spawner(command).and_then(Process::watch).map_err(|source| StackError::Spawn { program, source })
    }

    fn watch(mut child: Child) -> io::Result<Process> {
        let pid = child.id();
        // Nobody has waited for the child yet, so the pid is still its own.
        let handle = open_handle(pid).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        let (publish, status) = watch::channel(None);
        let (hang_up, end) = mpsc::channel();
        thread::Builder::new().name(format!("wait-{pid}")).spawn(move || {
            publish.send_replace(Some(wait_for(child)));
            drop(hang_up);
        })?;
        Ok(Process { pid, handle, status, end: Mutex::new(end) })
    }

    /// The process id; after the end of the process it may belong to another one.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the process; does nothing once it has ended, and never reaches another process.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.handle, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid, ?signal, %error, "signal not sent");
        }
    }

    /// How the process ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// Waits for the end of the process.
    pub async fn wait(&self) -> ExitStatus {
        let mut status = self.status.clone();
        match status.wait_for(Option::is_some).await {
            Ok(known) => known.unwrap_or_else(unknown_status),
            Err(_) => unknown_status(),
        }
    }

    /// Asks the process to end by `signal`, gives it `grace`, then kills it.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> ExitStatus {
        self.signal(signal);
        // A stopped process acts on no other signal.
        self.signal(Signal::CONT);
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        tracing::warn!(pid = self.pid, ?grace, "process did not stop in time and is killed");
        self.kill().await
    }

    /// Kills the process (SIGKILL) and waits until it is gone.
    pub async fn kill(&self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// Blocks the thread until the process has ended or `limit` has passed; says whether it has ended.
    pub(crate) fn wait_blocking(&self, limit: Duration) -> bool {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(end.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_none() {
            self.signal(Signal::KILL);
            self.wait_blocking(DROP_PATIENCE);
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid).field("exited", &self.exited()).finish()
    }
}

/// Stands for a status that the kernel did not keep, as when SIGCHLD is ignored: exit code 255.
fn unknown_status() -> ExitStatus {
    ExitStatus::from_raw(255 << 8)
}

fn open_handle(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn wait_for(mut child: Child) -> ExitStatus {
    child.wait().unwrap_or_else(|error| {
        tracing::warn!(pid = child.id(), %error, "exit status lost");
        unknown_status()
    })
}

struct Job {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

fn spawn_on_spawner(mut command: Command) -> io::Result<Child> {
    command.process_group(0);
    let (reply, answer) = mpsc::channel();
    let lost = || io::Error::other("the spawner thread is gone");
    spawner().send(Job { command, reply }).map_err(|_| lost())?;
    answer.recv().map_err(|_| lost())?
}

fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || {
            for mut job in queue {
                let _ = job.reply.send(job.command.spawn());
            }
        };
        // Without threads `send` fails, and the caller hears that the spawner is gone.
        if let Err(error) = thread::Builder::new().name("spawner".into()).spawn(run) {
            tracing::error!(%error, "spawner thread not started");
        }
        jobs
    })
}
