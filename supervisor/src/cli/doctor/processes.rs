//! Checks of gateways and workers.

use weir_core::queue::Queue;

use super::finding::Findings;
use super::server::versions;
use crate::cli::fleet::roster::Roster;
use crate::cli::status::probe;
use crate::context::Context;
use crate::stack_file::StackFile;

const WORKERS: &str = "workers";
const GATEWAY: &str = "gateway";

pub(super) async fn examine_workers(queue: &Queue, findings: &mut Findings) {
    let roster = match Roster::read(queue).await {
        Ok(roster) => roster,
        Err(error) => {
            findings.fail(WORKERS, "readable", error.to_string(), "see which key or right the text names");
            return;
        }
    };
    number(&roster, findings);
    skew(&roster, findings);
    silent(&roster, findings);
    for worker in roster.beating().filter(|worker| worker.state.starts_with("paused")) {
        let found = format!("{} is {}", worker.name, worker.state);
        findings.fail(WORKERS, "paused", found, "it goes on by itself once the reason is gone");
    }
}

fn number(roster: &Roster, findings: &mut Findings) {
    match roster.beating().count() {
        0 => findings.fail(WORKERS, "number", "none runs", "start them with `weir up` or `weir worker`"),
        number => findings.ok(WORKERS, "number", number.to_string()),
    }
    for supervisor in roster.supervisors.iter().filter(|supervisor| supervisor.given_up > 0) {
        let found = format!("{} of {} crash again and again", supervisor.given_up, supervisor.host);
        findings.fail(WORKERS, "given up", found, "see their logs; `weir fleet scale` gives them another chance");
    }
}

fn skew(roster: &Roster, findings: &mut Findings) {
    let versions = versions(roster);
    match versions.len() {
        0 => {}
        1 => findings.ok(WORKERS, "version", versions.join("")),
        _ => {
            let count = |version: &String| roster.beating().filter(|worker| worker.version == *version).count();
            let each: Vec<String> = versions.iter().map(|version| format!("{} of {version}", count(version))).collect();
            findings.warn(WORKERS, "version", each.join(", "), "finish the upgrade: `weir fleet drain` the older ones");
        }
    }
}

fn silent(roster: &Roster, findings: &mut Findings) {
    let silent: Vec<&str> = roster.silent().map(|worker| worker.name.as_str()).collect();
    if silent.is_empty() {
        findings.ok(WORKERS, "heartbeat", "every holder of a lease has one");
    } else {
        let fix = "others take over when its lease runs out; if it stays, the process hangs: end it";
        findings.warn(WORKERS, "heartbeat", format!("a lease and no heartbeat: {}", silent.join(", ")), fix);
    }
}

pub(super) async fn examine_gateways(context: &Context, stack: Option<&StackFile>, findings: &mut Findings) {
    let gateways = probe::gateways(context, stack).await;
    if gateways.is_empty() {
        findings.fail(GATEWAY, "ready", "none is known", "start one with `weir up` or `weir gateway`");
    }
    for gateway in gateways {
        if gateway.ready {
            findings.ok(GATEWAY, "ready", gateway.address);
        } else {
            let found = format!("{} is not: {}", gateway.address, gateway.reasons.join("; "));
            findings.fail(GATEWAY, "ready", found, "start it, or cure the reason: it goes on by itself");
        }
    }
}
