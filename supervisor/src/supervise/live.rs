//! The line that changes: what comes in, what is stored, what waits, what is dead.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use weir_core::queue::Queue;
use weir_core::queue::balance::Balance;
use weir_core::shutdown::Shutdown;

use crate::output::{line, span};

/// Prints until shutdown: one line that changes on a terminal, else a line every ten seconds while something happens.
pub(crate) async fn run(queue: Queue, shutdown: Shutdown) {
    let terminal = io::stdout().is_terminal();
    let every = Duration::from_secs(if terminal { 1 } else { 10 });
    let mut tick = tokio::time::interval(every);
    let mut last: Option<(Instant, Balance)> = None;
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let text = match queue.balance().await {
            Ok(balance) => {
                let now = (Instant::now(), balance);
                let text = describe(last.as_ref(), &now);
                let quiet = last.is_some_and(|(_, before)| {
                    before.accepted == balance.accepted && before.backlog() == balance.backlog()
                });
                last = Some(now);
                if quiet && !terminal { String::new() } else { text }
            }
            Err(error) => format!("{error}"),
        };
        show(&text, terminal);
    }
    if terminal {
        line("");
    }
}

fn show(text: &str, terminal: bool) {
    if terminal {
        let mut out = io::stdout().lock();
        drop(write!(out, "\r\x1b[K{text}"));
        drop(out.flush());
    } else if !text.is_empty() {
        line(text);
    }
}

fn describe(last: Option<&(Instant, Balance)>, now: &(Instant, Balance)) -> String {
    let (at, balance) = now;
    let rate = |count: fn(&Balance) -> u64| match last {
        Some((then, before)) => {
            count(balance).saturating_sub(count(before)) as f64 / (*at - *then).as_secs_f64().max(0.001)
        }
        None => 0.0,
    };
    let mut text = format!(
        "accepted {:.0}/s · stored {:.0}/s · backlog {} · dead {}",
        rate(|balance| balance.accepted),
        rate(|balance| balance.stored + balance.duplicate),
        balance.backlog(),
        balance.dead
    );
    if balance.oldest_age_ms > 1000 {
        text.push_str(&format!(" · oldest {}", span(Duration::from_millis(balance.oldest_age_ms))));
    }
    if balance.parked > 0 {
        text.push_str(&format!(" · parked {}", balance.parked));
    }
    if balance.drift() != 0 {
        text.push_str(&format!(" · DRIFT {} (see weir doctor)", balance.drift()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_rates_backlog_and_drift() {
        let start = Instant::now();
        let before = (start, Balance::default());
        let balance = Balance { accepted: 100, stored: 50, undelivered: 48, dead: 1, ..Balance::default() };
        let text = describe(Some(&before), &(start + Duration::from_secs(2), balance));
        assert_eq!(text, "accepted 50/s · stored 25/s · backlog 48 · dead 1 · DRIFT 1 (see weir doctor)");
    }
}
