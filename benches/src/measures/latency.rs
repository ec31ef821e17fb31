//! How long an answer takes below saturation.

use std::time::Duration;

use anyhow::Result;

use super::turns::read_with_durability;
use super::{Scale, Turns};
use crate::limits;
use crate::load::{Aim, Tally, drive};
use crate::report::{Report, Series, shown};
use crate::stage::{self, Gateway, Redis};

pub(super) const ABOUT: &str = "Latency of accept in an open loop: messages come at a fixed rate, whatever the answers do, and \
                                each is timed from the moment at which it was to be sent. Rates are shares of what the \
                                gateway accepts at saturation at level disk; the bare server and level memory get the same \
                                rates.";

const CONNECTIONS: usize = 256;
const SHARES: [u32; 3] = [25, 50, 75];
const SIDES: [(&str, &str); 3] = [("disk", "Weir, disk"), ("memory", "Weir, memory"), ("bare", "bare hyper")];
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let servers = (Redis::on_disk().await?, Redis::in_memory().await?);
    let saturation = match report.found("accept.256.disk.rate") {
        Some(figure) => figure.value,
        None => saturation(&servers.0, scale).await?,
    };
    report.put("latency.saturation", "saturation that the shares are of", "/s", vec![saturation]);
    let mut turns = Turns::default();
    let result = take_turns(report, scale, &servers, saturation, &mut turns).await;
    turns.write(report);
    read_together(report);
    plot(report);
    result
}

async fn saturation(redis: &Redis, scale: &Scale) -> Result<f64> {
    let served = Gateway::DISK.start(&redis.url()).await?;
    let found = drive(&Aim::closed(served.address, CONNECTIONS, scale.turn), &[]).await?.sound()?;
    served.child.end().await;
    Ok(found.rate())
}

async fn take_turns(
    report: &Report,
    scale: &Scale,
    (disk, memory): &(Redis, Redis),
    saturation: f64,
    turns: &mut Turns,
) -> Result<()> {
    for round in 1..=scale.rounds {
        let syncs = limits::disk::measure(Duration::from_secs(1)).await?;
        turns.push("latency.sync.p99", "a sync of the disk, p99", "ms", syncs.p99_ms);
        for share in SHARES {
            let rate = saturation * f64::from(share) / 100.0;
            for (side, title) in SIDES {
                report.step(format_args!("turn {round}: {title} at {share} %"));
                let served = match side {
                    "disk" => started(Gateway::DISK, disk).await?,
                    "memory" => started(Gateway::MEMORY, memory).await?,
                    _ => stage::bare().await?,
                };
                let aim = Aim::open(served.address, CONNECTIONS, rate, scale.turn);
                let tally = drive(&aim, &[]).await?.sound()?.tally;
                served.child.end().await;
                note(turns, share, side, title, &tally);
            }
        }
    }
    Ok(())
}

async fn started(gateway: Gateway, redis: &Redis) -> Result<stage::Served> {
    redis.flush().await?;
    gateway.start(&redis.url()).await
}

fn note(turns: &mut Turns, share: u32, side: &str, title: &str, tally: &Tally) {
    for (what, quantile) in QUANTILES {
        let name = format!("{title} at {share} % of saturation: {what}");
        turns.push(format!("latency.{share}.{side}.{what}"), name, "ms", tally.quantile_ms(quantile));
    }
    let name = format!("{title} at {share} % of saturation: not sent in time");
    turns.push(format!("latency.{share}.{side}.unsent"), name, "", tally.unsent as f64);
}

fn read_together(report: &mut Report) {
    read_with_durability(report, ["latency.saturation".to_owned()]);
    for share in SHARES {
        for (what, _) in QUANTILES {
            let value = |side: &str| report.found(&format!("latency.{share}.{side}.{what}")).map(|found| found.value);
            let (Some(disk), Some(memory)) = (value("disk"), value("memory")) else { continue };
            report.beside(
                &format!("latency.{share}.disk.{what}"),
                format_args!("durable ÷ memory {}", shown(disk / memory)),
            );
        }
    }
}

fn plot(report: &mut Report) {
    for (what, title) in [("p50", "half of all answers"), ("p99", "99 of 100 answers")] {
        let line = |(side, name): (&str, &str)| {
            let value = |share: u32| report.found(&format!("latency.{share}.{side}.{what}")).map(|found| found.value);
            Series::line(name, SHARES.into_iter().filter_map(|share| Some((f64::from(share), value(share)?))).collect())
        };
        let series = SIDES.map(line).into();
        report.plot(format!("Time within which {title} come ({what})"), ["% of saturation", "ms"], series);
    }
}
