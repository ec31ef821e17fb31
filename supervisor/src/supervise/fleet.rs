//! The gateways, and the right number of workers: as many as somebody asked for, or as the backlog asks for. Restarts
//! them one after the other when somebody wishes it.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Result;
use redis::Pipeline;
use tokio::sync::{mpsc, watch};
use weir_core::queue::{Queue, keys};
use weir_core::shutdown::Shutdown;

use crate::supervise::crew::Crew;
use crate::supervise::process::{Common, Kind, host};
use crate::supervise::roll::{self, Progress, Roles, Wish};

/// Between how many workers the fleet may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

/// The text is no number of workers.
#[derive(Debug, thiserror::Error)]
#[error("write a number of workers such as 2, or a range such as 1..8")]
pub(crate) struct NoRange;

impl FromStr for Range {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n <= 256).ok_or(NoRange);
        let (min, max) = (number(min)?, number(max)?);
        if min <= max && max > 0 { Ok(Self { min, max }) } else { Err(NoRange) }
    }
}

/// How many workers somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Auto,
    Exactly(usize),
}

impl Wanted {
    fn read(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            _ => text.parse().ok().filter(|size| *size <= 256).map(Self::Exactly),
        }
    }
}

/// The gateways and workers of this host.
pub(crate) struct Fleet {
    queue: Queue,
    range: Range,
    gateways: Crew,
    workers: Crew,
    scaler: Scaler,
    wanted: Wanted,
    /// When somebody said so.
    scaled: Option<String>,
    /// The restart that was asked for last.
    restart: Option<String>,
    progress: watch::Sender<Progress>,
}

/// What operators have asked for.
struct Wishes {
    wanted: Option<Wanted>,
    scaled: Option<String>,
    restart: Option<Wish>,
}

const EVERY: Duration = Duration::from_secs(1);

impl Fleet {
    /// Starts the gateways, which stay as many, and the smallest number of workers.
    pub(crate) fn start(common: &Common, gateways: usize, range: Range) -> Self {
        let mut fleet = Self {
            queue: common.queue.clone(),
            range,
            gateways: Crew::new(Kind::Gateway, common.clone()),
            workers: Crew::new(Kind::Worker, common.clone()),
            scaler: Scaler::default(),
            wanted: if range.min == range.max { Wanted::Exactly(range.min) } else { Wanted::Auto },
            scaled: None,
            restart: None,
            progress: watch::Sender::new(Progress { ended: true, ..Progress::default() }),
        };
        fleet.gateways.resize(gateways);
        fleet.workers.resize(range.min);
        fleet
    }

    /// Keeps the fleet as it is wanted until `stop`; each of `hangups` asks for a restart of everything. Then drains all:
    /// the gateways first, as messages come from them.
    pub(crate) async fn run(mut self, stop: Shutdown, mut hangups: mpsc::Receiver<()>) {
        // What was asked of an earlier supervisor is not asked of this one.
        stop.run_until_cancelled(self.forget_wishes()).await;
        let mut tick = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = hangups.recv() => self.restart_by_signal(),
                _ = tick.tick() => {
                    if stop.run_until_cancelled(self.look()).await.is_none() {
                        break;
                    }
                }
            }
        }
        self.gateways.stop().await;
        self.workers.stop().await;
        drop(self.queue.command::<i64>(redis::cmd("DEL").arg(keys::fleet(&host()))).await);
    }

    async fn forget_wishes(&self) {
        let mut forget = redis::cmd("HDEL");
        forget.arg(keys::fleet(&host())).arg(&["wanted", "scaled", "restart", "progress"]);
        if let Err(error) = self.queue.command::<i64>(&forget).await {
            tracing::debug!(%error, "fleet");
        }
    }

    /// Follows wishes and the backlog.
    async fn look(&mut self) {
        self.queue.link().follow().await;
        match self.tell_and_ask().await {
            Ok(wishes) => {
                self.scale(wishes.wanted, wishes.scaled);
                self.restart(wishes.restart);
            }
            Err(error) => tracing::debug!(%error, "fleet"),
        }
        let size = match self.wanted {
            Wanted::Exactly(size) => size,
            Wanted::Auto => self.automatic().await,
        };
        self.workers.resize(size);
    }

    /// Takes the size that somebody wants. Each time, also when it stays as it was, those that were given up get another
    /// chance.
    fn scale(&mut self, wanted: Option<Wanted>, scaled: Option<String>) {
        let wanted = wanted.unwrap_or(self.wanted);
        if wanted != self.wanted || scaled != self.scaled {
            tracing::info!(?wanted, "the fleet is scaled");
            self.workers.revive();
            (self.wanted, self.scaled) = (wanted, scaled);
        }
    }

    /// Begins a restart that was asked for, unless one goes on: then it waits its turn.
    fn restart(&mut self, wish: Option<Wish>) {
        let Some(wish) = wish.filter(|wish| self.restart.as_ref() != Some(&wish.id)) else { return };
        if self.progress.borrow().ended {
            self.restart = Some(wish.id.clone());
            self.roll(wish);
        }
    }

    fn restart_by_signal(&mut self) {
        if self.progress.borrow().ended {
            self.roll(Wish { id: "signal".into(), roles: Roles { gateways: true, workers: true } });
        } else {
            tracing::warn!("SIGHUP: a restart goes on already");
        }
    }

    fn roll(&mut self, wish: Wish) {
        tracing::info!(%wish, "restarting");
        let mut seats = Vec::new();
        for (crew, is_meant) in [(&mut self.gateways, wish.roles.gateways), (&mut self.workers, wish.roles.workers)] {
            if is_meant {
                crew.revive();
                seats.extend(crew.seats());
            }
        }
        self.progress.send_modify(|now| now.ended = false);
        tokio::spawn(roll::roll(wish.id, seats, self.progress.clone()));
    }

    /// Tells the operators how things are, and asks what they want.
    async fn tell_and_ask(&self) -> Result<Wishes> {
        let key = keys::fleet(&host());
        let fields = [
            ("min", self.range.min.to_string()),
            ("max", self.range.max.to_string()),
            ("running", self.workers.running().to_string()),
            ("gateways", self.gateways.running().to_string()),
            ("given_up", (self.gateways.given_up() + self.workers.given_up()).to_string()),
            ("supervisor_pid", std::process::id().to_string()),
            ("progress", serde_json::to_string(&*self.progress.borrow())?),
            ("beat_ms", crate::output::now_ms().to_string()),
        ];
        let mut pipeline = Pipeline::new();
        pipeline.hset_multiple(&key, &fields).ignore();
        pipeline.pexpire(&key, 30_000).ignore();
        for wish in ["restart", "scaled", "wanted"] {
            pipeline.hget(&key, wish);
        }
        let mut replies = self.queue.link().pipeline(&mut pipeline).await?.into_iter().rev();
        let mut text = || match replies.next() {
            Some(Ok(redis::Value::BulkString(text))) => String::from_utf8(text).ok(),
            _ => None,
        };
        Ok(Wishes {
            wanted: text().and_then(|text| Wanted::read(&text)),
            scaled: text(),
            restart: text().and_then(|text| text.parse().ok()),
        })
    }

    /// The size that the backlog asks for. While nothing is known it stays as it is.
    async fn automatic(&mut self) -> usize {
        let now = self.workers.running().clamp(self.range.min, self.range.max);
        match self.queue.balance().await {
            Ok(balance) => {
                self.scaler.size(now, self.range, balance.backlog(), balance.stored + balance.duplicate, Instant::now())
            }
            Err(_) => now,
        }
    }
}

/// Decides from backlog and drain rate how many workers there should be.
#[derive(Default)]
struct Scaler {
    /// Time, backlog and finished messages of the last looks.
    looks: VecDeque<(Instant, u64, u64)>,
    idle_since: Option<Instant>,
    changed: Option<Instant>,
}

/// A backlog that takes longer than this to drain asks for another worker.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks that the rates are taken from.
const LOOKS: usize = 4;

/// Pause after a change: a new worker needs time to show.
const SETTLE: Duration = Duration::from_secs(5);

/// Time without backlog after which a worker may go.
const IDLE: Duration = Duration::from_secs(60);

impl Scaler {
    fn size(&mut self, now: usize, range: Range, backlog: u64, finished: u64, at: Instant) -> usize {
        self.looks.push_back((at, backlog, finished));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        let Some((then, before, finished_then)) = self.looks.front().copied().filter(|_| self.looks.len() == LOOKS)
        else {
            return now;
        };
        let seconds = (at - then).as_secs_f64().max(0.001);
        let rate = finished.saturating_sub(finished_then) as f64 / seconds;
        let late = backlog as f64 > (rate * PATIENCE.as_secs_f64()).max(1000.0) && backlog >= before / 2;
        let idle = backlog as f64 <= rate.max(1.0);
        self.idle_since = if idle { self.idle_since.or(Some(at)) } else { None };
        let may_change = self.changed.is_none_or(|changed| at - changed >= SETTLE);
        let target = match self.idle_since {
            _ if !may_change => now,
            _ if late => now + 1,
            Some(since) if at - since >= IDLE => now.saturating_sub(1),
            _ => now,
        };
        let target = target.clamp(range.min, range.max);
        if target != now {
            tracing::info!(from = now, to = target, backlog, rate, "the backlog asks for another number of workers");
            self.changed = Some(at);
            self.idle_since = None;
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: Range = Range { min: 1, max: 3 };

    #[test]
    fn a_range_is_read_as_people_write_it() {
        assert_eq!("2".parse::<Range>().unwrap(), Range { min: 2, max: 2 });
        assert_eq!("1..8".parse::<Range>().unwrap(), Range { min: 1, max: 8 });
        assert_eq!("0..4".parse::<Range>().unwrap(), Range { min: 0, max: 4 });
        for text in ["", "0", "8..1", "1..", "-1", "9999"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    /// Plays looks of one second each and gives the sizes.
    fn play(mut size: usize, looks: impl Iterator<Item = (u64, u64)>) -> Vec<usize> {
        let (mut scaler, start) = (Scaler::default(), Instant::now());
        let step = |(second, (backlog, finished)): (u64, (u64, u64))| {
            size = scaler.size(size, RANGE, backlog, finished, start + Duration::from_secs(second));
            size
        };
        (0..).zip(looks).map(step).collect()
    }

    #[test]
    fn a_backlog_that_drains_too_slowly_asks_for_workers_up_to_the_limit() {
        let sizes = play(1, (0..30).map(|second| (100_000, second * 1000)));
        assert_eq!(sizes.last(), Some(&3));
        assert!(sizes[..3].iter().all(|size| *size == 1));
    }

    #[test]
    fn a_small_backlog_asks_for_nobody() {
        assert!(play(1, (0..60).map(|second| (500, second * 1000))).iter().all(|size| *size == 1));
    }

    #[test]
    fn a_minute_without_backlog_lets_a_worker_go_down_to_the_minimum() {
        let sizes = play(3, (0..300).map(|_| (0, 0)));
        assert!(sizes[..50].iter().all(|size| *size == 3));
        assert_eq!(sizes.last(), Some(&1));
    }

    proptest! {
        #[test]
        fn a_range_is_never_empty_nor_too_large(text in "[0-9]{0,4}(\\.\\.)?[0-9]{0,4}|\\PC{0,9}") {
            if let Ok(Range { min, max }) = text.parse::<Range>() {
                prop_assert!(min <= max && (1..=256).contains(&max));
                prop_assert_eq!(format!("{min}..{max}").parse::<Range>().unwrap(), Range { min, max });
            }
        }
    }
}
