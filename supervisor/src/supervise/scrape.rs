//! Metrics and health of all processes on one address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use weir_core::ops::Health;
use weir_core::shutdown::Shutdown;
use weir_core::telemetry::DROPPED_LINES;

use crate::http::{Connection, Target};
use crate::supervise::board::Board;

const PATIENCE: Duration = Duration::from_secs(1);

/// Gets a path from a role that listens at `http://host:port`. Gives status and body.
pub(crate) async fn get(url: &str, path: &str) -> Result<(u16, String)> {
    ask(Target::parse(url, None)?, path).await
}

/// The same from any target.
pub(crate) async fn ask(target: Target, path: &str) -> Result<(u16, String)> {
    let mut connection = Connection::new(target);
    let answer = tokio::time::timeout(PATIENCE, connection.get(path)).await.context("no answer within a second")??;
    Ok((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
}

/// The metrics of every process, merged.
pub(crate) async fn metrics(board: Arc<Board>) -> String {
    let mut texts = Vec::new();
    for role in board.read().processes {
        let Some(url) = role.ops else { continue };
        match get(&url, "/metrics").await {
            Ok((200, text)) => texts.push(text),
            Ok((status, _)) => tracing::debug!(process = role.name, status, "metrics"),
            Err(error) => tracing::debug!(process = role.name, error = format!("{error:#}"), "metrics"),
        }
    }
    let dropped = weir_core::log::dropped();
    texts.push(format!("# TYPE {DROPPED_LINES} counter\n{DROPPED_LINES}{{process=\"supervisor\"}} {dropped}\n"));
    merge(&texts)
}

/// Merges texts in Prometheus' format: every family once, with the samples of all. Each process labels its own.
fn merge(texts: &[String]) -> String {
    let mut families: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for text in texts {
        let mut family = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            let comment = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
            match comment {
                Some(rest) => {
                    family = rest.split(' ').next().unwrap_or_default();
                    let heads = &mut families.entry(family).or_default().0;
                    let kind = &line[..6];
                    if !heads.iter().any(|head| head.starts_with(kind)) {
                        heads.push(line);
                    }
                }
                None => families.entry(family).or_default().1.push(line),
            }
        }
    }
    let mut merged = String::new();
    for (heads, samples) in families.values() {
        for line in heads.iter().chain(samples) {
            merged.push_str(line);
            merged.push('\n');
        }
    }
    merged
}

/// Looks at the health of all processes once a second until shutdown.
pub(crate) async fn watch_health(board: Arc<Board>, health: watch::Sender<Health>, shutdown: Shutdown) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let now = look(&board).await;
        health.send_replace(now);
    }
    health.send_replace(Health::waiting("stopping"));
}

/// Ready means: the gateway can accept, and at least one worker can store.
pub(crate) async fn look(board: &Board) -> Health {
    let mut reasons = Vec::new();
    let mut details = Map::new();
    let mut ready = [("gateway", false), ("worker", false)];
    for role in board.read().processes {
        let found = match &role.ops {
            Some(url) => get(url, "/health").await.ok().and_then(|(_, text)| serde_json::from_str::<Value>(&text).ok()),
            None => None,
        };
        let good = found.as_ref().is_some_and(|found| found["ready"] == json!(true));
        for (kind, one) in &mut ready {
            *one |= good && *kind == role.role;
        }
        if !good {
            let why = found.as_ref().map(|found| found["reasons"].to_string()).unwrap_or(role.state);
            reasons.push(format!("{}: {why}", role.name));
        }
        details.insert(role.name, found.unwrap_or(Value::Null));
    }
    Health { ready: ready.iter().all(|(_, one)| *one), reasons, details }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_several_processes_are_merged() {
        let one =
            "# TYPE a counter\na{process=\"x\"} 1\n\n# TYPE b histogram\nb_bucket{process=\"x\",le=\"1\"} 2\nb_sum 3\n";
        let two = "# TYPE a counter\na{process=\"y\"} 4\n";
        let merged = merge(&[one.into(), two.into()]);
        assert_eq!(
            merged,
            "# TYPE a counter\na{process=\"x\"} 1\na{process=\"y\"} 4\n# TYPE b histogram\nb_bucket{process=\"x\",le=\"1\"} 2\nb_sum 3\n"
        );
    }
}
