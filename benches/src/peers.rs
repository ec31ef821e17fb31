//! Systems made of well-known parts that do Weir's job, to be measured beside it: `benches/peers/`, which says how they
//! are set up and what they keep of Weir's promises.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use weir_stack::testing::{redis_with, scratch, unique_name};
use weir_stack::{PostgresOptions, PostgresServer, Process, Signal, free_port, tail, tied_command};
use weir_store::testing;

use crate::load;
use crate::report::Report;

/// Processes of each kind: one for each core that the stand has.
const PROCESSES: usize = 2;

/// How long a peer may take to answer its first request, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections of the closed loop that fills a queue.
const CONNECTIONS: usize = 64;

/// One system that does Weir's job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// As reports name it.
    pub(crate) name: &'static str,
    /// Below `benches/peers/`.
    pub(crate) folder: &'static str,
    /// Those of Weir's promises that it does not keep; the reasons are in `benches/peers/README.md`.
    #[allow(dead_code, reason = "a report shows them beside the figures")]
    pub(crate) unkept: &'static [&'static str],
}

/// What none of them keeps.
const REPEAT: &str = "a repeat is told that it is one";
const CONTENT: &str = "other content under the same id is refused";
const OUTAGE: &str = "an outage of PostgreSQL is nobody's fault";
const POISON: &str = "a message that kills its worker harms only itself";
const ACCOUNT: &str = "accepted = stored + duplicate + dead + in flight";

/// What some do.
const REPLAY: &str = "what cannot be stored is kept and can be replayed";
const MEMORY: &str = "memory is given back after a drain";
const RESTART: &str = "all go on by themselves after a kill of Redis";

/// All of them, the slowest last.
pub(crate) const ALL: [Peer; 3] = [
    Peer {
        name: "axum + apalis",
        folder: "axum-apalis",
        unkept: &[REPEAT, CONTENT, OUTAGE, REPLAY, POISON, MEMORY, ACCOUNT],
    },
    Peer { name: "Fastify + BullMQ", folder: "fastify-bullmq", unkept: &[REPEAT, CONTENT, OUTAGE, POISON, ACCOUNT] },
    Peer {
        name: "FastAPI + arq",
        folder: "fastapi-arq",
        unkept: &[REPEAT, CONTENT, RESTART, OUTAGE, REPLAY, POISON, ACCOUNT],
    },
];

impl Peer {
    fn home(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(self.folder)
    }

    /// Everything that its processes print, of all runs.
    fn log(&self) -> Result<(PathBuf, File)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/peers");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.log", self.folder));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok((path.clone(), file.with_context(|| format!("{} cannot be written", path.display()))?))
    }

    /// Installs what it is made of below `target/`, unless that is there; takes minutes at the first time.
    pub(crate) async fn install(&self) -> Result<()> {
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}")?);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_message(format!("installing {}", self.name));
        let (path, process) = self.run("install", &[])?;
        let status = process.wait().await;
        bar.finish_and_clear();
        ensure!(status.success(), "{} was not installed ({status}):\n{}", self.name, quote(&path));
        Ok(())
    }

    /// Starts its gateway and waits until it answers.
    pub(crate) async fn serve(&self, redis: &str, database: &str) -> Result<Running> {
        let port = free_port()?;
        let env = [("PORT", port.to_string()), ("REDIS_URL", redis.into()), ("DATABASE_URL", database.into())];
        let (log, process) = self.run("serve", &env)?;
        let running = Running { peer: *self, process, address: ([127, 0, 0, 1], port).into(), log };
        running.answers().await?;
        Ok(running)
    }

    /// Starts its workers; does not wait until they have connected.
    pub(crate) fn work(&self, redis: &str, database: &str) -> Result<Running> {
        let env = [("REDIS_URL", redis.to_owned()), ("DATABASE_URL", database.to_owned())];
        let (log, process) = self.run("work", &env)?;
        Ok(Running { peer: *self, process, address: ([127, 0, 0, 1], 0).into(), log })
    }

    fn run(&self, script: &str, env: &[(&str, String)]) -> Result<(PathBuf, Process)> {
        let (path, log) = self.log()?;
        let mut command = tied_command(&self.home().join(script), "KILL")?;
        command.envs(env.iter().map(|(name, value)| (name, value))).env("PROCESSES", PROCESSES.to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok((path, Process::spawn(command)?))
    }
}

fn quote(log: &Path) -> String {
    format!("{}\n({})", tail(log, 20), log.display())
}

/// Processes of a peer: the one that was started and all that it started.
pub(crate) struct Running {
    peer: Peer,
    process: Process,
    address: SocketAddr,
    log: PathBuf,
}

impl Running {
    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All its processes that live.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        Ok(self.stats()?.into_iter().map(|stat| stat.pid).collect())
    }

    /// Processor time of all its processes so far, those that have ended included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(self.stats()?.iter().map(|stat| stat.cpu).sum())
    }

    fn stats(&self) -> Result<Vec<Stat>> {
        let group = self.process.pid();
        let mut stats = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
            // One that has just ended has no file any more.
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            stats.extend(Stat::parse(pid, &text).filter(|stat| stat.group == group && stat.lives));
        }
        Ok(stats)
    }

    async fn answers(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.lives()?;
            if matches!(timeout(Duration::from_secs(5), probe(self.address)).await, Ok(Ok(()))) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} does not answer:\n{}", self.peer.name, quote(&self.log));
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails if it has ended, with the last lines of its log.
    pub(crate) fn lives(&self) -> Result<()> {
        match self.process.exited() {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status}):\n{}", self.peer.name, quote(&self.log)),
        }
    }

    /// Ends all its processes and makes sure that none is left.
    pub(crate) async fn stop(self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.process.stop(Signal::TERM, PATIENCE).await;
        loop {
            let left = self.pids()?;
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} left processes behind: {left:?}", self.peer.name);
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What /proc says of a process. All that a peer starts stays in the group of its first process.
struct Stat {
    pid: u32,
    group: u32,
    lives: bool,
    /// Its own, and that of its children that have ended.
    cpu: Duration,
}

impl Stat {
    fn parse(pid: u32, text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(Self {
            pid,
            group: fields[2].parse().ok()?,
            lives: fields[0] != "Z",
            cpu: Duration::from_millis(ticks * 10),
        })
    }
}

/// Whether something answers, be it that this is no message.
async fn probe(address: SocketAddr) -> Result<()> {
    send(&mut TcpStream::connect(address).await?, "{}").await?;
    Ok(())
}

/// One request; gives the status.
async fn send(stream: &mut TcpStream, body: &str) -> Result<u16> {
    let length = body.len();
    let head = "POST /api/v1/webhook HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json";
    stream.write_all(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes()).await?;
    let mut buffer = vec![0; 4096];
    let length = load::read_whole(stream, &mut buffer).await?;
    let status = buffer[..length].get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.context("the answer has no status")
}

/// Sends so many messages with ids of their own in a closed loop; every one has to be accepted.
pub(crate) async fn fill(address: SocketAddr, messages: usize) -> Result<()> {
    let run: u32 = rand::random();
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..CONNECTIONS {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            for number in (connection..messages).step_by(CONNECTIONS) {
                let status = send(&mut stream, &message(run, number)).await?;
                ensure!(status == 202, "message {number} was answered with {status}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn message(run: u32, number: usize) -> String {
    let client = number % 50_000;
    format!(
        "{{\"external_message_id\":\"{run:08x}{number:024x}\",\"external_client_id\":\"fedcba0987654321abcdef12{client:08x}\",\
         \"client_phone\":\"+7919{client:07}\",\"message_text\":\"Здравствуйте! Где мой заказ?\",\"send_at\":1760000000}}",
    )
}

/// Whether the database holds so many messages, each with its key and once.
pub(crate) async fn check(database: &str, expected: usize) -> Result<()> {
    let number = async |sql| testing::number(database, sql).await;
    let messages = number("SELECT count(*) FROM messages").await?;
    let ids = number("SELECT count(DISTINCT external_message_id) FROM messages").await?;
    let keys = number("SELECT count(*) FROM event_keys").await?;
    let whole = number(
        "SELECT count(*) FROM event_keys k JOIN messages m ON m.id = k.message_id AND m.send_at = k.send_at \
         JOIN dialogs d ON d.id = m.dialog_id JOIN clients c ON c.id = d.client_id",
    )
    .await?;
    let all = [messages, ids, keys, whole];
    ensure!(
        all.iter().all(|&found| usize::try_from(found) == Ok(expected)),
        "{expected} messages were accepted; found {messages} rows, {ids} ids, {keys} keys, {whole} of them whole"
    );
    Ok(())
}

/// Waits until so many messages are rows; gives the rate between the first and the last.
pub(crate) async fn drained(workers: &Running, database: &str, messages: usize) -> Result<f64> {
    let bar = ProgressBar::new(messages as u64);
    let (mut first, mut last, mut moved) = (None, 0, Instant::now());
    while last < messages {
        workers.lives()?;
        let rows = usize::try_from(testing::number(database, "SELECT count(*) FROM messages").await?)?;
        if rows > last {
            (last, moved) = (rows, Instant::now());
            first.get_or_insert((moved, rows));
        }
        bar.set_position(last as u64);
        ensure!(moved.elapsed() < PATIENCE, "only {last} of {messages} were stored:\n{}", quote(&workers.log));
        sleep(Duration::from_millis(20)).await;
    }
    bar.finish_and_clear();
    let (since, rows) = first.unwrap_or((moved, 0));
    Ok((last - rows) as f64 / (moved - since).as_secs_f64())
}

/// Tries each peer, or the one of that folder: accepted a second, then a backlog that its workers drain.
pub(crate) async fn measure(report: &mut Report, only: Option<&str>, seconds: u64, messages: usize) -> Result<()> {
    let chosen: Vec<_> = ALL.iter().filter(|peer| only.is_none_or(|only| only == peer.folder)).collect();
    ensure!(!chosen.is_empty(), "no such peer; there are {}", ALL.map(|peer| peer.folder).join(", "));
    let folder = scratch();
    let postgres = PostgresServer::start(PostgresOptions::new(folder.path().join("postgres"))).await?;
    for peer in chosen {
        peer.install().await?;
        accept(report, peer, seconds).await?;
        let database = testing::migrated_database(|name| postgres.url(name), &unique_name()).await?;
        drain(report, peer, &database, messages).await?;
    }
    postgres.stop().await;
    Ok(())
}

async fn accept(report: &mut Report, peer: &Peer, seconds: u64) -> Result<()> {
    let redis = redis_with(&[]).await;
    let gateway = peer.serve(&redis.url(), "").await?;
    let before = gateway.cpu()?;
    let found = load::run(gateway.address(), CONNECTIONS, Duration::from_secs(seconds)).await?;
    // Warm-up is in the processor time: scale by the whole run.
    let requests = found.rate() * (seconds as f64 + 1.0);
    report.add(format!("{}: accepted, {CONNECTIONS} connections", peer.name), found.rate(), "/s", "");
    let cpu = (gateway.cpu()? - before).as_secs_f64() * 1e6 / requests;
    report.add(format!("{}: gateway CPU per request", peer.name), cpu, "us", "");
    gateway.stop().await
}

async fn drain(report: &mut Report, peer: &Peer, database: &str, messages: usize) -> Result<()> {
    let redis = redis_with(&[]).await;
    let gateway = peer.serve(&redis.url(), database).await?;
    fill(gateway.address(), messages).await?;
    gateway.stop().await?;
    let workers = peer.work(&redis.url(), database)?;
    let rate = drained(&workers, database, messages).await?;
    report.add(format!("{}: stored, backlog of {messages}", peer.name), rate, "/s", "");
    let cpu = workers.cpu()?.as_secs_f64() * 1e6 / messages as f64;
    report.add(format!("{}: worker CPU per message", peer.name), cpu, "us", "");
    workers.stop().await?;
    check(database, messages).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_counts_children_that_have_ended() {
        let stat = Stat::parse(7, "7 (a b) c) S 1 5 5 0 -1 0 0 0 0 0 100 20 3 4 20 0 1").unwrap();
        assert_eq!((stat.pid, stat.group, stat.lives, stat.cpu), (7, 5, true, Duration::from_millis(1270)));
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_does_not_live() {
        assert!(!Stat::parse(7, "7 (a) Z 1 5 5 0 -1 0 0 0 0 0 1 1 0 0 20 0 1").unwrap().lives);
    }

    #[test]
    fn every_unkept_promise_is_in_the_readme() {
        let readme = include_str!("../peers/README.md");
        let unkept = ALL.iter().flat_map(|peer| peer.unkept);
        assert_eq!(unkept.filter(|promise| !readme.contains(**promise)).count(), 0);
    }
}
