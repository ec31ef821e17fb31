//! `weir up`.

use std::fs::{self, File};
use std::net::TcpListener as StdListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{FlockOperation, flock};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use weir_api::{ApiKey, Auth};
use weir_core::log::say;
use weir_core::ops::{Health, Ops};
use weir_core::secret::SecretUrl;
use weir_core::shutdown::{self, Hangup, Shutdown};
use weir_gateway::listen;
use weir_store::Store;

use crate::Ending;
use crate::cli::consent::{self, Preview};
use crate::context::{Context, store_options};
use crate::output::{escape, line, now_ms};
use crate::stack_file::{Server, StackFile};
use crate::supervise::board::Board;
use crate::supervise::fleet::{Fleet, Range};
use crate::supervise::process::Common;
use crate::supervise::servers::Servers;
use crate::supervise::{development, live, logs, scrape};

/// Start everything on this machine: servers, gateway and workers
///
/// Needs no configuration: Redis and PostgreSQL run as private child processes with their data in the data folder,
/// unless WEIR_REDIS_URL or WEIR_DATABASE_URL name servers that exist. Ctrl-C stops everything in reverse order; the
/// data stays. SIGHUP restarts gateways and workers as `weir fleet restart` does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  weir up\n  weir up --workers 1..4\n  weir up --fresh --yes --data /tmp/weir")]
pub(crate) struct Up {
    /// Workers: a number, or MIN..MAX to follow the backlog
    #[arg(long, value_name = "N|MIN..MAX", default_value = "1..2")]
    workers: Range,
    /// Gateways; they share the addresses of gateway.listen
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    gateways: u8,
    /// Who needs a key for the API: everybody (keys), or nobody on this machine (development) [default: api.auth, else
    /// development]
    #[arg(long, value_name = "WHO")]
    auth: Option<Auth>,
    /// Delete the data of the private servers first
    #[arg(long)]
    fresh: bool,
    /// Do not ask before data is deleted
    #[arg(long)]
    yes: bool,
}

/// How long the gateway may take until it is ready.
const READY: Duration = Duration::from_secs(30);

impl Up {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let context = &self.with_auth(Context { data: open_data(&context.data)?, ..context.clone() });
        let _lock = lock(&context.data)?;
        // A gateway of its own would only fail again and again.
        context.settings.gateway.tls.as_ref().map(weir_gateway::check_tls).transpose()?;
        let doomed = if self.fresh { self.doomed(&context.data)? } else { Vec::new() };
        let shutdown = shutdown::on_signals().context("signals cannot be handled")?;
        // Early, so that an address that is taken is heard of before servers are started.
        let sockets = take_sockets(context)?;
        for folder in &doomed {
            weir_stack::erase(folder).await?;
        }
        fs::create_dir_all(log_folder(context)).context("the folder for logs cannot be made")?;
        let steps = Steps::new();
        let mut servers = Servers::new();
        steps.next("starting Redis");
        let redis = servers.start_redis(context).await?;
        steps.next("starting PostgreSQL");
        let database = servers.start_postgres(context).await?;
        steps.next("bringing the schema up to date");
        let key = migrate(context, &database).await?;
        let queue = context.queue_at(&SecretUrl::new(redis.url.clone()))?;
        let board = Board::new(context.data.clone(), describe(context, &sockets, redis, database));
        let board = Arc::new(board);
        let program = std::env::current_exe().context("the path of this program is not known")?;
        let common =
            Common { context: context.clone(), board: board.clone(), queue, program, sockets: Arc::new(sockets) };
        let parts = Parts::start(&self, &common, servers, hangups(&shutdown)?).await?;
        steps.next("starting gateways and workers");
        let ready = wait_until_ready(&board, &shutdown).await;
        steps.end();
        if let Some(health) = ready {
            print_table(context, &board, &health, &key);
            // Beside us: who prints may be stuck, should nobody read.
            tokio::spawn(live::run(common.queue.clone(), shutdown.clone()));
            shutdown.cancelled().await;
        }
        say("stopping: the gateways first, then the workers once their batches are done, then the servers");
        parts.stop().await;
        StackFile::remove(&context.data);
        say("stopped; the data stays in place");
        Ok(Ending::Done)
    }

    /// The processes that are started have the API ask for keys as was said, or for none on this machine.
    fn with_auth(&self, mut context: Context) -> Context {
        let auth = self.auth.or((!context.settings.auth_is_set).then_some(Auth::Development));
        if let Some(auth) = auth {
            context.settings.api.auth = auth;
            context.global.set.push(format!("api.auth={auth}"));
        }
        context
    }

    /// Folders of the servers' data that may be deleted: asks, if there is any.
    fn doomed(&self, data: &Path) -> Result<Vec<PathBuf>> {
        let mut folders = ["redis", "postgres", "log"].map(|name| data.join(name)).to_vec();
        folders.retain(|folder| folder.exists());
        if !folders.is_empty() {
            consent::ask(&format!("Delete all messages in {}?", data.display()), self.yes, Preview::None)?;
        }
        Ok(folders)
    }
}

/// The data folder as an absolute path, made when it is not there. Only its owner can look into it.
fn open_data(path: &Path) -> Result<PathBuf> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o711);
    builder
        .create(path)
        .with_context(|| format!("the data folder {} cannot be made; give another with --data", path.display()))?;
    path.canonicalize().with_context(|| format!("the data folder {} cannot be used", path.display()))
}

/// Only one `weir up` works on a data folder. The lock goes with the process.
fn lock(data: &Path) -> Result<File> {
    let file = File::create(data.join("lock")).with_context(|| format!("{} cannot be written", data.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let pid = StackFile::read(data)?.map(|stack| format!(" (process {})", stack.pid)).unwrap_or_default();
        bail!("another `weir up`{pid} uses {}; stop it, or give another folder with --data", data.display());
    }
    Ok(file)
}

/// Brings the schema up to date and gives the key for trying the API.
async fn migrate(context: &Context, database: &Server) -> Result<ApiKey> {
    let options = store_options(&context.settings.database, &SecretUrl::new(database.url.clone()));
    let store = Store::connect(&options).await.context("PostgreSQL cannot be used")?;
    let applied = store.migrate_up().await.context("the schema could not be brought up to date")?;
    let key = development::key(&context.data, &store).await;
    store.close().await;
    if !applied.is_empty() {
        tracing::debug!(?applied, "migrated");
    }
    key.context("no key for trying the API could be made")
}

fn describe(context: &Context, sockets: &[StdListener], redis: Server, database: Server) -> StackFile {
    let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok());
    StackFile {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: now_ms(),
        gateway: addresses.map(|address| format!("{}://{address}", context.scheme())).collect(),
        // Other commands may be started elsewhere.
        certificate: context.certificate(None).map(|file| file.canonicalize().unwrap_or(file)),
        ops: context.settings.ops.map(|address| format!("http://{address}")),
        redis,
        database,
        processes: Vec::new(),
    }
}

/// What all gateways accept on: handed to us, or bound. While one goes and another comes, connections wait in them.
fn take_sockets(context: &Context) -> Result<Vec<StdListener>> {
    match listen::handed_over()? {
        Some(sockets) => Ok(sockets),
        None => Ok(listen::bind(&context.settings.gateway.listen)?),
    }
}

fn log_folder(context: &Context) -> PathBuf {
    context.data.join("log")
}

/// Each SIGHUP as a wish to restart; without its terminal everything stops.
fn hangups(shutdown: &Shutdown) -> Result<mpsc::Receiver<()>> {
    let mut hangups = shutdown::hangups().context("SIGHUP cannot be handled")?;
    let (wish, wishes) = mpsc::channel(1);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        while let Some(hangup) = shutdown.run_until_cancelled(hangups.next()).await {
            match hangup {
                Hangup::Wish => drop(wish.try_send(())),
                Hangup::NoTerminal => shutdown.cancel(),
            }
        }
    });
    Ok(wishes)
}

/// Everything that runs, in the order in which it was started.
struct Parts {
    servers: (Shutdown, tokio::task::JoinHandle<()>),
    fleet: (Shutdown, tokio::task::JoinHandle<()>),
    ops: (Shutdown, Vec<tokio::task::JoinHandle<()>>),
}

impl Parts {
    async fn start(up: &Up, common: &Common, servers: Servers, hangups: mpsc::Receiver<()>) -> Result<Self> {
        let mut ops = start_ops(&common.context, &common.board).await?;
        ops.1.push(tokio::spawn(logs::run(log_folder(&common.context), ops.0.clone())));
        let stop = Shutdown::new();
        let servers = (stop.clone(), tokio::spawn(servers.run(common.board.clone(), stop)));
        let stop = Shutdown::new();
        let fleet = Fleet::start(common, usize::from(up.gateways), up.workers);
        let fleet = (stop.clone(), tokio::spawn(fleet.run(stop, hangups)));
        Ok(Self { servers, fleet, ops })
    }

    /// Closes the entrance first, then everything in the order in which messages pass it.
    async fn stop(self) {
        self.fleet.0.cancel();
        ended(self.fleet.1.await);
        self.servers.0.cancel();
        ended(self.servers.1.await);
        self.ops.0.cancel();
        for task in self.ops.1 {
            ended(task.await);
        }
    }
}

fn ended(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "a part ended badly");
    }
}

async fn start_ops(context: &Context, board: &Arc<Board>) -> Result<(Shutdown, Vec<tokio::task::JoinHandle<()>>)> {
    let stop = Shutdown::new();
    let Some(address) = context.settings.ops else { return Ok((stop, Vec::new())) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("the ops listener cannot use {address}; set ops.listen to another address"))?;
    let (sender, health) = watch::channel(Health::waiting("starting"));
    let watching = tokio::spawn(scrape::watch_health(board.clone(), sender, stop.clone()));
    let board = board.clone();
    let metrics = Arc::new(move || Box::pin(scrape::metrics(board.clone())) as _);
    let serving = tokio::spawn(Ops { health, metrics }.serve(listener, stop.clone()));
    Ok((stop, vec![watching, serving]))
}

/// Waits for gateway and workers; `None` when shutdown comes first. After a while it goes on: the table tells.
async fn wait_until_ready(board: &Board, shutdown: &Shutdown) -> Option<Health> {
    let deadline = Instant::now() + READY;
    loop {
        let health = scrape::look(board).await;
        if health.ready || Instant::now() > deadline {
            return Some(health);
        }
        shutdown.run_until_cancelled(tokio::time::sleep(Duration::from_millis(100))).await?;
    }
}

fn print_table(context: &Context, board: &Board, health: &Health, key: &ApiKey) {
    let stack = board.read();
    let show = |name: &str, place: String, pid: Option<u32>| {
        let pid = pid.map(|pid| format!("process {pid}")).unwrap_or_default();
        line(format_args!("  {name:<12} {place:<44} {pid}"));
    };
    line("");
    for url in &stack.gateway {
        show("listening", url.clone(), None);
    }
    for role in &stack.processes {
        show(&role.name, role.log.display().to_string(), role.pid);
    }
    show("redis", SecretUrl::new(stack.redis.url).to_string(), stack.redis.pid);
    show("postgres", SecretUrl::new(stack.database.url).to_string(), stack.database.pid);
    if let Some(url) = &stack.ops {
        show("ops", format!("{url}/metrics"), None);
    }
    show("data", context.data.display().to_string(), None);
    show("key", format!("{} (admin)", key.expose()), None);
    line("");
    if !health.ready {
        line(format_args!("not ready yet: {}", escape(&health.reasons.join("; "))));
    }
    if let Some(url) = stack.gateway.first() {
        line("try:");
        let trust = stack.certificate.map(|file| format!("--cacert '{}' ", file.display())).unwrap_or_default();
        line(format_args!("  curl {trust}-X POST {url}/api/v1/webhook -H 'Content-Type: application/json' \\"));
        line(
            "    -d '{\"external_message_id\":\"1a2b3c4d5e6f7890abcdef1234567890\",\"external_client_id\":\"fedcba0987654321abcdef1234567890\",\"client_phone\":\"+79194961182\",\"message_text\":\"Привет!\",\"send_at\":1640995200}'",
        );
        line("  weir message show 1a2b3c4d5e6f7890abcdef1234567890");
        line(format_args!("  and, in a browser, {url}/swagger/"));
        line("");
    }
    if context.settings.api.auth == Auth::Development {
        line(
            "the API asks nobody on this machine for a key (--auth development); start with --auth keys where others work too",
        );
        line("");
    }
}

/// What is being done, for people who wait.
struct Steps(ProgressBar);

impl Steps {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    fn next(&self, what: &'static str) {
        tracing::debug!(what, "step");
        self.0.set_message(what);
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
