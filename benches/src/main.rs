//! Weir's measuring stand: `weir-bench all` starts private servers, measures, and prints a table.
//!
//! All comparisons are ratios of one run on one machine; absolute figures say little about another. Every server under
//! load is a process of its own, so that its processor time and memory can be told from the load's.

mod accept;
mod bare;
mod child;
mod dedupe;
mod drain;
mod load;
mod overload;
mod peers;
mod queue;
mod report;
mod scoreboard;
mod slow;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Weir on this machine
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything; writes target/bench/report.json too
    All {
        /// Seconds of load for each figure
        #[arg(long, default_value_t = 15)]
        seconds: u64,
        /// Messages of the backlog to drain
        #[arg(long, default_value_t = 1_000_000)]
        backlog: usize,
    },
    /// Accepted a second against a bare hyper server, processor time, memory
    Accept {
        /// Seconds of load for each figure
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// Stored a second from a backlog
    Drain {
        /// Messages of the backlog to drain
        #[arg(long, default_value_t = 1_000_000)]
        backlog: usize,
    },
    /// Bytes per remembered id
    Dedupe,
    /// Raw calls of the enqueue function
    Queue {
        /// Seconds of load for each figure
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// What good clients notice of slow ones; needs slowhttptest
    Slow {
        /// Seconds of each phase
        #[arg(long, default_value_t = 7)]
        seconds: u64,
        /// Slow connections; about one in twenty has just been closed at any moment
        #[arg(long, default_value_t = 2100)]
        connections: usize,
    },
    /// Twice and five times as much as can be taken; needs taskset and two cores
    Overload {
        /// Seconds of each phase
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Other systems that do the same job; installs them with npm, pip and cargo
    #[command(hide = true)]
    Peers {
        /// Only the one of this folder of benches/peers
        #[arg(long)]
        only: Option<String>,
        /// Seconds of load
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Messages of the backlog to drain
        #[arg(long, default_value_t = 20_000)]
        messages: usize,
    },
    /// What Weir promises under faults, in figures; takes most of an hour
    Scoreboard(scoreboard::Scoreboard),
    /// A server under load: a bare hyper server
    #[command(hide = true)]
    ServeBare,
    /// A server under load: a gateway
    #[command(hide = true)]
    ServeGateway {
        #[arg(long)]
        durability: weir_core::queue::server::Durability,
    },
    /// A worker under load
    #[command(hide = true)]
    ServeWorker,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(cli.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(format_args!("weir-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let mut report = Report::default();
    match command {
        Command::All { seconds, backlog } => {
            accept::measure(&mut report, seconds).await?;
            queue::measure(&mut report, seconds).await?;
            dedupe::measure(&mut report).await?;
            drain::measure(&mut report, backlog).await?;
        }
        Command::Accept { seconds } => accept::measure(&mut report, seconds).await?,
        Command::Drain { backlog } => drain::measure(&mut report, backlog).await?,
        Command::Queue { seconds } => queue::measure(&mut report, seconds).await?,
        Command::Scoreboard(scoreboard) => return scoreboard.run().await,
        Command::Overload { seconds } => overload::measure(&mut report, seconds).await?,
        Command::Peers { only, seconds, messages } => {
            peers::measure(&mut report, only.as_deref(), seconds, messages).await?;
        }
        Command::Dedupe => dedupe::measure(&mut report).await?,
        Command::Slow { seconds, connections } => slow::measure(&mut report, seconds, connections).await?,
        Command::ServeBare => return bare::serve().await,
        Command::ServeGateway { durability } => return accept::serve_gateway(durability).await,
        Command::ServeWorker => return drain::serve_worker().await,
    }
    report.finish()
}
