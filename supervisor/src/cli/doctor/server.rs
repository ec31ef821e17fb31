//! Checks of the Redis server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use redis::Value;
use weir_core::queue::server::{Durability, ServerState};
use weir_core::queue::{Node, Queue, QueueError};

use super::faults;
use super::finding::Findings;
use super::repair::Repair;
use crate::cli::fleet::roster::{self, Roster};
use crate::context::Context;
use crate::output;

const PART: &str = "redis";
/// The oldest major version whose functions and streams we know.
const VERSION: u32 = 7;
/// A fork that takes longer stalls every request for as long.
const SLOW_FORK: Duration = Duration::from_millis(300);

/// Gives whether the server can be asked at all; of a cluster, all of its primaries.
pub(super) async fn examine(context: &Context, queue: &Queue, findings: &mut Findings) -> bool {
    sentinels(queue, findings).await;
    let url = context.redis_url().map(|url| url.to_string()).unwrap_or_default();
    let servers = match queue.servers().await {
        Ok(servers) => servers,
        Err(error) => {
            findings.fail(PART, "reachable", format!("{url}: {error}"), "start it, or correct WEIR_REDIS_URL");
            return false;
        }
    };
    for (_, error) in &servers.away {
        findings.fail(PART, "reachable", error.to_string(), "start it, or let a replica of it take over");
    }
    if servers.away.is_empty() {
        findings.ok(PART, "reachable", url);
    }
    spread(queue, findings).await;
    for state in &servers.states {
        version(state, findings);
        faults::examine(state, findings);
        durability(context, state, findings);
        memory(context, state, findings);
        pace(state, findings);
    }
    if !servers.away.is_empty() {
        return false;
    }
    let more = async {
        clock(queue, findings).await?;
        libraries(queue, findings).await
    };
    if let Err(error) = more.await {
        findings.fail(PART, "rights", error.to_string(), "give this user the rights that the documentation lists");
    }
    true
}

/// How many partitions each primary of a cluster holds. Says nothing of a server of its own.
async fn spread(queue: &Queue, findings: &mut Findings) {
    const CHECK: &str = "cluster";
    if !queue.link().is_cluster() {
        return;
    }
    match shares(queue).await {
        Ok(shares) => {
            let found = shares.iter().map(|(address, partitions)| format!("{address} has {partitions}"));
            let found = format!("partitions: {}", found.collect::<Vec<_>>().join(", "));
            if shares.values().any(|partitions| *partitions == 0) {
                findings.warn(
                    PART,
                    CHECK,
                    found,
                    "a primary without partitions does nothing for the queue: move the slot of one there",
                );
            } else {
                findings.ok(PART, CHECK, found);
            }
        }
        Err(error) => findings.fail(PART, CHECK, error.to_string(), "see `redis-cli --cluster check`"),
    }
}

async fn shares(queue: &Queue) -> Result<BTreeMap<String, usize>, QueueError> {
    let name = |node: &Node| node.address().unwrap_or_default().to_owned();
    let mut shares: BTreeMap<_, _> = queue.link().nodes().await?.iter().map(|node| (name(node), 0)).collect();
    for partition in 0..queue.partitions() {
        *shares.entry(name(&queue.holder(partition).await?)).or_default() += 1;
    }
    Ok(shares)
}

fn version(state: &ServerState, findings: &mut Findings) {
    let version = state.info("redis_version");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default();
    if major >= VERSION {
        findings.ok(PART, "version", state.named(version));
    } else {
        findings.fail(
            PART,
            "version",
            state.named(format!("{version} lacks functions")),
            "upgrade to Redis 7.0 or newer",
        );
    }
}

fn durability(context: &Context, state: &ServerState, findings: &mut Findings) {
    let gateway = &context.settings.gateway;
    let weaknesses = state.weaknesses(gateway.durability, gateway.replicas);
    if weaknesses.is_empty() {
        findings.ok(PART, "durability", state.named(format!("keeps the promise `{}`", gateway.durability)));
    }
    for weakness in weaknesses {
        // Each names the setting; what to set comes after its last semicolon.
        let (found, fix) = weakness.rsplit_once("; ").unwrap_or((&weakness, "see the log of Redis"));
        findings.fail(PART, "durability", found, fix);
    }
    let online = state.replicas_online();
    if gateway.durability == Durability::Replica && online > gateway.replicas {
        let found = format!("{online} are online, a message waits for {}", gateway.replicas);
        let fix = "set gateway.replicas to their number, or a failover to the one that lags may lose messages";
        findings.warn(PART, "replicas", state.named(found), fix);
    }
}

/// Fewer than this and no majority is left when one is away.
const SENTINELS: usize = 3;

/// Whether the sentinels answer and agree. Says nothing when the URL names none.
async fn sentinels(queue: &Queue, findings: &mut Findings) {
    const CHECK: &str = "sentinels";
    let seen = queue.link().sentinels().await;
    let mut named: Vec<&str> = seen.iter().filter_map(|seen| seen.primary.as_deref().ok()).collect();
    let found = format!("{} of {} answer", named.len(), seen.len());
    named.sort_unstable();
    named.dedup();
    let silent = seen.iter().find_map(|seen| seen.primary.as_ref().err());
    match (named.as_slice(), silent) {
        ([], None) => {}
        ([], Some(error)) => {
            findings.fail(PART, CHECK, error.to_string(), "start them, or correct WEIR_REDIS_URL");
        }
        ([_, _, ..], _) => {
            let found = format!("{found}, and name different primaries: {}", named.join(", "));
            findings.warn(PART, CHECK, found, "wait for the failover to end; if it lasts, look into their logs");
        }
        ([_], Some(error)) => {
            findings.warn(PART, CHECK, format!("{found}: {error}"), "start it: a failover takes a majority of them");
        }
        ([primary], None) if seen.len() < SENTINELS => {
            let found = format!("{found}: {primary}");
            findings.warn(PART, CHECK, found, "run three or more: with fewer, one that is away stops every failover");
        }
        ([primary], None) => findings.ok(PART, CHECK, format!("{found}: {primary}")),
    }
}

fn memory(context: &Context, state: &ServerState, findings: &mut Findings) {
    let limit = state.info("maxmemory");
    if matches!(limit, "0" | "") {
        let fix = "set maxmemory below what the machine can give, or the system may kill Redis";
        findings.warn(PART, "maxmemory", state.named("not set"), fix);
    } else {
        findings.ok(PART, "maxmemory", state.named(format!("{limit} bytes")));
    }
    let allowed = context.settings.gateway.memory_share;
    let share = state.memory_share();
    let found = state.named(format!("{:.0} % used, the gateway stops at {:.0} %", share * 100.0, allowed * 100.0));
    if share >= allowed {
        findings.fail(PART, "memory", found, "drain the backlog, raise maxmemory, or shorten dedupe.window");
    } else if share >= allowed * 0.8 {
        findings.warn(PART, "memory", found, "raise maxmemory, or scale the fleet up, before the gateway stops");
    } else {
        findings.ok(PART, "memory", found);
    }
}

fn pace(state: &ServerState, findings: &mut Findings) {
    let number = |name| state.info(name).parse::<u64>().unwrap_or_default();
    let fork = Duration::from_micros(number("latest_fork_usec"));
    if fork > SLOW_FORK {
        let fix = "switch transparent huge pages off, and raise auto-aof-rewrite-min-size";
        findings.warn(PART, "fork", state.named(format!("the last one took {}", output::span(fork))), fix);
    } else {
        findings.ok(PART, "fork", state.named(format!("the last one took {} ms", fork.as_millis())));
    }
    match number("aof_delayed_fsync") {
        0 => findings.ok(PART, "fsync", state.named("none was delayed")),
        delayed => {
            findings.warn(PART, "fsync", state.named(format!("{delayed} were delayed")), "give Redis a faster disk")
        }
    }
}

async fn clock(queue: &Queue, findings: &mut Findings) -> Result<(), QueueError> {
    let before = output::now_ms();
    let theirs = roster::clock(queue).await?;
    // Ours at the moment at which Redis looked at its own, more or less.
    findings.clock(PART, theirs, before.midpoint(output::now_ms()));
    Ok(())
}

async fn libraries(queue: &Queue, findings: &mut Findings) -> Result<(), QueueError> {
    let (mut without, mut others) = (Vec::new(), BTreeSet::new());
    for node in queue.link().nodes().await? {
        let (ours, foreign): (Vec<_>, Vec<_>) =
            libraries_of(queue, &node).await?.into_iter().partition(|name| name == queue.library());
        if ours.is_empty() {
            without.push(node.address().unwrap_or_default().to_owned());
        }
        others.extend(foreign);
    }
    let others: Vec<String> = others.into_iter().collect();
    if without.is_empty() {
        findings.ok(PART, "functions", format!("{} is loaded", queue.library()));
    } else {
        let place = if queue.link().is_cluster() { format!(" at {}", without.join(", ")) } else { String::new() };
        let found = format!("{} is not loaded yet{place}; the first call loads it", queue.library());
        findings.ok(PART, "functions", found);
    }
    if others.is_empty() {
        return Ok(());
    }
    let versions = versions(&Roster::read(queue).await?);
    let found = format!("libraries of other builds: {}", others.join(", "));
    if versions.iter().all(|version| version == env!("CARGO_PKG_VERSION")) {
        findings.warn(PART, "old functions", found, "drop them with `weir doctor --fix --yes`");
        findings.repairs.extend(others.into_iter().map(Repair::DropLibrary));
    } else {
        findings.ok(PART, "old functions", format!("{found}; workers of other versions run and may use them"));
    }
    Ok(())
}

/// The libraries of all builds at one server.
async fn libraries_of(queue: &Queue, node: &Node) -> Result<Vec<String>, QueueError> {
    let mut list = redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg("weir_*");
    let found: Vec<HashMap<String, Value>> = queue.link().command_at(node, &list).await?;
    let name = |mut library: HashMap<String, Value>| match library.remove("library_name") {
        Some(Value::BulkString(name)) => String::from_utf8_lossy(&name).into_owned(),
        Some(Value::SimpleString(name)) => name,
        _ => String::new(),
    };
    Ok(found.into_iter().map(name).collect())
}

/// The versions of all workers, each once.
pub(super) fn versions(roster: &Roster) -> Vec<String> {
    let mut versions: Vec<String> = roster.beating().map(|worker| worker.version.clone()).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}
