//! `weir send`.

mod arrival;
mod proof;
mod sender;
mod summary;
mod tally;
mod traffic;

use std::convert::Infallible;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use secrecy::SecretString;
use tokio::task::JoinSet;
use weir_core::config::Setting;
use weir_core::shutdown::{self, Shutdown};

use crate::Ending;
use crate::context::Context;
use crate::http::{Connection, Target};
use crate::stack_file::StackFile;
use arrival::Arrival;
use proof::Proof;
use sender::Plan;
use summary::Summary;
use tally::Tally;
use traffic::Traffic;

/// Where a gateway listens when nobody says otherwise.
const DEFAULT: &str = "127.0.0.1:8095";

/// Send sample traffic to the gateway and check that all of it arrives
///
/// What is answered with 429 or 503, or not at all, is sent again with the same id. At the end every accepted message
/// must be a row or a dead letter; exit code 3 when one is missing, was refused, or nobody knows.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir send --count 10000 --rate 2000/s --duplicates 5")]
pub(crate) struct Send {
    /// Messages
    #[arg(long, value_name = "N", default_value = "1000")]
    count: NonZeroU64,
    /// Messages a second; as fast as it goes without it
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    concurrency: u16,
    /// Send so many messages in one request
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    batch: Option<u64>,
    /// Share of messages that are sent again, in percent
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    duplicates: f64,
    /// Clients that write them [default: one for 50 messages, 100 at least, so that the limit of a client is kept]
    #[arg(long, value_name = "N")]
    clients: Option<NonZeroU64>,
    /// The source to send as
    #[arg(long, value_name = "NAME", default_value = weir_gateway::config::MESSENGER)]
    source: String,
    /// Address of the gateway [default: that of `weir up`, else http://127.0.0.1:8095]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Secret of the source; the environment keeps it out of the list of processes [default: as configured]
    #[arg(long, value_name = "SECRET", env = "WEIR_SEND_SECRET", hide_env_values = true, value_parser = secret)]
    secret: Option<SecretString>,
    /// Header that carries the secret [default: as configured]
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
    /// The same seed makes the same messages [default: the present time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How long a message is tried
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = <Duration as Setting>::read)]
    give_up: Duration,
    /// How long to wait while no further message arrives; 0s does not check at all
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = <Duration as Setting>::read)]
    wait: Duration,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.strip_suffix("/s").unwrap_or(text).parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("is no rate such as 500/s".into()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("is not between 0 and 100".into()),
    }
}

fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text.to_owned()))
}

impl Send {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let stack = StackFile::read(&context.data)?;
        let certificate = context.certificate(stack.as_ref());
        let target = Target::parse(&self.url(context, stack), certificate.as_deref())?;
        let stop = shutdown::on_signals()?;
        let plan = Arc::new(self.plan(context, stop.clone())?);
        ask_gateway(&target, &plan.path).await?;
        let mut tally = send_all(&plan, &target, self.concurrency).await;
        plan.progress.finish_and_clear();
        let took = plan.started.elapsed();
        let arrival = self.check(context, &plan.traffic, &tally, &stop).await?;
        let good = tally.is_clean() && arrival.is_good() && !stop.is_cancelled();
        Summary::new(&target, &plan, took, &mut tally, arrival).print(context.output);
        Ok(if good { Ending::Done } else { Ending::Negative })
    }

    fn url(&self, context: &Context, stack: Option<StackFile>) -> String {
        let running = || stack.and_then(|stack| stack.gateway.into_iter().next());
        self.url.clone().or_else(running).unwrap_or_else(|| format!("{}://{DEFAULT}", context.scheme()))
    }

    fn plan(&self, context: &Context, stop: Shutdown) -> Result<Plan> {
        let count = self.count.get();
        let proof =
            Proof::new(&self.source, &context.settings.gateway.sources, self.secret.clone(), self.header.as_deref())?;
        let path = match self.source.as_str() {
            weir_gateway::config::MESSENGER => "/api/v1/webhook".to_owned(),
            source => format!("/in/{source}"),
        };
        Ok(Plan {
            traffic: Traffic {
                source: self.source.clone(),
                seed: self.seed.unwrap_or_else(crate::output::now_ms),
                clients: self.clients.map_or((count / 50).max(100), NonZeroU64::get),
                duplicates: self.duplicates,
            },
            count,
            rate: self.rate,
            batch: self.batch,
            path: if self.batch.is_some() { format!("{path}/batch") } else { path },
            proof,
            give_up: self.give_up,
            started: Instant::now(),
            next: AtomicU64::new(0),
            progress: bar(count, "sent"),
            stop,
        })
    }

    async fn check(&self, context: &Context, traffic: &Traffic, tally: &Tally, stop: &Shutdown) -> Result<Arrival> {
        if self.wait.is_zero() {
            return Ok(Arrival::unchecked("--wait 0s"));
        }
        let checking = arrival::check(context, traffic, tally, self.wait);
        let checked = stop.run_until_cancelled(checking).await;
        checked.unwrap_or_else(|| Ok(Arrival::unchecked("interrupted")))
    }
}

/// Says at once when there is no gateway at all, or one that does not know the source.
async fn ask_gateway(target: &Target, path: &str) -> Result<()> {
    match Connection::new(target.clone()).get(path).await {
        Err(error) => {
            bail!("no gateway can be asked: {error}; start one with `weir up`, or give its address with --url")
        }
        Ok(answer) if answer.status == hyper::StatusCode::NOT_FOUND => {
            bail!("{target} does not know {path}: is it a gateway, and is the source configured there?")
        }
        Ok(_) => Ok(()),
    }
}

async fn send_all(plan: &Arc<Plan>, target: &Target, concurrency: u16) -> Tally {
    let mut senders = JoinSet::new();
    for _ in 0..concurrency {
        senders.spawn(sender::run(plan.clone(), Connection::new(target.clone())));
    }
    let mut all = Tally::default();
    for tally in senders.join_all().await {
        all.add(tally);
    }
    all
}

/// A progress bar on standard error; nothing is drawn where that is no terminal.
fn bar(length: u64, what: &'static str) -> ProgressBar {
    let pace =
        |state: &ProgressState, out: &mut dyn fmt::Write| write!(out, "{:.0}/s", state.per_sec()).unwrap_or_default();
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} {msg}, {pace}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.with_key("pace", pace)).with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_written_with_or_without_its_unit() {
        assert_eq!((rate("500/s"), rate("0.5")), (Ok(500.0), Ok(0.5)));
        assert!(rate("0").is_err() && rate("-1/s").is_err() && rate("fast").is_err() && rate("inf").is_err());
    }
}
