//! `weir fleet scale`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use weir_core::config::Setting;
use weir_core::queue::{Queue, keys};

use super::roster::{Roster, supervisor};
use super::{choose_host, set_field, wait_for};
use crate::Ending;
use crate::cli::Output;
use crate::cli::consent::{self, Preview};
use crate::output;

/// More workers than this on one host are most likely a slip of the finger.
const MANY: u32 = 64;
/// Supervisors do not follow a wish for more.
const MOST: u32 = 256;

/// Set the number of workers of a host, or let its supervisor choose
///
/// Waits until the host has that many; workers that were given up get another chance. `auto` follows the backlog between
/// the bounds that `weir up --workers` gave.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir fleet scale 4")]
pub(crate) struct Scale {
    /// A number, or auto
    #[arg(value_name = "N|auto")]
    wanted: Wanted,
    /// The host [default: the only one that has a supervisor]
    #[arg(long)]
    host: Option<String>,
    /// How long to wait until the fleet has that size; 0s does not wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = <Duration as Setting>::read)]
    wait: Duration,
    /// Do not ask about 0 workers, or more than 64
    #[arg(long)]
    yes: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Auto,
    Number(u32),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Number).map_err(|_| "is neither a number nor auto".into())
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

#[derive(Serialize)]
struct Scaled<'a> {
    host: &'a str,
    wanted: String,
    before: &'a str,
    running: Option<u32>,
    /// The fleet has the wanted size; `null` when nobody waited for it.
    reached: Option<bool>,
    dry_run: bool,
}

impl Scale {
    pub(super) async fn run(self, queue: &Queue, output: Output) -> Result<Ending> {
        self.question_extremes()?;
        let roster = Roster::read(queue).await?;
        let host = choose_host(&roster, self.host.as_deref())?;
        let before = roster.supervisors.iter().find(|supervisor| supervisor.host == host);
        if !self.dry_run {
            let key = keys::fleet(&host);
            set_field(queue, &key, "wanted", self.wanted).await?;
            // A supervisor that has this size already still tries those again that it has given up.
            set_field(queue, &key, "scaled", output::now_ms()).await?;
        }
        let mut scaled = Scaled {
            host: &host,
            wanted: self.wanted.to_string(),
            before: before.map_or("", |supervisor| &supervisor.wanted),
            running: before.and_then(|supervisor| supervisor.running),
            reached: None,
            dry_run: self.dry_run,
        };
        if let (Wanted::Number(number), false) = (self.wanted, self.dry_run || self.wait.is_zero()) {
            let running = self.wait_until(queue, &host, number).await?;
            scaled.reached = Some(running.is_some());
            scaled.running = match running {
                Some(running) => Some(running),
                None => supervisor(queue, &host).await?.and_then(|supervisor| supervisor.running),
            };
        }
        Ok(self.report(output, &scaled))
    }

    fn question_extremes(&self) -> Result<()> {
        let question = match self.wanted {
            Wanted::Number(0) => {
                "With 0 workers nothing is stored until the fleet is scaled up again. Go on?".to_owned()
            }
            Wanted::Number(number) if number > MOST => {
                bail!("{number} workers are more than one host can have: {MOST}")
            }
            Wanted::Number(number) if number > MANY => {
                format!("{number} workers on one host are more than {MANY}. Go on?")
            }
            Wanted::Number(_) | Wanted::Auto => return Ok(()),
        };
        consent::ask(&question, self.yes || self.dry_run, Preview::DryRun)
    }

    async fn wait_until(&self, queue: &Queue, host: &str, number: u32) -> Result<Option<u32>> {
        let what = format!("waiting for {number} workers on {host}");
        wait_for(&what, self.wait, async || {
            let running = supervisor(queue, host).await?.and_then(|supervisor| supervisor.running);
            Ok(running.filter(|running| *running == number))
        })
        .await
    }

    fn report(&self, output: Output, scaled: &Scaled<'_>) -> Ending {
        let host = output::escape(scaled.host);
        if output == Output::Json {
            output::json(scaled);
        } else if self.dry_run {
            output::line(format_args!("would set the wanted workers of {host} to {}", scaled.wanted));
        } else if let (Some(true), Some(running)) = (scaled.reached, scaled.running) {
            output::line(format_args!("{host} has {running} workers"));
        } else if scaled.reached.is_none() {
            output::line(format_args!("the wanted workers of {host} are {}", scaled.wanted));
        }
        if scaled.reached == Some(false) {
            let running = scaled.running.map_or("an unknown number".into(), |running| running.to_string());
            let waited = output::span(self.wait);
            output::remark(format_args!(
                "after {waited} {host} has {running} of {} workers; see `weir fleet list` and the logs of its workers",
                scaled.wanted
            ));
            return Ending::Negative;
        }
        Ending::Done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_wanted_is_read_as_it_is_written(text in "auto|[0-9+-]{0,12}|\\PC{0,9}") {
            if let Ok(wanted) = text.parse::<Wanted>() {
                prop_assert_eq!(wanted.to_string().parse::<Wanted>(), Ok(wanted));
            }
        }
    }
}
