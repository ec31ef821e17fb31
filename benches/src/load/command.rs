//! `weir-bench load`: the load alone, for whoever wants to aim it at something.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::Uri;
use serde_json::{Value, json};

use super::{Aim, Found, Mix, Target, drive};
use crate::report::say;

/// What to load, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// http://host:port, with Weir's own path unless another is given
    url: Uri,
    /// Connections
    #[arg(long, short, default_value_t = 64)]
    connections: usize,
    /// Messages a second; without it each connection sends as fast as answers come
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds that count
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before them
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// HTTP/2 without TLS, with so many streams at a time on each connection
    #[arg(long, value_name = "STREAMS", num_args = 0..=1, default_missing_value = "32")]
    http2: Option<usize>,
    #[command(flatten)]
    mix: Mix,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Load {
    pub(crate) async fn run(self) -> Result<()> {
        let aim = self.aim().await?;
        let found = drive(&aim, &[]).await?;
        say(if self.json { json(&found).to_string() } else { text(&found) });
        Ok(())
    }

    async fn aim(&self) -> Result<Aim> {
        let Mix { batch, clients, zipf, duplicates, bad, .. } = self.mix;
        ensure!(self.url.scheme_str() == Some("http"), "{}: only http:// can be loaded", self.url);
        ensure!(self.connections > 0 && self.http2 != Some(0), "there must be a connection and a stream");
        ensure!(self.seconds > 0.0 && self.rate.is_none_or(|rate| rate > 0.0), "seconds and rate must be above 0");
        ensure!(self.warm_up >= 0.0, "the seconds before must not be negative");
        ensure!((1..=1000).contains(&batch) && clients > 0, "a batch has 1 to 1000 messages, of at least one client");
        ensure!(clients <= 10_000_000, "there are at most 10,000,000 clients: phones have seven digits of their own");
        ensure!((0.0..=1.0).contains(&duplicates) && (0.0..=1.0).contains(&bad), "shares are between 0 and 1");
        ensure!(zipf >= 0.0, "the exponent of Zipf's law must not be negative");
        let mut target = Target::webhook(batch);
        target.host = self.url.authority().context("the URL names no host")?.to_string();
        if self.url.path() != "/" {
            target.path = self.url.path().to_owned();
        }
        Ok(Aim {
            address: self.address().await?,
            target,
            connections: self.connections,
            streams: self.http2,
            rate: self.rate,
            mix: self.mix.clone(),
            warm_up: Duration::from_secs_f64(self.warm_up),
            length: Duration::from_secs_f64(self.seconds),
        })
    }

    async fn address(&self) -> Result<SocketAddr> {
        let host = self.url.host().context("the URL names no host")?;
        let host = (host.trim_matches(['[', ']']), self.url.port_u16().unwrap_or(80));
        let mut found = tokio::net::lookup_host(host).await.with_context(|| format!("{} is not known", self.url))?;
        found.next().with_context(|| format!("{} has no address", self.url))
    }
}

const PERCENTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

fn text(found: &Found) -> String {
    let tally = &found.tally;
    let mut lines = vec![
        format!("accepted         {:>12.1} /s   {}", found.rate(), tally.accepted),
        format!("refused rightly  {:>12}", tally.refused_rightly),
        format!("refused          {:>12}", tally.refused),
        format!("failed (5xx)     {:>12}", tally.failed),
        format!("no answer        {:>12}", tally.silent),
        format!("not sent in time {:>12}", tally.unsent),
    ];
    let latency = |(name, share): (&str, f64)| format!("{name:<16} {:>12.3} ms", tally.quantile_ms(share));
    lines.extend(PERCENTILES.map(latency));
    lines.push(format!("load's processor {:>12.1} us per message", found.own_micros()));
    lines.join("\n")
}

fn json(found: &Found) -> Value {
    let tally = &found.tally;
    let mut json = json!({
        "accepted_per_second": found.rate(),
        "accepted": tally.accepted,
        "refused_rightly": tally.refused_rightly,
        "refused": tally.refused,
        "failed": tally.failed,
        "silent": tally.silent,
        "unsent": tally.unsent,
        "load_micros_per_message": found.own_micros(),
    });
    let latencies = PERCENTILES.map(|(name, share)| (name.to_owned(), Value::from(tally.quantile_ms(share))));
    json["latency_ms"] = latencies.into_iter().collect();
    json
}
