//! Weir's measuring stand: `weir-bench all` starts private servers, measures, and writes a report.
//!
//! All comparisons are ratios of one run on one machine; absolute figures say little about another. Every server under
//! load is a process of its own, so that its processor time and memory can be told from the load's.
//!
//! `load` sends, `stage` has the servers, `limits` says what the parts could give alone, `peers` has other systems that do
//! the same job, `measures` takes the turns, `goals` judges the figures, `report` writes them down.

mod bare;
mod child;
mod goals;
mod limits;
mod load;
mod measures;
mod overload;
mod peers;
mod report;
mod scale;
mod scoreboard;
mod share;
mod slow;
mod stage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
    /// Everything, or the parts that are named; writes target/bench/report.html, report.md and report.json
    All(measures::Run),
    /// The fleet for other rates, reckoned from a report; prints the table of docs/SCALING.md
    Scale(scale::Scale),
    /// Load alone, aimed at any address that takes Weir's messages
    Load(load::command::Load),
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
    /// Few senders beside the overload
    #[command(hide = true)]
    Probe { address: std::net::SocketAddr, seconds: f64 },
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
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(cli.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(format_args!("weir-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Ten thousand connections have an end here and one in the gateway, which inherits the limit.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum {
        // Where it may not be raised, the part that needs it fails and says why.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let mut report = Report::default();
    match command {
        Command::All(parts) => return parts.run().await,
        Command::Scale(scale) => return scale.run(),
        Command::Load(load) => return load.run().await,
        Command::Scoreboard(scoreboard) => return scoreboard.run().await,
        Command::Overload { seconds } => overload::measure(&mut report, seconds).await?,
        Command::Peers { only, seconds, messages } => {
            peers::measure(&mut report, only.as_deref(), seconds, messages).await?;
        }
        Command::Probe { address, seconds } => return overload::probe(address, seconds).await,
        Command::Slow { seconds, connections } => slow::measure(&mut report, seconds, connections).await?,
        Command::ServeBare => return bare::serve().await,
        Command::ServeGateway { durability } => return stage::serve_gateway(durability).await,
        Command::ServeWorker => return stage::serve_worker().await,
    }
    report.finish()
}
