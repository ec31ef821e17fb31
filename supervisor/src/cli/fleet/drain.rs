//! `weir fleet drain`.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use weir_core::config::Setting;
use weir_core::queue::{Queue, keys};

use super::roster::{Roster, Worker};
use super::{set_field, wait_for};
use crate::Ending;
use crate::cli::Output;
use crate::output;

/// Ask a worker to finish its batches, hand the rest back and end
///
/// Its supervisor starts another one in its place, unless the fleet is scaled down first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir fleet drain web1-4711")]
pub(crate) struct Drain {
    /// Name of the worker; its beginning is enough when no other begins like it
    name: String,
    /// How long to wait until it is gone; 0s does not wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = <Duration as Setting>::read)]
    wait: Duration,
    /// Say which worker it would be, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Drained<'a> {
    worker: &'a str,
    host: &'a str,
    /// It has ended; `null` when nobody waited for it.
    gone: Option<bool>,
    dry_run: bool,
}

impl Drain {
    pub(super) async fn run(self, queue: &Queue, output: Output) -> Result<Ending> {
        let roster = Roster::read(queue).await?;
        let worker = choose(&roster, &self.name)?;
        if !self.dry_run {
            set_field(queue, &keys::worker(&worker.name), "drain", output::now_ms()).await?;
        }
        let gone = if self.dry_run || self.wait.is_zero() {
            None
        } else {
            let what = format!("waiting for {} to finish", worker.name);
            let gone = wait_for(&what, self.wait, async || is_gone(queue, &worker.name).await).await?;
            Some(gone.is_some())
        };
        let drained = Drained { worker: &worker.name, host: &worker.host, gone, dry_run: self.dry_run };
        self.report(output, &drained, &roster);
        Ok(if gone == Some(false) { Ending::Negative } else { Ending::Done })
    }

    fn report(&self, output: Output, drained: &Drained<'_>, roster: &Roster) {
        let name = output::escape(drained.worker);
        if output == Output::Json {
            output::json(drained);
        } else if self.dry_run {
            output::line(format_args!("would drain {name}"));
        } else if drained.gone == Some(true) {
            output::line(format_args!("{name} has ended"));
        } else if drained.gone.is_none() {
            output::line(format_args!("{name} was asked to end"));
        }
        if drained.gone == Some(false) {
            let waited = output::span(self.wait);
            output::remark(format_args!("{name} still runs after {waited}; see `weir fleet list` and its log"));
        }
        let supervised = roster.supervisors.iter().any(|s| s.alive && s.host == drained.host);
        if supervised && !self.dry_run {
            let host = output::escape(drained.host);
            output::remark(format_args!(
                "the supervisor of {host} starts another worker in its place, unless you scale down: weir fleet scale N"
            ));
        }
    }
}

/// The worker of that name, or the only one whose name begins so.
fn choose<'a>(roster: &'a Roster, name: &str) -> Result<&'a Worker> {
    let begin: Vec<&Worker> = roster.beating().filter(|worker| worker.name.starts_with(name)).collect();
    if let Some(worker) = begin.iter().find(|worker| worker.name == name) {
        return Ok(worker);
    }
    match begin[..] {
        [worker] => Ok(worker),
        [] if roster.silent().any(|worker| worker.name.starts_with(name)) => {
            bail!("{name} sends no heartbeat and cannot be asked: others take over when its lease runs out")
        }
        [] => bail!("no worker's name begins with {name}: see `weir fleet list`"),
        _ => {
            let names: Vec<_> = begin.iter().map(|worker| worker.name.as_str()).collect();
            bail!("several workers' names begin with {name}: {}", names.join(", "))
        }
    }
}

async fn is_gone(queue: &Queue, name: &str) -> Result<Option<()>> {
    let beat: Option<String> = queue.command(redis::cmd("HGET").arg(keys::worker(name)).arg("beat_ms")).await?;
    Ok(beat.is_none().then_some(()))
}
