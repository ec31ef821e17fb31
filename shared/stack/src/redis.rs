//! A private redis-server.

mod config;
pub(crate) mod probe;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::folder::{Folder, wait_for_previous};
use crate::log::RunLog;
use crate::{Process, Result, StackError, free_port, private, program, tied};
use config::Config;
use probe::Answer;

const SERVER: &str = "redis-server";
/// How long a server may stay silent. One that says LOADING may take as long as it needs.
const SILENCE: Duration = Duration::from_secs(10);
/// SIGTERM writes out what is buffered and gives replicas up to ten seconds.
const GRACE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// How many free ports are tried if others keep taking them first.
const PORT_TRIES: usize = 8;

/// What to start. The configuration begins with `deploy/redis.conf`.
#[derive(Clone)]
pub struct RedisOptions {
    /// Where data, configuration, password and log live; created if need be. Only one server may use it at a time.
    pub dir: PathBuf,
    /// The port on 127.0.0.1; by default one that is free.
    pub port: Option<u16>,
    /// The password; by default a random one, kept in `redis.password` in the folder for the next start.
    pub password: Option<String>,
    /// The limit of its memory in bytes; none by default.
    pub maxmemory: Option<u64>,
    /// More lines of configuration as (name, arguments); they win over `deploy/redis.conf`.
    pub settings: Vec<(String, String)>,
    /// Variables of its environment, which is empty otherwise.
    pub env: Vec<(String, String)>,
}

impl RedisOptions {
    /// The defaults, with the data in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> RedisOptions {
        RedisOptions {
            dir: dir.into(),
            port: None,
            password: None,
            maxmemory: None,
            settings: Vec::new(),
            env: Vec::new(),
        }
    }
}

/// A running (or stopped, or killed) redis-server.
///
/// Dropping it kills it, which loses nothing that was acknowledged under the default settings. It ends with this
/// process in any case.
pub struct RedisServer {
    folder: Folder,
    config: Config,
    process: Process,
}

impl RedisServer {
    /// Starts the server and waits until it answers PING; while it says LOADING there is no deadline.
    pub async fn start(options: RedisOptions) -> Result<RedisServer> {
        let folder = Folder::claim(&options.dir, "redis").await?;
        let password = match options.password {
            Some(password) => password,
            None => private::password(&folder.path().join("redis.password"))?,
        };
        let mut config = Config {
            dir: folder.path().to_owned(),
            port: 0,
            password,
            maxmemory: options.maxmemory,
            settings: options.settings,
            env: options.env,
        };
        let process = match options.port {
            Some(port) => {
                config.port = port;
                launch(&config).await?
            }
            None => launch_on_free_port(&mut config).await?,
        };
        Ok(RedisServer { folder, config, process })
    }

    /// `redis://:password@127.0.0.1:port/0`. It holds the password: do not log it.
    pub fn url(&self) -> String {
        let password = private::percent_encode(&self.config.password);
        format!("redis://:{password}@127.0.0.1:{}/0", self.config.port)
    }

    /// The password; letters and digits only unless it was given. Do not log it.
    pub fn password(&self) -> &str {
        &self.config.password
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.config.port
    }

    /// The process id of the last start.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The folder of data, configuration and log (`redis.log`), as an absolute path.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Whether the process of the last start is there, frozen or not.
    pub fn runs(&self) -> bool {
        self.process.exited().is_none()
    }

    /// The process of the last start, to be waited for or signalled.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it in an orderly way (SIGTERM); kills it if that takes longer than 30 seconds.
    pub async fn stop(&self) -> ExitStatus {
        self.process.stop(Signal::TERM, GRACE).await
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(&self) -> ExitStatus {
        self.process.kill().await
    }

    /// Starts it again with the same port, folder and password, after stopping it if it still runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await;
        self.process = launch(&self.config).await?;
        Ok(())
    }

    /// Freezes it (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServer")
            .field("dir", &self.dir())
            .field("port", &self.port())
            .field("process", &self.process)
            .finish()
    }
}

async fn launch_on_free_port(config: &mut Config) -> Result<Process> {
    for _ in 1..PORT_TRIES {
        config.port = free_port()?;
        match launch(config).await {
            Err(error) if error.is_port_taken() => tracing::debug!(port = config.port, "port taken"),
            done => return done,
        }
    }
    config.port = free_port()?;
    launch(config).await
}

async fn launch(config: &Config) -> Result<Process> {
    wait_for_previous(SERVER, &config.pid_file(), &config.dir).await?;
    let file = config.write()?;
    let log = RunLog::open(&config.dir.join("redis.log"))?;
    let program = program::find(SERVER, "apt-get install redis-server")?;
    let mut command = tied::server_command(&program, "TERM", None)?;
    command.envs(config.env.iter().cloned());
    command.arg(file).current_dir(&config.dir).stdout(log.stdio()?).stderr(log.stdio()?);
    let process = Process::spawn(command)?;
    wait_until_ready(&process, config, &log).await?;
    tracing::info!(port = config.port, pid = process.pid(), "redis-server is ready");
    Ok(process)
}

async fn wait_until_ready(process: &Process, config: &Config, log: &RunLog) -> Result<()> {
    let mut deadline = Instant::now() + SILENCE;
    loop {
        let answer = probe::ping(config.port, &config.password).await;
        if let Some(status) = process.exited() {
            return Err(StackError::Ended { server: SERVER, status, log: log.path().to_owned(), tail: log.quote() });
        }
        match answer {
            Answer::Ready => return Ok(()),
            Answer::Loading => deadline = Instant::now() + SILENCE,
            Answer::Nothing(reason) if Instant::now() > deadline => {
                return Err(StackError::Silent {
                    server: SERVER,
                    port: config.port,
                    waited: SILENCE,
                    reason,
                    log: log.path().to_owned(),
                });
            }
            Answer::Nothing(_) => {}
        }
        sleep(POLL).await;
    }
}
