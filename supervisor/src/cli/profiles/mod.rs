//! `weir profiles`: what operators do with profiles. Everything else is the API's.

mod backfill;
mod undo;

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Ending;
use crate::context::Context;

/// Bring employees up to what is known of people
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir profiles backfill --names --dry-run")]
pub(crate) struct Profiles {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    Backfill(backfill::Backfill),
}

impl Profiles {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        match self.act {
            Act::Backfill(command) => command.run(context).await,
        }
    }
}

/// A bar over so many rows, for people at a terminal.
fn bar(length: i64, doing: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {human_pos}/{human_len} ({eta} left)");
    let length = u64::try_from(length).unwrap_or_default();
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(doing);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
