//! Checks of the Redis server.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;
use weir_core::queue::server::{Durability, ServerState};
use weir_core::queue::{Queue, QueueError};

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

/// Gives whether the server can be asked at all.
pub(super) async fn examine(context: &Context, queue: &Queue, findings: &mut Findings) -> bool {
    sentinels(queue, findings).await;
    let state = match queue.server_state().await {
        Ok(state) => state,
        Err(error) => {
            let url = context.redis_url().map(|url| url.to_string()).unwrap_or_default();
            findings.fail(PART, "reachable", format!("{url}: {error}"), "start it, or correct WEIR_REDIS_URL");
            return false;
        }
    };
    findings.ok(PART, "reachable", context.redis_url().map(|url| url.to_string()).unwrap_or_default());
    version(&state, findings);
    faults::examine(&state, findings);
    durability(context, &state, findings);
    memory(context, &state, findings);
    pace(&state, findings);
    let more = async {
        clock(queue, findings).await?;
        libraries(queue, findings).await
    };
    if let Err(error) = more.await {
        findings.fail(PART, "rights", error.to_string(), "give this user the rights that the documentation lists");
    }
    true
}

fn version(state: &ServerState, findings: &mut Findings) {
    let version = state.info("redis_version");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default();
    if major >= VERSION {
        findings.ok(PART, "version", version);
    } else {
        findings.fail(PART, "version", format!("{version} lacks functions"), "upgrade to Redis 7.0 or newer");
    }
}

fn durability(context: &Context, state: &ServerState, findings: &mut Findings) {
    let gateway = &context.settings.gateway;
    let weaknesses = state.weaknesses(gateway.durability, gateway.replicas);
    if weaknesses.is_empty() {
        findings.ok(PART, "durability", format!("keeps the promise `{}`", gateway.durability));
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
        findings.warn(PART, "replicas", found, fix);
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
        findings.warn(PART, "maxmemory", "not set", fix);
    } else {
        findings.ok(PART, "maxmemory", format!("{limit} bytes"));
    }
    let allowed = context.settings.gateway.memory_share;
    let share = state.used_memory() as f64 / state.memory_limit().max(1) as f64;
    let found = format!("{:.0} % used, the gateway stops at {:.0} %", share * 100.0, allowed * 100.0);
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
        findings.warn(PART, "fork", format!("the last one took {}", output::span(fork)), fix);
    } else {
        findings.ok(PART, "fork", format!("the last one took {} ms", fork.as_millis()));
    }
    match number("aof_delayed_fsync") {
        0 => findings.ok(PART, "fsync", "none was delayed"),
        delayed => findings.warn(PART, "fsync", format!("{delayed} were delayed"), "give Redis a faster disk"),
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
    let mut list = redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg("weir_*");
    let found: Vec<HashMap<String, Value>> = queue.command(&list).await?;
    let name = |mut library: HashMap<String, Value>| match library.remove("library_name") {
        Some(Value::BulkString(name)) => String::from_utf8_lossy(&name).into_owned(),
        Some(Value::SimpleString(name)) => name,
        _ => String::new(),
    };
    let (ours, others): (Vec<String>, Vec<String>) =
        found.into_iter().map(name).partition(|name| name == queue.library());
    if ours.is_empty() {
        findings.ok(PART, "functions", format!("{} is not loaded yet; the first call loads it", queue.library()));
    } else {
        findings.ok(PART, "functions", format!("{} is loaded", queue.library()));
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

/// The versions of all workers, each once.
pub(super) fn versions(roster: &Roster) -> Vec<String> {
    let mut versions: Vec<String> = roster.beating().map(|worker| worker.version.clone()).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}
