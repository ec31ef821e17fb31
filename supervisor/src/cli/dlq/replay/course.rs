//! The replay itself: moves letters in steps and stops where it must.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;
use weir_core::dead_letter::DeadLetter;
use weir_core::queue::Queue;
use weir_core::queue::letters::Author;
use weir_core::shutdown::Shutdown;

use super::fates::{Counts, Fates};
use super::pace::{Pace, Percent, Rate};
use super::summary::{End, Summary};
use crate::cli::dlq::filter::Selection;
use crate::cli::dlq::scan::{Order, Scan};

/// Pause between two looks for fates.
const LOOK: Duration = Duration::from_millis(200);

/// Fates that must be known before their share says something.
const ENOUGH: u64 = 20;

/// Letters that may be on their way at once when failing must stop the replay: the most that can fail unnoticed.
const WINDOW: u64 = 500;

/// What a replay does, decided beforehand.
pub(super) struct Course<'a> {
    pub(super) queue: &'a Queue,
    pub(super) selection: &'a Selection,
    pub(super) author: Author,
    /// Id of this replay.
    pub(super) replay: String,
    /// Letters that were counted.
    pub(super) planned: u64,
    pub(super) rate: Rate,
    pub(super) canary: Option<u64>,
    pub(super) stop_if_failing: Option<Percent>,
    /// How long to wait for a fate.
    pub(super) wait: Duration,
    /// The operator's Ctrl-C.
    pub(super) stop: Shutdown,
}

/// A replay under way.
struct Run<'a> {
    course: &'a Course<'a>,
    scan: Scan<'a>,
    pace: Pace,
    fates: Option<Fates>,
    looked: Instant,
    replayed: u64,
    gone: u64,
    bar: ProgressBar,
}

impl Course<'_> {
    /// Replays. However it ends, the summary says what was done.
    pub(super) async fn run(&self, fates: Option<Fates>) -> Summary {
        let mut run = Run {
            course: self,
            scan: self.selection.scan(self.queue, Order::OldestFirst).quiet(),
            pace: Pace::new(self.rate),
            fates,
            looked: Instant::now(),
            replayed: 0,
            gone: 0,
            bar: bar(self.planned),
        };
        let end = match run.steps().await {
            Ok(end) => end,
            Err(error) => End::Broken(error),
        };
        let end = run.last_fates(end).await;
        run.bar.finish_and_clear();
        run.summary(end)
    }
}

impl Run<'_> {
    /// N, ten times N, a hundred times N, the rest; without a canary all at once.
    async fn steps(&mut self) -> Result<End> {
        let canaries = self.course.canary.map(|n| [n, n.saturating_mul(10), n.saturating_mul(100)]);
        for size in canaries.iter().flatten() {
            let before = self.counts();
            match self.step(*size).await? {
                Some(End::Finished) => return Ok(End::Finished),
                Some(end) => return Ok(end),
                None => {}
            }
            if let Some(end) = self.judge_canary(&before).await? {
                return Ok(end);
            }
        }
        Ok(self.step(u64::MAX).await?.unwrap_or(End::Finished))
    }

    /// Replays up to `size` letters; says how it ended unless it did not.
    async fn step(&mut self, size: u64) -> Result<Option<End>> {
        let mut left = size;
        while left > 0 {
            if let Some(end) = self.hold_back().await? {
                return Ok(Some(end));
            }
            let letters = self.scan.some(left.min(self.course.rate.chunk()) as usize).await?;
            if letters.is_empty() {
                return Ok(Some(End::Finished));
            }
            let moved = self.replay(letters).await?;
            self.pace.went(moved);
            left -= moved;
            self.look_now_and_then().await?;
            if self.is_failing() {
                return Ok(Some(End::Failing));
            }
        }
        Ok(None)
    }

    /// Waits until the next letters may go: for the pace, and for fates when too many are unknown.
    async fn hold_back(&mut self) -> Result<Option<End>> {
        let stop = self.course.stop.clone();
        tokio::select! {
            () = stop.cancelled() => return Ok(Some(End::Interrupted)),
            () = self.pace.wait() => {}
        }
        let window = |run: &Self| run.course.stop_if_failing.is_some() && run.under_way() >= WINDOW;
        if window(self) && !self.wait_for_fates(window).await? {
            return Ok(Some(if stop.is_cancelled() { End::Interrupted } else { End::Silent }));
        }
        Ok(self.is_failing().then_some(End::Failing))
    }

    /// Moves letters; gives how many were there.
    async fn replay(&mut self, letters: Vec<DeadLetter>) -> Result<u64> {
        let before = match &mut self.fates {
            Some(fates) => fates.stored_before(&letters).await,
            None => Default::default(),
        };
        let mut by_partition: BTreeMap<u16, Vec<DeadLetter>> = BTreeMap::new();
        for letter in letters {
            by_partition.entry(letter.partition).or_default().push(letter);
        }
        let mut moved = 0;
        for (partition, letters) in by_partition {
            let ids: Vec<_> = letters.iter().map(|letter| letter.entry.as_str()).collect();
            let Course { queue, selection, author, replay, .. } = self.course;
            let new = queue.replay(partition, selection.shelf(), replay, author, &ids).await?;
            for (letter, new) in letters.iter().zip(new) {
                let Some(new) = new else {
                    self.gone += 1;
                    continue;
                };
                moved += 1;
                self.replayed += 1;
                if let Some(fates) = &mut self.fates {
                    fates.track(letter, &new, &before);
                }
            }
        }
        self.bar.set_position(self.replayed);
        Ok(moved)
    }

    fn counts(&self) -> Counts {
        self.fates.as_ref().map(|fates| fates.counts).unwrap_or_default()
    }

    fn under_way(&self) -> u64 {
        self.fates.as_ref().map_or(0, Fates::under_way)
    }

    fn is_failing(&self) -> bool {
        let counts = self.counts();
        let share = self.course.stop_if_failing;
        counts.known() >= ENOUGH && share.is_some_and(|share| share.is_exceeded(counts.failed_again, counts.known()))
    }

    async fn look_now_and_then(&mut self) -> Result<()> {
        if self.looked.elapsed() >= LOOK { self.look().await } else { Ok(()) }
    }

    async fn look(&mut self) -> Result<()> {
        if let Some(fates) = &mut self.fates {
            fates.look().await?;
            self.bar.set_message(words(&fates.counts));
        }
        self.looked = Instant::now();
        Ok(())
    }

    /// Waits for as long as `unsettled` holds. False when no fate became known for too long, or when it was stopped.
    async fn wait_for_fates(&mut self, unsettled: impl Fn(&Self) -> bool) -> Result<bool> {
        let mut deadline = Instant::now() + self.course.wait;
        loop {
            let known = self.counts().known();
            self.look().await?;
            if !unsettled(self) {
                return Ok(true);
            }
            if self.counts().known() > known {
                deadline = Instant::now() + self.course.wait;
            }
            tokio::select! {
                () = self.course.stop.cancelled() => return Ok(false),
                () = tokio::time::sleep_until(deadline) => return Ok(false),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Waits for the fates of a step and says when the next one must not follow.
    async fn judge_canary(&mut self, before: &Counts) -> Result<Option<End>> {
        let all_known = self.wait_for_fates(|run| run.under_way() > 0).await?;
        let step = self.counts().since(before);
        let share = self.course.stop_if_failing.unwrap_or(Percent::NONE);
        if share.is_exceeded(step.failed_again, step.known()) {
            return Ok(Some(End::CanaryFailed));
        }
        let why = if self.course.stop.is_cancelled() { End::Interrupted } else { End::Silent };
        Ok((!all_known).then_some(why))
    }

    /// After the last letter, waits for what is still under way; not when the operator wants to leave.
    async fn last_fates(&mut self, end: End) -> End {
        if matches!(end, End::Interrupted | End::Silent | End::Broken(_)) || self.fates.is_none() {
            return end;
        }
        let result = tokio::time::timeout(self.course.wait, self.wait_for_fates(|run| run.under_way() > 0)).await;
        match result {
            Ok(Err(error)) => End::Broken(error),
            Ok(Ok(_)) | Err(_) => end,
        }
    }

    fn summary(self, end: End) -> Summary {
        // What was counted and not found any more was taken by others in between.
        let missing = self.course.planned.saturating_sub(self.replayed);
        let gone = if matches!(end, End::Finished) { missing.max(self.gone) } else { self.gone };
        let fates = self.fates.as_ref();
        Summary {
            replay: self.course.replay.clone(),
            selected: self.course.planned,
            replayed: self.replayed,
            gone_already: gone,
            fates: fates.map(|fates| fates.counts),
            knows_rows: fates.is_some_and(Fates::knows_rows),
            under_way: fates.map_or(self.replayed, Fates::under_way),
            end,
        }
    }
}

fn words(counts: &Counts) -> String {
    let Counts { stored, there_already, failed_again, processed } = counts;
    format!("{stored} stored, {there_already} there already, {processed} processed, {failed_again} failed again")
}

/// Hidden where standard error is no terminal.
fn bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:20} {human_pos}/{human_len} replayed, {eta} left, {wide_msg}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
