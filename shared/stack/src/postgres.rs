//! A private PostgreSQL.

mod account;
mod cluster;
mod home;
mod installation;
mod settings;
mod status;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::folder::{Folder, wait_for_previous};
use crate::log::RunLog;
use crate::{Process, Result, StackError, free_port};
pub(crate) use account::Account;
use cluster::Cluster;
pub(crate) use home::{elsewhere_of, is_reachable};
use status::Status;

const SERVER: &str = "postgres";
/// The superuser, and the name of the database that is there from the start.
const NAME: &str = "weir";
/// How long a server may stay silent. One that says it starts (recovers) may take as long as it needs.
const SILENCE: Duration = Duration::from_secs(10);
/// A fast stop writes out all that is in memory.
const GRACE: Duration = Duration::from_secs(60);
/// An immediate stop writes nothing.
const SHORT_GRACE: Duration = Duration::from_secs(5);
/// How long processes of a killed server may hold its shared memory.
const ORPHANS: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
const PORT_TRIES: usize = 8;

/// What to start.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where data, password and log live; created if need be. Only one server may use it at a time.
    pub dir: PathBuf,
    /// The port on 127.0.0.1; by default one that is free.
    pub port: Option<u16>,
    /// More settings as (name, value); they win over those that are derived from the machine's memory and disk.
    pub settings: Vec<(String, String)>,
}

impl PostgresOptions {
    /// The defaults, with the data in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> PostgresOptions {
        PostgresOptions { dir: dir.into(), port: None, settings: Vec::new() }
    }
}

/// A running (or stopped, or killed) PostgreSQL with the superuser `weir` and an empty database `weir`.
///
/// Dropping it stops it at once, without writing out what is in memory: nothing that was committed is lost, but the next
/// start recovers. [`stop`](Self::stop) is the kind way. It ends with this process in any case.
///
/// PostgreSQL refuses to run as root. For root it runs as `postgres`, or `nobody` where there is no such account; if
/// that account cannot reach the folder, the data lives in `/var/lib/weir/` and the file `location` in the folder says
/// where.
pub struct PostgresServer {
    folder: Folder,
    cluster: Cluster,
    port: u16,
    process: Process,
}

impl PostgresServer {
    /// Creates the data on the first start, starts the server and waits until it accepts connections. While it recovers
    /// from a crash there is no deadline.
    pub async fn start(options: PostgresOptions) -> Result<PostgresServer> {
        let folder = Folder::claim(&options.dir, SERVER).await?;
        let cluster = Cluster::open(folder.path(), options.settings).await?;
        let (port, process) = match options.port {
            Some(port) => (port, launch(&cluster, port).await?),
            None => launch_on_free_port(&cluster).await?,
        };
        Ok(PostgresServer { folder, cluster, port, process })
    }

    /// `postgres://weir:password@127.0.0.1:port/database`. It holds the password: do not log it.
    pub fn url(&self, database: &str) -> String {
        let password = self.cluster.password();
        format!("postgres://{NAME}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the last start.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The folder it was given, as an absolute path.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The folder where data (`data`), password and log (`postgres.log`) really are.
    pub fn real_dir(&self) -> &Path {
        self.cluster.home()
    }

    /// The process of the last start, to be waited for or signalled.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it: ends all connections and writes everything out (SIGINT), for a minute at most; then without writing
    /// (SIGQUIT); then by force.
    pub async fn stop(&self) -> ExitStatus {
        self.process.signal(Signal::INT);
        match tokio::time::timeout(GRACE, self.process.wait()).await {
            Ok(status) => status,
            Err(_) => self.process.stop(Signal::QUIT, SHORT_GRACE).await,
        }
    }

    /// Kills the main process (SIGKILL) and waits until it is gone; the others notice it and end by themselves.
    pub async fn kill(&self) -> ExitStatus {
        self.process.kill().await
    }

    /// Starts it again with the same port, folder and password, after stopping it if it still runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await;
        self.process = launch(&self.cluster, self.port).await?;
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.process.exited().is_none() {
            // SIGKILL would leave the server's other processes behind for a moment.
            self.process.signal(Signal::QUIT);
            self.process.signal(Signal::CONT);
            self.process.wait_blocking(SHORT_GRACE);
        }
    }
}

impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer")
            .field("dir", &self.dir())
            .field("port", &self.port)
            .field("process", &self.process)
            .finish()
    }
}

async fn launch_on_free_port(cluster: &Cluster) -> Result<(u16, Process)> {
    for _ in 1..PORT_TRIES {
        let port = free_port()?;
        match launch(cluster, port).await {
            Err(error) if error.is_port_taken() => tracing::debug!(port, "port taken"),
            done => return Ok((port, done?)),
        }
    }
    let port = free_port()?;
    Ok((port, launch(cluster, port).await?))
}

/// Starts it, again and again while the processes of a killed predecessor end.
async fn launch(cluster: &Cluster, port: u16) -> Result<Process> {
    wait_for_previous(SERVER, &cluster.pid_file(), cluster.data()).await?;
    cluster.configure(port).await?;
    let patience = Instant::now() + ORPHANS;
    loop {
        match launch_once(cluster, port).await {
            Err(error) if is_held_by_orphans(&error) && Instant::now() < patience => {
                sleep(POLL).await;
            }
            done => return done,
        }
    }
}

fn is_held_by_orphans(error: &StackError) -> bool {
    matches!(error, StackError::Ended { tail, .. } if tail.contains("pre-existing shared memory block"))
}

async fn launch_once(cluster: &Cluster, port: u16) -> Result<Process> {
    let log = RunLog::open(&cluster.home().join("postgres.log"))?;
    let process = Process::spawn(cluster.server_command(&log)?)?;
    wait_until_ready(&process, cluster, port, &log).await?;
    tracing::info!(port, pid = process.pid(), "PostgreSQL is ready");
    Ok(process)
}

async fn wait_until_ready(process: &Process, cluster: &Cluster, port: u16, log: &RunLog) -> Result<()> {
    let mut deadline = Instant::now() + SILENCE;
    loop {
        let status = status::read(&cluster.pid_file(), process.pid());
        if let Some(status) = process.exited() {
            return Err(StackError::Ended { server: SERVER, status, log: log.path().to_owned(), tail: log.quote() });
        }
        match status {
            Status::Ready => return Ok(()),
            Status::Busy => deadline = Instant::now() + SILENCE,
            Status::Unknown if Instant::now() > deadline => {
                return Err(StackError::Silent {
                    server: SERVER,
                    port,
                    waited: SILENCE,
                    reason: "it has not written its status to postmaster.pid".into(),
                    log: log.path().to_owned(),
                });
            }
            Status::Unknown => {}
        }
        sleep(POLL).await;
    }
}
