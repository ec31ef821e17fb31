//! `weir fleet restart`.

use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use serde::Serialize;
use weir_core::queue::{Queue, keys};

use super::roster::{Roster, Supervisor, supervisor};
use super::{LOOK, choose_host, set_field};
use crate::Ending;
use crate::cli::Output;
use crate::cli::consent::{self, Preview};
use crate::output;
use crate::supervise::roll::{Progress, Roles, Wish};

/// Replace gateways and workers by new processes, one after the other, without losing a request
///
/// Each new process is ready before the old one drains and ends. The new ones read weir.toml again and are of the
/// version that is installed now; if one does not come up, the restart ends there and what runs stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir fleet restart --gateways --yes")]
pub(crate) struct Restart {
    /// Only the gateways
    #[arg(long, conflicts_with = "workers")]
    gateways: bool,
    /// Only the workers
    #[arg(long)]
    workers: bool,
    /// The host [default: the only one that has a supervisor]
    #[arg(long)]
    host: Option<String>,
    /// How long to wait until all are replaced; 0s does not wait
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Say what would be restarted, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Restarted<'a> {
    host: &'a str,
    gateways: Option<u32>,
    workers: Option<u32>,
    /// Processes that were replaced, and those that were to be; `null` when nobody waited.
    done: Option<usize>,
    total: Option<usize>,
    /// All are replaced; `null` when nobody waited for it.
    reached: Option<bool>,
    error: Option<String>,
    dry_run: bool,
}

impl Restart {
    pub(super) async fn run(self, queue: &Queue, output: Output) -> Result<Ending> {
        let roster = Roster::read(queue).await?;
        let host = choose_host(&roster, self.host.as_deref())?;
        let found = roster.supervisors.iter().find(|supervisor| supervisor.host == host);
        let roles = self.roles();
        let count =
            |is_meant: bool, number: fn(&Supervisor) -> Option<u32>| found.filter(|_| is_meant).and_then(number);
        let mut restarted = Restarted {
            host: &host,
            gateways: count(roles.gateways, |supervisor| supervisor.gateways),
            workers: count(roles.workers, |supervisor| supervisor.running),
            done: None,
            total: None,
            reached: None,
            error: None,
            dry_run: self.dry_run,
        };
        let question = format!("Restart {}, one after the other?", what(&restarted));
        consent::ask(&question, self.yes || self.dry_run, Preview::DryRun)?;
        if !self.dry_run {
            let wish = Wish { id: uuid::Uuid::new_v4().to_string(), roles };
            set_field(queue, &keys::fleet(&host), "restart", &wish).await?;
            if !self.wait.is_zero() {
                let progress = self.follow(queue, &host, &wish).await?;
                restarted.reached = Some(progress.ended && progress.error.is_none());
                restarted.done = Some(progress.done);
                restarted.total = Some(progress.total);
                restarted.error = progress.error;
            }
        }
        Ok(self.report(output, &restarted))
    }

    fn roles(&self) -> Roles {
        let both = self.gateways == self.workers;
        Roles { gateways: self.gateways || both, workers: self.workers || both }
    }

    /// Waits until the restart has ended or the time is over, and says how it stands then.
    async fn follow(&self, queue: &Queue, host: &str, wish: &Wish) -> Result<Progress> {
        let bar = ProgressBar::new_spinner().with_message(format!("waiting for the supervisor of {host}"));
        bar.enable_steady_tick(LOOK);
        let mut last = Progress::default();
        let ended = async {
            loop {
                let Some(found) = supervisor(queue, host).await?.filter(|found| found.alive) else {
                    bail!("the supervisor of {host} is gone: see its log");
                };
                if let Some(progress) = found.progress.filter(|progress| progress.id == wish.id) {
                    bar.set_message(describe(&progress));
                    last = progress;
                }
                if last.ended {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let ended = tokio::time::timeout(self.wait, ended).await;
        bar.finish_and_clear();
        ended.unwrap_or(Ok(()))?;
        Ok(last)
    }

    fn report(&self, output: Output, restarted: &Restarted<'_>) -> Ending {
        let (host, what) = (output::escape(restarted.host), output::escape(&what(restarted)));
        if output == Output::Json {
            output::json(restarted);
        } else if self.dry_run {
            output::line(format_args!("would restart {what}"));
        } else if restarted.reached == Some(true) {
            output::line(format_args!("restarted {what}"));
        } else if restarted.reached.is_none() {
            output::line(format_args!("{host} was asked to restart {what}"));
        }
        if restarted.reached != Some(false) {
            return Ending::Done;
        }
        let (done, total) = (restarted.done.unwrap_or_default(), restarted.total.unwrap_or_default());
        match &restarted.error {
            Some(error) => output::remark(format_args!(
                "the restart of {host} ended after {done} of {total} processes, what runs stays: {}",
                output::escape(error).replace("\\n", "\n")
            )),
            None => output::remark(format_args!(
                "after {} {host} has restarted {done} of {total} processes and goes on; see `weir status` there",
                output::span(self.wait)
            )),
        }
        Ending::Negative
    }
}

/// `1 gateway and 2 workers of web1`.
fn what(restarted: &Restarted<'_>) -> String {
    let counts = [(restarted.gateways, "gateway"), (restarted.workers, "worker")];
    let counts: Vec<_> =
        counts.iter().filter_map(|(count, name)| Some(output::counted(u64::from((*count)?), name))).collect();
    format!("{} of {}", counts.join(" and "), restarted.host)
}

fn describe(progress: &Progress) -> String {
    let place = progress.place.as_deref().unwrap_or("the rest");
    format!("restarting {} ({} of {} done)", output::escape(place), progress.done, progress.total)
}
