//! `weir status`.

mod look;
pub(crate) mod probe;
mod report;
mod show;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{Result, bail};
use weir_core::config::Setting;
use weir_core::shutdown;

use crate::Ending;
use crate::cli::Output;
use crate::context::Context;
use crate::output;
use look::Watcher;

/// Show what runs, what waits, and whether every accepted message is accounted for
///
/// Exit code 3 when something is not right: a part is down or not ready, nothing runs, or the balance has a drift. The
/// JSON form holds the addresses, URLs and process ids of all that `weir up` runs; passwords are in its stack.json
/// alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  weir status --partitions\n  weir status --output json | jq .balance.drift")]
pub(crate) struct Status {
    /// Look again and again until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Time between two looks of --watch
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = <Duration as Setting>::read)]
    every: Duration,
    /// Show every partition of the queue
    #[arg(long)]
    partitions: bool,
}

/// Clears a terminal and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

impl Status {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        if self.every < Duration::from_millis(100) {
            bail!(
                "--every {}: 100ms at least, every look costs Redis some work",
                humantime::format_duration(self.every)
            );
        }
        let mut watcher = Watcher::new(context)?;
        if self.watch {
            return self.watch(context.output, &mut watcher).await;
        }
        let report = watcher.look().await;
        match context.output {
            Output::Json => output::json(&report),
            Output::Table => show::table(&report, self.partitions),
        }
        Ok(if report.ok { Ending::Done } else { Ending::Negative })
    }

    async fn watch(&self, form: Output, watcher: &mut Watcher<'_>) -> Result<Ending> {
        let stop = shutdown::on_signals()?;
        let terminal = io::stdout().is_terminal();
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let Some(report) = stop.run_until_cancelled(watcher.look()).await else { break };
            match (form, terminal) {
                (Output::Json, _) => output::json_line(&report),
                (Output::Table, true) => {
                    output::line(CLEAR);
                    show::table(&report, self.partitions);
                }
                (Output::Table, false) => output::line(show::line(&report)),
            }
        }
        Ok(Ending::Done)
    }
}
