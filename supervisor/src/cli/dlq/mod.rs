//! `weir dlq`: what operators do with dead letters.
//!
//! [`filter`] says which letters are meant, [`scan`] reads them from all partitions in order, and one file per
//! subcommand does something with them.

mod filter;
mod groups;
mod place;
mod record;
mod scan;

mod edit;
mod export;
mod import;
mod list;
mod purge;
mod replay;
mod show;
mod stats;

#[cfg(fuzzing)]
pub mod fuzzing;

pub(crate) mod render;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use weir_core::queue::keys::META;
use weir_core::queue::letters::Author;
use weir_core::queue::{Queue, QueueError};

use crate::Ending;
use crate::context::Context;

/// Inspect dead letters and send them again
///
/// A dead letter is a message that could not be stored, with all that is known about why. Nothing here is dropped by
/// age or number: a letter stays until it is replayed or purged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq stats                                   what died, grouped by error
  weir dlq list --class data --newer-than 2h       which letters
  weir dlq show 3/1732233600000-12                 all about one
  weir dlq replay --signature 1f0a9c3e --canary 1  send them again, one first")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
    Stats(stats::Stats),
    Replay(Box<replay::Replay>),
    Edit(edit::Edit),
    Purge(purge::Purge),
    Export(export::Export),
    Import(import::Import),
}

impl Dlq {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        match self.command {
            Command::List(command) => command.run(context).await,
            Command::Show(command) => command.run(context).await,
            Command::Stats(command) => command.run(context).await,
            Command::Replay(command) => command.run(context).await,
            Command::Edit(command) => command.run(context).await,
            Command::Purge(command) => command.run(context).await,
            Command::Export(command) => command.run(context).await,
            Command::Import(command) => command.run(context).await,
        }
    }
}

/// The queue, once it is clear that it is there and has the partitions that are configured: with others, a command
/// would overlook letters and look in the wrong places.
pub(crate) async fn open_queue(context: &Context) -> Result<Queue> {
    let queue = context.queue()?;
    let mut ask = redis::cmd("HGET");
    ask.arg(META).arg("partitions");
    let theirs: Option<u16> =
        queue.command(&ask).await.with_context(|| redis_at(context)).context("the queue cannot be read")?;
    let ours = queue.partitions();
    match theirs {
        Some(theirs) if theirs != ours => bail!(
            "{} holds a queue of {theirs} partitions, but redis.partitions is {ours}: add --set redis.partitions={theirs}",
            redis_at(context)
        ),
        _ => Ok(queue),
    }
}

fn redis_at(context: &Context) -> String {
    context.redis_url().map_or_else(|_| "Redis".to_owned(), |url| format!("Redis at {url}"))
}

/// Unix milliseconds on the clock that gave the letters their ids.
pub(crate) async fn redis_now_ms(queue: &Queue) -> Result<u64, QueueError> {
    let (seconds, micros): (u64, u64) = queue.command(&redis::cmd("TIME")).await?;
    Ok(seconds * 1000 + micros / 1000)
}

/// Who is at the keyboard, for the audit stream.
fn author(reason: Option<&str>) -> Author {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| format!("uid {}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Author { who: format!("{user}@{host}"), why: reason.unwrap_or_default().to_owned() }
}
