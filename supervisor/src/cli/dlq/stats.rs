//! `weir dlq stats`.

use anyhow::Result;

use super::filter::{Filter, Selection};
use super::groups::{self, Groups};
use super::scan::Order;
use crate::Ending;
use crate::cli::Output;
use crate::context::Context;
use crate::output;

/// Count dead letters by what they died of
///
/// Letters whose errors differ only in numbers share a signature; its hash is what `--signature` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq stats
  weir dlq stats --newer-than 1h --output json")]
pub(super) struct Stats {
    #[command(flatten)]
    filter: Filter,
}

impl Stats {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        let queue = super::open_queue(context).await?;
        let selection = Selection::new(&self.filter, &queue).await?;
        let mut groups = Groups::default();
        let mut scan = selection.scan(&queue, Order::OldestFirst);
        while let Some(letter) = scan.next().await? {
            groups.add(&letter);
        }
        drop(scan);
        let total = groups.total();
        let sorted = groups.sorted();
        match context.output {
            Output::Json => output::json(&sorted),
            Output::Table => {
                groups::print(&sorted);
                let (letters, signatures) =
                    (output::counted(total, self.filter.noun()), output::counted(sorted.len() as u64, "signature"));
                output::remark(format_args!("{letters}, {signatures}."));
            }
        }
        Ok(Ending::Done)
    }
}
