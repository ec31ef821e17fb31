//! `weir fleet list`.

use std::time::Duration;

use anyhow::Result;
use weir_core::queue::Queue;

use super::roster::{Roster, Supervisor, Worker};
use crate::Ending;
use crate::cli::Output;
use crate::output;

const WORKERS: [&str; 10] =
    ["worker", "host", "pid", "version", "state", "lanes", "in flight", "rate", "heartbeat", "lease left"];
const SUPERVISORS: [&str; 7] = ["supervisor", "pid", "wanted", "workers", "gateways", "given up", "state"];

pub(super) async fn run(queue: &Queue, output: Output) -> Result<Ending> {
    let roster = Roster::read(queue).await?;
    if output == Output::Json {
        output::json(&roster);
        return Ok(Ending::Done);
    }
    if roster.workers.is_empty() {
        output::line("no worker runs: start them with `weir up` or `weir worker`");
    } else {
        output::rows(output, &WORKERS, &roster.workers, worker_cells);
    }
    if !roster.supervisors.is_empty() {
        output::line("");
        output::rows(output, &SUPERVISORS, &roster.supervisors, supervisor_cells);
    }
    Ok(Ending::Done)
}

fn worker_cells(worker: &Worker) -> Vec<String> {
    let span = |ms: Option<u64>| ms.map_or("-".into(), |ms| output::span(Duration::from_millis(ms)));
    vec![
        worker.name.clone(),
        or_dash(&worker.host),
        worker.pid.map_or("-".into(), |pid| pid.to_string()),
        or_dash(&worker.version),
        worker.state.clone(),
        or_dash(&worker.lanes),
        worker.in_flight.to_string(),
        format!("{:.0}/s", worker.rate),
        worker.beat_age_ms.map_or("-".into(), |_| format!("{} ago", span(worker.beat_age_ms))),
        span(worker.lease_left_ms),
    ]
}

fn supervisor_cells(supervisor: &Supervisor) -> Vec<String> {
    let count = |count: Option<u32>| count.map_or("-".into(), |count| count.to_string());
    let range = match (supervisor.min, supervisor.max) {
        (Some(min), Some(max)) => format!("{} ({min}..{max})", or_dash(&supervisor.wanted)),
        _ => or_dash(&supervisor.wanted),
    };
    vec![
        supervisor.host.clone(),
        supervisor.pid.map_or("-".into(), |pid| pid.to_string()),
        range,
        count(supervisor.running),
        count(supervisor.gateways),
        supervisor.given_up.to_string(),
        if supervisor.alive { "running" } else { "gone" }.into(),
    ]
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.to_owned() }
}
