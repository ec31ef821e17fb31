//! Load: in a closed loop (so many connections, each with one request at a time) or in an open one (so many requests a
//! second, whatever the answers do, and latency from the moment at which a request was to be sent).
//!
//! `make` makes requests, `wire` exchanges them for answers, `pacer` is the clock of the open loop, `tally` judges the
//! answers, `command` is `weir-bench load`. `paced` has clients that do not hurry.

pub(crate) mod command;

mod make;

mod wire;

mod pacer;

mod tally;

mod paced;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::child::{Watched, cpu_of};
pub(crate) use make::{Maker, Mix, Target};
pub(crate) use paced::{Paced, accepts, idle, idle_over_tls, paced, read_whole, silent};
pub(crate) use tally::Tally;
use wire::Http2;
pub(crate) use wire::{Http1, Wire};

/// What to load, and how.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub(crate) address: SocketAddr,
    pub(crate) target: Target,
    pub(crate) connections: usize,
    /// Streams of each connection over HTTP/2; none is HTTP/1.1.
    pub(crate) streams: Option<usize>,
    /// Messages a second; none is a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) mix: Mix,
    /// Before anything counts.
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

impl Aim {
    /// A closed loop over HTTP/1.1 with the usual messages.
    pub(crate) fn closed(address: SocketAddr, connections: usize, length: Duration) -> Self {
        let mix = Mix::default();
        let target = Target::webhook(mix.batch);
        let warm_up = Duration::from_secs(1);
        Self { address, target, connections, streams: None, rate: None, mix, warm_up, length }
    }

    /// The same messages by the clock.
    pub(crate) fn open(address: SocketAddr, connections: usize, rate: f64, length: Duration) -> Self {
        Self { rate: Some(rate), ..Self::closed(address, connections, length) }
    }

    pub(crate) fn with_mix(self, mix: Mix) -> Self {
        Self { target: Target::webhook(mix.batch), mix, ..self }
    }

    pub(crate) fn over_http2(self, streams: usize) -> Self {
        Self { streams: Some(streams), ..self }
    }
}

/// What a run of load found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) tally: Tally,
    pub(crate) seconds: f64,
    /// Processor time of the load itself.
    pub(crate) own_cpu: Duration,
    /// Processor time of each process that was watched.
    pub(crate) cpu: Vec<Duration>,
}

impl Found {
    /// Accepted messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.tally.accepted as f64 / self.seconds
    }

    /// Processor time of a watched process per accepted message, in microseconds.
    pub(crate) fn micros(&self, watched: usize) -> f64 {
        self.cpu[watched].as_secs_f64() * 1e6 / self.tally.accepted.max(1) as f64
    }

    /// The same of the load itself.
    pub(crate) fn own_micros(&self) -> f64 {
        self.own_cpu.as_secs_f64() * 1e6 / self.tally.accepted.max(1) as f64
    }

    /// An error if more than one message in a hundred was not accepted, or none was.
    pub(crate) fn sound(self) -> Result<Self> {
        let Tally { accepted, refused, failed, silent, .. } = self.tally;
        if accepted == 0 || self.tally.errors() > accepted / 100 {
            bail!("{accepted} were accepted, {refused} refused, {failed} failed, {silent} got no answer");
        }
        Ok(self)
    }
}

/// When answers count.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// How long senders of an open loop may go on after the end with what was due before it.
const GRACE: Duration = Duration::from_secs(2);

/// Loads, and reads the processor time of `watched` at both ends of what counts.
pub(crate) async fn drive(aim: &Aim, watched: &[Watched<'_>]) -> Result<Found> {
    let wires = connect(aim).await?;
    let started = Instant::now();
    let window = Window { from: started + aim.warm_up, until: started + aim.warm_up + aim.length };
    let mut senders = JoinSet::new();
    let run = rand::random();
    let mut ticks = aim.rate.map(|rate| {
        let schedule = pacer::Schedule::new(started, rate / aim.mix.batch.max(1) as f64);
        pacer::start(schedule, wires.len(), window.until).into_iter()
    });
    for (number, wire) in wires.into_iter().enumerate() {
        let maker = Maker::new(&aim.mix, &aim.target, run, number);
        let sender = Sender { wire, maker, window, tally: Tally::default() };
        match ticks.as_mut().and_then(Iterator::next) {
            Some(ticks) => senders.spawn(sender.by_the_clock(ticks)),
            None => senders.spawn(sender.without_pause()),
        };
    }
    tokio::time::sleep_until(window.from.into()).await;
    let before = Reading::take(watched)?;
    tokio::time::sleep_until(window.until.into()).await;
    let after = Reading::take(watched)?;
    let mut tally = Tally::default();
    while let Some(sent) = senders.join_next().await {
        tally.add(&sent?);
    }
    let cpu = before.cpu.iter().zip(&after.cpu).map(|(before, after)| after.saturating_sub(*before)).collect();
    Ok(Found { tally, seconds: aim.length.as_secs_f64(), own_cpu: after.own.saturating_sub(before.own), cpu })
}

/// Accepted messages a second in a closed loop, after a second to warm up; an error if not nearly all are accepted.
pub(crate) async fn run(address: SocketAddr, connections: usize, length: Duration) -> Result<Found> {
    drive(&Aim::closed(address, connections, length), &[]).await?.sound()
}

async fn connect(aim: &Aim) -> Result<Vec<Wire>> {
    let mut wires = Vec::new();
    for _ in 0..aim.connections {
        match aim.streams {
            None => wires.push(Wire::One(Http1::connect(aim.address).await?)),
            Some(streams) => {
                wires.extend(Http2::connect(aim.address, &aim.target, streams).await?.into_iter().map(Wire::Two));
            }
        }
    }
    Ok(wires)
}

struct Reading {
    own: Duration,
    cpu: Vec<Duration>,
}

impl Reading {
    fn take(watched: &[Watched<'_>]) -> Result<Self> {
        Ok(Self { own: cpu_of(std::process::id())?, cpu: watched.iter().map(Watched::cpu).collect::<Result<_>>()? })
    }
}

struct Sender {
    wire: Wire,
    maker: Maker,
    window: Window,
    tally: Tally,
}

impl Sender {
    async fn without_pause(mut self) -> Tally {
        loop {
            let now = Instant::now();
            if now >= self.window.until {
                return self.tally;
            }
            self.send(now).await;
        }
    }

    async fn by_the_clock(mut self, mut ticks: UnboundedReceiver<Instant>) -> Tally {
        while let Some(due) = ticks.recv().await {
            if Instant::now() < self.window.until + GRACE {
                self.send(due).await;
            } else {
                self.tally.unsent += self.maker.batch() as u64;
            }
        }
        self.tally
    }

    /// One request and its answer, which counts if it was due within the window.
    async fn send(&mut self, due: Instant) {
        let bad = self.maker.turn();
        let answer = self.wire.exchange(&self.maker).await;
        let Window { from, until } = self.window;
        let counts = due >= from && due < until;
        match answer {
            Ok(answer) if counts => {
                self.tally.count(answer.status, self.wire.body(), self.maker.batch(), bad, due.elapsed());
            }
            Ok(_) => {}
            Err(_) => {
                self.tally.silent += if counts { self.maker.batch() as u64 } else { 0 };
                if self.wire.renew().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// One connection at a time, and so long for each answer.
    async fn slow_server(each: Duration) -> SocketAddr {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            while stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                tokio::time::sleep(each).await;
                stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn an_open_loop_times_from_when_a_request_was_due() {
        let each = Duration::from_millis(20);
        let address = slow_server(each).await;
        // Twice as many as can be answered: the last one waits for half of all the others.
        let length = Duration::from_millis(600);
        let aim = Aim { warm_up: Duration::ZERO, ..Aim::open(address, 1, 100.0, length) };
        let tally = drive(&aim, &[]).await.unwrap().tally;
        assert_eq!(tally.accepted + tally.unsent, 60);
        assert!(tally.quantile_ms(1.0) > 500.0, "{}", tally.quantile_ms(1.0));
    }

    #[test]
    fn a_run_in_which_nothing_was_accepted_is_no_figure() {
        let tally = Tally::default();
        assert!(Found { tally, seconds: 1.0, own_cpu: Duration::ZERO, cpu: Vec::new() }.sound().is_err());
    }

    #[tokio::test]
    async fn what_nobody_answers_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let aim = Aim { warm_up: Duration::ZERO, ..Aim::closed(address, 2, Duration::from_millis(100)) };
        let found = drive(&aim, &[]).await.unwrap();
        assert!(found.tally.silent > 0 && found.tally.accepted == 0);
        assert!(found.sound().is_err());
    }
}
