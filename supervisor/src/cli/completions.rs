//! `weir completions`.

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Ending;

/// Print a completion script for a shell
///
/// Example: weir completions bash > /etc/bash_completion.d/weir
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Ending> {
        let mut command = super::Cli::command();
        clap_complete::generate(self.shell, &mut command, "weir", &mut std::io::stdout());
        Ok(Ending::Done)
    }
}
