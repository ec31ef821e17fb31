//! `weir status` for people.

use std::time::Duration;

use weir_core::secret::SecretUrl;

use super::report::{Database, Redis, Report, Sum, Webhooks};
use crate::cli::Output;
use crate::output;
use crate::stack_file::{Role, StackFile};

/// All of it.
pub(super) fn table(report: &Report, partitions: bool) {
    let mut lines = vec![("redis", redis(&report.redis)), ("database", database(&report.database))];
    for gateway in &report.gateways {
        let state = if gateway.ready { "ready".into() } else { format!("not ready: {}", gateway.reasons.join("; ")) };
        lines.push(("gateway", format!("{} {state}", gateway.address)));
    }
    lines.push(("webhooks", webhooks(&report.webhooks)));
    lines.extend(fleet(report).map(|text| ("workers", text)));
    lines.extend(report.balance.as_ref().map(|sum| balance(report, sum)).unwrap_or_default());
    output::record(Output::Table, report, &lines);
    if partitions && !report.partitions.is_empty() {
        output::line("");
        each_partition(&report.partitions);
    }
    if let Some(stack) = &report.stack {
        output::line("");
        processes(stack);
    }
    if report.ok {
        return;
    }
    output::line("");
    for problem in &report.problems {
        output::line(format_args!("! {}", output::escape(problem)));
    }
}

/// The short form for a look that is one of many.
pub(super) fn line(report: &Report) -> String {
    let at = output::time(report.at_ms);
    let Some(sum) = &report.balance else { return format!("{at} {}", trouble(report)) };
    let flow = report.flow.as_ref();
    let accepted = flow.and_then(|flow| flow.accepted_per_second).unwrap_or_default();
    let stored = flow.map(|flow| flow.stored_per_second).unwrap_or_default();
    format!(
        "{at} accepted {} ({accepted:.0}/s) stored {} ({stored:.0}/s) backlog {} dead {} drift {} oldest {} {}",
        sum.counts.accepted,
        sum.counts.stored,
        sum.backlog,
        sum.counts.dead,
        sum.drift,
        age(sum.counts.oldest_age_ms),
        trouble(report)
    )
}

fn trouble(report: &Report) -> String {
    if report.ok { "ok".into() } else { format!("! {}", output::escape(&report.problems.join("; "))) }
}

fn redis(redis: &Redis) -> String {
    if let Some(error) = &redis.error {
        return format!("{} down: {error}", redis.url).trim_start().to_owned();
    }
    let durability = redis.durability.map(|durability| durability.to_string()).unwrap_or_default();
    let kept = if redis.weaknesses.is_empty() { "kept" } else { "NOT kept" };
    format!(
        "{} Redis {}, durability {durability} {kept}, memory {} of {} ({:.0} %)",
        redis.url,
        redis.version,
        bytes(redis.used_memory),
        bytes(redis.memory_limit),
        redis.memory_percent()
    )
}

fn database(database: &Database) -> String {
    match &database.error {
        Some(error) => format!("{} down: {error}", database.url).trim_start().to_owned(),
        None if database.schema_current => format!("{} schema current", database.url),
        None => format!("{} schema NOT current", database.url),
    }
}

fn webhooks(webhooks: &Webhooks) -> String {
    let state = if webhooks.enabled { "MAX is taken" } else { "MAX is switched off (WEBHOOK_ENABLED)" };
    let not_taken: Vec<String> = webhooks.not_taken.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    match not_taken.is_empty() {
        true => state.to_owned(),
        false => format!("{state}; not taken in 24 hours: {}", not_taken.join(", ")),
    }
}

fn fleet(report: &Report) -> Option<String> {
    let fleet = report.fleet.as_ref()?;
    let (beating, silent) = (fleet.beating().count(), fleet.silent().count());
    let in_flight: u64 = fleet.beating().map(|worker| worker.in_flight).sum();
    let mut text = format!("{beating} running, {in_flight} messages in flight, {:.0} stored/s", fleet.rate());
    if silent > 0 {
        text.push_str(&format!(", {silent} silent"));
    }
    Some(text)
}

fn balance(report: &Report, sum: &Sum) -> Vec<(&'static str, String)> {
    let counts = &sum.counts;
    let undelivered = format!(
        "{} = {} undelivered + {} pending + {} due + {} suspect + {} parked",
        sum.in_flight, counts.undelivered, counts.pending, counts.due, counts.suspect, counts.parked
    );
    let accounted = "accepted + imported - stored - duplicate - dead - purged - in flight";
    let mut lines = vec![
        ("accepted", counts.accepted.to_string()),
        ("imported", counts.imported.to_string()),
        ("stored", counts.stored.to_string()),
        ("duplicate", counts.duplicate.to_string()),
        ("dead", counts.dead.to_string()),
        ("purged", counts.purged.to_string()),
        ("in flight", undelivered),
        ("drift", format!("{} = {accounted}", sum.drift)),
        ("backlog", backlog(report, sum)),
        ("oldest", age(counts.oldest_age_ms)),
        ("dedupe", format!("{} ids, reaches back {}", counts.remembered, age(counts.window_ms))),
    ];
    if counts.lost > 0 {
        lines.push(("lost", format!("{}: entries were deleted by hand", counts.lost)));
    }
    lines
}

fn backlog(report: &Report, sum: &Sum) -> String {
    match report.flow.and_then(|flow| flow.drained_in_seconds) {
        Some(seconds) => {
            let left = Duration::from_secs(seconds.ceil().min(1e9) as u64);
            format!("{}, gone in about {}", sum.backlog, output::span(left))
        }
        None => sum.backlog.to_string(),
    }
}

const PARTITION: [&str; 11] = [
    "partition",
    "accepted",
    "stored",
    "duplicate",
    "dead",
    "undelivered",
    "pending",
    "due",
    "suspect",
    "parked",
    "drift",
];

fn each_partition(partitions: &[Sum]) {
    let rows: Vec<(usize, &Sum)> = partitions.iter().enumerate().collect();
    output::rows(Output::Table, &PARTITION, &rows, |(number, sum)| {
        let c = &sum.counts;
        let mut cells = vec![number.to_string()];
        let counts = [c.accepted, c.stored, c.duplicate, c.dead, c.undelivered, c.pending, c.due, c.suspect, c.parked];
        cells.extend(counts.iter().map(u64::to_string));
        cells.push(sum.drift.to_string());
        cells
    });
}

const PROCESS: [&str; 6] = ["process", "pid", "state", "restarts", "address", "log"];

/// What runs where. Passwords stay out.
fn processes(stack: &StackFile) {
    let server = |name: &str, server: &crate::stack_file::Server| {
        let pid = server.pid.map_or("not ours".into(), |pid| pid.to_string());
        let url = SecretUrl::new(server.url.clone()).to_string();
        vec![name.to_owned(), pid, String::new(), String::new(), url, String::new()]
    };
    let up = format!("weir up {}", stack.version);
    let ops = stack.ops.clone().unwrap_or_default();
    let mut rows = vec![
        vec![up, stack.pid.to_string(), String::new(), String::new(), ops, String::new()],
        server("redis", &stack.redis),
        server("database", &stack.database),
    ];
    rows.extend(stack.processes.iter().map(|role| process(role, &stack.gateway)));
    output::rows(Output::Table, &PROCESS, &rows, Clone::clone);
}

fn process(role: &Role, gateway: &[String]) -> Vec<String> {
    let addresses = if role.role == "gateway" { gateway.join(" ") } else { role.ops.clone().unwrap_or_default() };
    vec![
        role.name.clone(),
        role.pid.map_or("-".into(), |pid| pid.to_string()),
        role.state.clone(),
        role.restarts.to_string(),
        addresses,
        role.log.display().to_string(),
    ]
}

fn age(ms: u64) -> String {
    if ms == 0 { "-".into() } else { output::span(Duration::from_millis(ms)) }
}

/// Bytes as people read them.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_shown_in_their_largest_unit() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
