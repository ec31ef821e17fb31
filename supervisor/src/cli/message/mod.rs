//! `weir message`: where one message is.
//!
//! [`trail`](weir_core::queue::trail) looks for it in Redis, [`row`] in PostgreSQL, [`show`] puts both into the order of
//! time.

mod row;
mod show;
mod sighting;

use anyhow::Result;
use clap::Subcommand;

use crate::Ending;
use crate::context::Context;

/// Find out where a message is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir message show 1a2b3c4d5e6f7890abcdef1234567890
  weir message show 3-1732233600000-12")]
pub(crate) struct Message {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(show::Show),
}

impl Message {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        match self.command {
            Command::Show(command) => command.run(context).await,
        }
    }
}
