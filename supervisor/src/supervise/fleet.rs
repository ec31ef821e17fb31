//! The right number of workers: as many as somebody asked for, or as the backlog asks for.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use redis::Pipeline;
use tokio::task::JoinHandle;
use weir_core::queue::{Queue, keys};
use weir_core::shutdown::Shutdown;

use crate::context::Context;
use crate::supervise::board::Board;
use crate::supervise::process::{Kind, Supervised, host};

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

/// The workers of this host.
pub(crate) struct Fleet {
    context: Context,
    board: Arc<Board>,
    queue: Queue,
    range: Range,
    workers: Vec<Worker>,
    /// Numbers that were used for places.
    last_place: usize,
    scaler: Scaler,
}

struct Worker {
    stop: Shutdown,
    task: JoinHandle<bool>,
}

const EVERY: Duration = Duration::from_secs(1);

impl Fleet {
    pub(crate) fn new(context: Context, board: Arc<Board>, queue: Queue, range: Range) -> Self {
        Self { context, board, queue, range, workers: Vec::new(), last_place: 0, scaler: Scaler::default() }
    }

    /// Keeps the fleet at its size until `stop`, then drains all workers.
    pub(crate) async fn run(mut self, stop: Shutdown) {
        let mut wanted = if self.range.min == self.range.max { Wanted::Exactly(self.range.min) } else { Wanted::Auto };
        // What was asked of an earlier supervisor is not asked of this one.
        self.forget_wish().await;
        self.resize(self.range.min);
        let mut tick = tokio::time::interval(EVERY);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            match self.tell_and_ask().await {
                Ok(Some(wish)) if wish != wanted => {
                    tracing::info!(?wish, "the fleet is scaled");
                    self.retire_given_up();
                    wanted = wish;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "fleet"),
            }
            let size = match wanted {
                Wanted::Exactly(size) => size,
                Wanted::Auto => self.automatic().await,
            };
            self.resize(size);
        }
        self.resize(0);
        for worker in self.workers.drain(..) {
            wait(worker).await;
        }
        drop(self.queue.command::<i64>(redis::cmd("DEL").arg(keys::fleet(&host()))).await);
    }

    async fn forget_wish(&self) {
        let forget = self.queue.command::<i64>(redis::cmd("HDEL").arg(keys::fleet(&host())).arg("wanted")).await;
        if let Err(error) = forget {
            tracing::debug!(%error, "fleet");
        }
    }

    fn running(&self) -> usize {
        self.workers.iter().filter(|worker| !worker.stop.is_cancelled() && !worker.task.is_finished()).count()
    }

    fn given_up(&self) -> usize {
        self.workers.iter().filter(|worker| !worker.stop.is_cancelled() && worker.task.is_finished()).count()
    }

    /// Tells the operators how things are, and asks what they want.
    async fn tell_and_ask(&self) -> Result<Option<Wanted>> {
        let key = keys::fleet(&host());
        let fields = [
            ("min", self.range.min.to_string()),
            ("max", self.range.max.to_string()),
            ("running", self.running().to_string()),
            ("given_up", self.given_up().to_string()),
            ("supervisor_pid", std::process::id().to_string()),
            ("beat_ms", crate::output::now_ms().to_string()),
        ];
        let mut pipeline = Pipeline::new();
        pipeline.hset_multiple(&key, &fields).ignore();
        pipeline.pexpire(&key, 30_000).ignore();
        pipeline.hget(&key, "wanted");
        let replies = self.queue.link().pipeline(&mut pipeline).await?;
        let Some(Ok(redis::Value::BulkString(text))) = replies.last() else { return Ok(None) };
        let text = String::from_utf8_lossy(text);
        if text == "auto" {
            return Ok(Some(Wanted::Auto));
        }
        Ok(text.parse().ok().filter(|size| *size <= 256).map(Wanted::Exactly))
    }

    /// The size that the backlog asks for. While nothing is known it stays as it is.
    async fn automatic(&mut self) -> usize {
        let now = self.running().clamp(self.range.min, self.range.max);
        match self.queue.balance().await {
            Ok(balance) => {
                self.scaler.size(now, self.range, balance.backlog(), balance.stored + balance.duplicate, Instant::now())
            }
            Err(_) => now,
        }
    }

    /// Starts workers, or asks the youngest to drain.
    fn resize(&mut self, size: usize) {
        self.workers.retain(|worker| !(worker.stop.is_cancelled() && worker.task.is_finished()));
        while self.running() + self.given_up() < size {
            self.start();
        }
        let mut excess = (self.running() + self.given_up()).saturating_sub(size);
        for worker in self.workers.iter().rev().filter(|worker| !worker.stop.is_cancelled()) {
            if excess == 0 {
                break;
            }
            worker.stop.cancel();
            excess -= 1;
        }
    }

    /// Somebody scaled the fleet: workers that were given up get another chance.
    fn retire_given_up(&mut self) {
        for worker in self.workers.iter().filter(|worker| worker.task.is_finished()) {
            worker.stop.cancel();
        }
        let lost: Vec<_> = self.board.read().processes.into_iter().filter(|role| role.state == "given up").collect();
        for role in lost {
            self.board.remove(&role.name);
        }
    }

    fn start(&mut self) {
        self.last_place += 1;
        let stop = Shutdown::new();
        let supervised = Supervised {
            kind: Kind::Worker,
            place: format!("worker-{}", self.last_place),
            context: self.context.clone(),
            board: self.board.clone(),
            queue: self.queue.clone(),
            stop: stop.clone(),
        };
        self.workers.push(Worker { stop, task: tokio::spawn(supervised.run()) });
    }
}

async fn wait(worker: Worker) {
    if let Err(error) = worker.task.await {
        tracing::error!(%error, "the watch over a worker ended badly");
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
