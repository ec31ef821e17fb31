//! `weir fleet`.

mod drain;
mod list;
mod restart;
pub(crate) mod roster;
mod scale;

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use weir_core::queue::Queue;

use crate::Ending;
use crate::context::Context;

/// List the workers, set their number, take one out of service, or restart all in turn
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir fleet list")]
pub(crate) struct Fleet {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List every worker of every host, and the supervisors
    ///
    /// A worker that holds a lease but sends no heartbeat is shown as silent: it hangs, or it died and its lease has not
    /// run out yet.
    #[command(after_help = "Example: weir fleet list --output json")]
    List,
    Scale(scale::Scale),
    Drain(drain::Drain),
    Restart(restart::Restart),
}

impl Fleet {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let queue = context.queue()?;
        match self.act {
            Act::List => list::run(&queue, context.output).await,
            Act::Scale(scale) => scale.run(&queue, context.output).await,
            Act::Drain(drain) => drain.run(&queue, context.output).await,
            Act::Restart(restart) => restart.run(&queue, context.output).await,
        }
    }
}

/// The host whose supervisor is to follow a wish: the one that was named, or the only one.
fn choose_host(roster: &roster::Roster, named: Option<&str>) -> Result<String> {
    let hosts: Vec<&str> = roster.supervisors.iter().filter(|s| s.alive).map(|s| s.host.as_str()).collect();
    if let Some(host) = named {
        if hosts.contains(&host) {
            return Ok(host.to_owned());
        }
        let known = if hosts.is_empty() { "none has".into() } else { hosts.join(", ") };
        bail!("{host} has no running supervisor to follow the wish; hosts that have one: {known}");
    }
    match hosts[..] {
        [host] => Ok(host.to_owned()),
        [] => bail!("no host has a running supervisor: start one with `weir up`, or name a host with --host"),
        _ => bail!("several hosts have a supervisor: choose one with --host: {}", hosts.join(", ")),
    }
}

/// Sets a field of a hash that its owner renews. Should the hash end at this very moment, it must not come back to
/// stay.
async fn set_field(queue: &Queue, key: &str, field: &str, value: impl ToString) -> Result<()> {
    let mut both = redis::pipe();
    both.cmd("HSET").arg(key).arg(field).arg(value.to_string());
    both.cmd("PEXPIRE").arg(key).arg(30_000).arg("NX");
    for reply in queue.link().pipeline(&mut both).await? {
        reply?;
    }
    Ok(())
}

/// Pause between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Looks again and again until `look` gives a value or the time is over; a spinner says what is waited for.
async fn wait_for<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<Option<T>>
where
    F: Future<Output = Result<Option<T>>>,
{
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(LOOK);
    let looks = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let found = tokio::time::timeout(limit, looks).await;
    spinner.finish_and_clear();
    found.ok().transpose()
}
