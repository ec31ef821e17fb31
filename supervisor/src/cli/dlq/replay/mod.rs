//! `weir dlq replay`: sends letters to the workers again, at a steady rate, and watches what becomes of them.
//!
//! [`plan`] counts first; [`course`] then moves letters in steps, held back by [`pace`], while [`fates`] finds out
//! which were stored and which died again; [`summary`] says how it ended.

mod course;
mod fates;
mod pace;
mod plan;
mod summary;

use std::time::Duration;

use anyhow::{Result, bail};
use weir_core::config::Setting;
use weir_core::queue::Queue;
use weir_core::shutdown;
use weir_store::Store;

use super::author;
use super::filter::{Filter, Selection};
use crate::Ending;
use crate::cli::consent::{self, Preview};
use crate::context::Context;
use crate::output;
use course::Course;
use fates::Fates;
use pace::{Percent, Rate};
use plan::Plan;

/// Send dead letters to the workers again
///
/// Letters go one way: each is moved only while it is there, so a replay can be interrupted and started again, and two
/// can run at once. A replayed message keeps its id: PostgreSQL decides whether it is new. Letters that die again are
/// not replayed twice in one run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq replay --class constraint --dry-run
  weir dlq replay --signature 1f0a9c3e --canary 1 --rate 500/s --reason 'schema fixed'
  weir dlq replay --older-than 1h --stop-if-failing 5% --yes")]
pub(super) struct Replay {
    /// Every letter, when no filter is given
    #[arg(long)]
    all: bool,
    /// Only show what would be replayed, and how long it would take
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Letters in a second, a minute or an hour: 200/s, 600/m, or unlimited
    #[arg(long, value_name = "RATE", default_value = "200/s")]
    rate: Rate,
    /// First so many, then ten times, then a hundred times as many, then the rest, each step only after all of the one
    /// before were stored
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    canary: Option<u64>,
    /// Stop when more than this share of the replayed messages died again, once 20 fates are known: 5%
    #[arg(long, value_name = "SHARE")]
    stop_if_failing: Option<Percent>,
    /// How long to wait for fates: of the last letters at the end, and of any when steps depend on them; 0 not to
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = <Duration as Setting>::read)]
    wait: Duration,
    /// Why, for the audit stream
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

impl Replay {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        self.filter.must_select(self.all, "replay")?;
        if self.wait.is_zero() && (self.canary.is_some() || self.stop_if_failing.is_some()) {
            bail!("--canary and --stop-if-failing need to know fates: --wait must not be 0");
        }
        let queue = super::open_queue(context).await?;
        let selection = Selection::new(&self.filter, &queue).await?;
        let plan = Plan::make(&queue, &selection).await?;
        if self.dry_run {
            plan.print(context.output, self.rate);
            return Ok(Ending::Done);
        }
        if plan.count() > 0 {
            let letters = output::counted(plan.count(), self.filter.noun());
            consent::ask(&format!("Replay {letters} {}?", self.rate), self.yes, Preview::DryRun)?;
        }
        let fates = self.fates(context, &queue).await?;
        let course = Course {
            queue: &queue,
            selection: &selection,
            author: author(self.reason.as_deref()),
            replay: replay_id(),
            planned: plan.count(),
            rate: self.rate,
            canary: self.canary,
            stop_if_failing: self.stop_if_failing,
            wait: self.wait,
            stop: shutdown::on_signals()?,
        };
        course.run(fates).await.finish(context.output)
    }

    /// What watches the fates, unless nobody wants to know them.
    async fn fates(&self, context: &Context, queue: &Queue) -> Result<Option<Fates>> {
        if self.wait.is_zero() {
            return Ok(None);
        }
        let store = store(context).await;
        Ok(Some(Fates::new(queue.clone(), store).await?))
    }
}

/// PostgreSQL, when it can be used.
async fn store(context: &Context) -> Option<Store> {
    match context.store().await {
        Ok(store) => Some(store),
        Err(error) => {
            let error = output::escape(&format!("{error:#}"));
            output::remark(format_args!("Fates are known as far as Redis tells, not which were stored: {error}"));
            None
        }
    }
}

/// Names a replay in the audit stream, in the entries and in letters that die again.
fn replay_id() -> String {
    let seconds = output::time(output::now_ms()).chars().filter(char::is_ascii_digit).take(14).collect::<String>();
    format!("{seconds}-{:04x}", rand::random::<u16>())
}
