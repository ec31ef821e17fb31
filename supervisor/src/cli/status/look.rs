//! One look at everything, whatever of it is down.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use weir_core::queue::balance::Balance;
use weir_core::queue::{Queue, QueueError};
use weir_store::Store;

use super::probe;
use super::report::{Database, Flow, Redis, Report, Sum, Webhooks};
use crate::cli::fleet::roster::{Names, Roster};
use crate::context::Context;
use crate::output;
use crate::stack_file::StackFile;

/// How long the names of workers are used before they are looked for again.
const NAMES_AGE: Duration = Duration::from_secs(10);

/// Looks again and again without connecting anew each time.
pub(super) struct Watcher<'a> {
    context: &'a Context,
    queue: Option<Queue>,
    store: Option<Store>,
    names: Option<(Instant, Names)>,
    last: Option<(Instant, Balance)>,
}

/// What Redis tells at one moment.
struct Seen {
    redis: Redis,
    found: Found,
}

/// What lies in the queue.
#[derive(Default)]
struct Found {
    balances: Vec<Balance>,
    not_taken: BTreeMap<String, u64>,
    fleet: Option<Roster>,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(context: &'a Context) -> Result<Self> {
        // A wrong URL is a mistake; no URL only means that nothing runs yet.
        let queue = context.redis_url().ok().map(|_| context.queue()).transpose()?;
        Ok(Self { context, queue, store: None, names: None, last: None })
    }

    pub(super) async fn look(&mut self) -> Report {
        let (stack, broken) = match StackFile::read(&self.context.data) {
            Ok(stack) => (stack, None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let (gateways, database, seen) = tokio::join!(
            probe::gateways(self.context, stack.as_ref()),
            database(self.context, &mut self.store),
            seen(self.context, self.queue.as_ref(), &mut self.names),
        );
        let Seen { redis, found: Found { balances, not_taken, fleet } } = seen;
        let mut sum = Balance::default();
        balances.iter().for_each(|balance| sum += *balance);
        let balance = (!balances.is_empty()).then_some(sum);
        let flow = balance.map(|balance| self.flow(balance, fleet.as_ref()));
        let mut report = Report {
            at_ms: output::now_ms(),
            ok: false,
            problems: broken.into_iter().collect(),
            redis,
            database,
            gateways,
            webhooks: Webhooks { enabled: self.context.settings.gateway.takes_max(), not_taken },
            balance: balance.map(Sum::from),
            partitions: balances.into_iter().map(Sum::from).collect(),
            flow,
            fleet,
            stack: stack.map(StackFile::without_passwords),
        };
        judge(&mut report);
        report
    }

    fn flow(&mut self, balance: Balance, fleet: Option<&Roster>) -> Flow {
        let now = Instant::now();
        let accepted = self.last.replace((now, balance)).map(|(then, before)| {
            let seconds = (now - then).as_secs_f64().max(0.001);
            balance.accepted.saturating_sub(before.accepted) as f64 / seconds
        });
        Flow::new(balance.backlog(), fleet.map(Roster::rate).unwrap_or_default(), accepted)
    }
}

async fn database(context: &Context, store: &mut Option<Store>) -> Database {
    let url = match context.database_url() {
        Ok(url) => url.to_string(),
        Err(error) => return Database { error: Some(format!("{error:#}")), ..Database::default() },
    };
    let asked = async {
        let store = match store {
            Some(store) => store,
            None => store.insert(probe::store(context).await?),
        };
        anyhow::Ok(store.schema_is_current().await?)
    };
    match asked.await {
        Ok(schema_current) => Database { url, reachable: true, schema_current, error: None },
        Err(error) => Database { url, error: Some(format!("{error:#}")), ..Database::default() },
    }
}

async fn seen(context: &Context, queue: Option<&Queue>, names: &mut Option<(Instant, Names)>) -> Seen {
    let mut redis = match context.redis_url() {
        Ok(url) => Redis { url: url.to_string(), ..Redis::default() },
        Err(error) => Redis { error: Some(format!("{error:#}")), ..Redis::default() },
    };
    let mut found = Found::default();
    if let Some(queue) = queue {
        match ask(context, queue, names, &mut redis).await {
            Ok(there) => found = there,
            Err(error) => redis.error = Some(error.to_string()),
        }
    }
    Seen { redis, found }
}

async fn ask(
    context: &Context,
    queue: &Queue,
    names: &mut Option<(Instant, Names)>,
    redis: &mut Redis,
) -> Result<Found, QueueError> {
    let gateway = &context.settings.gateway;
    let servers = queue.servers().await?;
    redis.reachable = servers.away.is_empty();
    redis.durability = Some(gateway.durability);
    redis.weaknesses = servers.weaknesses(gateway.durability, gateway.replicas);
    if let Some(fullest) = servers.fullest() {
        redis.version = fullest.info("redis_version").to_owned();
        redis.used_memory = fullest.used_memory();
        redis.memory_limit = fullest.memory_limit();
    }
    if let Some((_, error)) = servers.away.into_iter().next() {
        return Err(error);
    }
    let known = match names.take().filter(|(found, _)| found.elapsed() < NAMES_AGE) {
        Some(known) => known,
        None => (Instant::now(), Names::find(queue).await?),
    };
    let (_, known) = names.insert(known);
    let fleet = Some(Roster::of(queue, known).await?);
    Ok(Found { balances: queue.balances().await?, not_taken: not_taken(queue).await?, fleet })
}

/// By reason, of the last day.
async fn not_taken(queue: &Queue) -> Result<BTreeMap<String, u64>, QueueError> {
    let since = output::now_ms() / 60_000 - 24 * 60;
    let mut sums = BTreeMap::new();
    for partition in 0..queue.partitions() {
        for ((reason, minute), n) in queue.tallies(partition).await? {
            if minute > since {
                *sums.entry(reason).or_default() += n;
            }
        }
    }
    Ok(sums)
}

/// Says what is wrong.
fn judge(report: &mut Report) {
    let mut problems = std::mem::take(&mut report.problems);
    if let Some(error) = &report.redis.error {
        problems.push(format!("the queue: {error}"));
    }
    problems.extend(report.redis.weaknesses.iter().map(|weakness| format!("the queue: {weakness}")));
    match (&report.database.error, report.database.schema_current) {
        (Some(error), _) => problems.push(format!("the database: {error}")),
        (None, false) => problems.push("the database: the schema is not current: run `weir migrate up`".into()),
        (None, true) => {}
    }
    if let Some(stack) = report.stack.as_ref().filter(|stack| !probe::is_running(stack)) {
        problems.push(format!("`weir up` (process {}) ended without tidying up: start it again", stack.pid));
    }
    let processes = report.stack.iter().flat_map(|stack| &stack.processes);
    for role in processes.filter(|role| role.state == "given up") {
        let (name, log) = (&role.name, role.log.display());
        problems.push(format!("{name} crashes again and again and was given up: see {log}, then `weir fleet restart`"));
    }
    if !report.gateways.iter().any(|gateway| gateway.ready) {
        problems.push("no gateway accepts messages".into());
    }
    for gateway in report.gateways.iter().filter(|gateway| !gateway.ready) {
        problems.push(format!("the gateway {}: {}", gateway.address, gateway.reasons.join("; ")));
    }
    if let Some(fleet) = &report.fleet {
        judge_fleet(fleet, &mut problems);
    }
    if let Some(balance) = report.balance.filter(|balance| balance.drift != 0) {
        problems.push(format!("the balance has a drift of {}: run `weir doctor`", balance.drift));
    }
    report.ok = problems.is_empty();
    report.problems = problems;
}

fn judge_fleet(fleet: &Roster, problems: &mut Vec<String>) {
    if fleet.beating().next().is_none() {
        problems.push("no worker runs: what is accepted stays in the queue".into());
    }
    for worker in fleet.beating().filter(|worker| worker.state.starts_with("paused")) {
        problems.push(format!("the worker {} is {}", worker.name, worker.state));
    }
    problems.extend(fleet.silent().map(|worker| format!("the worker {} sends no heartbeat", worker.name)));
    for supervisor in fleet.supervisors.iter().filter(|supervisor| supervisor.given_up > 0) {
        let (host, given_up) = (&supervisor.host, supervisor.given_up);
        problems
            .push(format!("{given_up} processes of {host} crash again and again and were given up: see their logs"));
    }
}
