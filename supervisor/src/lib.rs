//! `weir`: every role, the supervisor of the fleet and the operator's commands in one binary.

mod cli;
mod context;
mod http;
mod output;
mod stack_file;
mod supervise;
mod tls;

#[cfg(fuzzing)]
pub use cli::fuzzing;

use std::process::ExitCode;

use clap::Parser as _;
use weir_core::config::ConfigError;
use weir_core::log;
use weir_gateway::{GatewayError, TlsError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a command ends; the exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// 0: done.
    Done,
    /// 3: what was asked for is not there, or a check did not hold.
    Negative,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&error.into());
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(cli.run());
    // A thread that is stuck in a write to a pipe that nobody reads must not keep the process.
    runtime.shutdown_background();
    log::flush();
    match ended {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Negative) => ExitCode::from(3),
        Err(error) => {
            output::complain(&error);
            if is_mistake(&error) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether the configuration is to blame: to start again would not mend it.
fn is_mistake(error: &anyhow::Error) -> bool {
    let tls = error.is::<TlsError>() || matches!(error.downcast_ref(), Some(GatewayError::Tls(_)));
    tls || error.is::<ConfigError>()
}
