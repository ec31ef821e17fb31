//! The menu: one file per command.

mod api;
mod completions;
mod consent;
mod console;
mod dlq;
mod doctor;
mod drill;
mod fleet;
mod gateway;
mod key;
mod message;
mod migrate;
mod profiles;
mod send;
mod status;
mod up;
mod worker;

#[cfg(fuzzing)]
pub use dlq::fuzzing;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use weir_core::planted;
use weir_core::telemetry::LogConfig;

use crate::Ending;
use crate::context::Context;
use crate::output::remark;

/// Takes in any flood of messenger webhooks and lets a steady stream through.
///
/// Exit codes: 0 done · 1 failed · 2 wrong usage or configuration · 3 what was asked for is not there, or a check did
/// not hold · 130 interrupted twice.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Configuration file [default: weir.toml, if there is one; also WEIR_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, by its key in the configuration file; repeatable
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Data folder of `weir up`; other commands find its servers there
    #[arg(long, global = true, value_name = "DIR", env = "WEIR_DATA", default_value = ".weir")]
    pub(crate) data: PathBuf,
    /// Tables for people or JSON for programs
    #[arg(long, global = true, value_name = "FORM", default_value = "table")]
    pub(crate) output: Output,
}

/// Form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Gateway(gateway::Gateway),
    Worker(worker::Worker),
    Api(api::Api),
    Migrate(migrate::Migrate),
    Status(status::Status),
    Fleet(fleet::Fleet),
    Message(message::Message),
    Profiles(profiles::Profiles),
    Key(key::Key),
    Dlq(dlq::Dlq),
    Send(send::Send),
    Doctor(doctor::Doctor),
    Drill(drill::Drill),
    Psql(console::Psql),
    RedisCli(console::RedisCli),
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Ending> {
        let context = Context::new(&self.global)?;
        if planted::PRESENT {
            remark("this build breaks promises on purpose when WEIR_PLANTED says so; it is for drills only");
        }
        self.command.quieted(context.settings.log.clone()).start();
        match self.command {
            Command::Up(command) => command.run(&context).await,
            Command::Gateway(command) => command.run(&context).await,
            Command::Worker(command) => command.run(&context).await,
            Command::Api(command) => command.run(&context).await,
            Command::Migrate(command) => command.run(&context).await,
            Command::Status(command) => command.run(&context).await,
            Command::Fleet(command) => command.run(&context).await,
            Command::Message(command) => command.run(&context).await,
            Command::Profiles(command) => command.run(&context).await,
            Command::Key(command) => command.run(&context).await,
            Command::Dlq(command) => command.run(&context).await,
            Command::Send(command) => command.run(&context).await,
            Command::Doctor(command) => command.run(&context).await,
            Command::Drill(command) => command.run(&context).await,
            Command::Psql(command) => command.run(&context).await,
            Command::RedisCli(command) => command.run(&context).await,
            Command::Completions(command) => command.run(),
        }
    }
}

impl Command {
    /// A command that shows its progress to people does not log what is ordinary, unless it was asked to.
    fn quieted(&self, log: LogConfig) -> LogConfig {
        match self {
            Command::Drill(_) if log.filter == LogConfig::DEFAULT_FILTER => LogConfig { filter: "error".into(), ..log },
            _ => log,
        }
    }
}
