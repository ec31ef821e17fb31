//! Reads the selected letters of all partitions in the order of their deaths, a page of each at a time.

use std::collections::{BTreeSet, VecDeque};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use weir_core::dead_letter::DeadLetter;
use weir_core::queue::{Queue, entry_id};

use super::filter::Selection;

/// Letters in a page. A letter may have a megabyte.
const PAGE: u64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    OldestFirst,
    NewestFirst,
}

/// One partition's part of a scan.
struct Lane {
    partition: u16,
    /// Selected letters that were read and not given yet.
    page: VecDeque<DeadLetter>,
    /// First and last id of what was not read; none when all was.
    rest: Option<(String, String)>,
}

/// A scan over all partitions. Letters that leave while it goes on are no trouble.
pub(super) struct Scan<'a> {
    queue: &'a Queue,
    selection: &'a Selection,
    order: Order,
    lanes: Vec<Lane>,
    left: u64,
    is_open: bool,
    progress: ProgressBar,
}

impl<'a> Scan<'a> {
    pub(super) fn new(queue: &'a Queue, selection: &'a Selection, order: Order) -> Self {
        Self {
            queue,
            selection,
            order,
            lanes: Vec::new(),
            left: selection.filter.limit.unwrap_or(u64::MAX),
            is_open: false,
            progress: spinner(),
        }
    }

    /// Without a sign of life of its own, for callers that show theirs.
    pub(super) fn quiet(mut self) -> Self {
        self.progress = ProgressBar::hidden();
        self
    }

    /// Beyond the limit of the filter.
    pub(super) fn unlimited(mut self) -> Self {
        self.left = u64::MAX;
        self
    }

    /// The next letter; none when there is no more, or when the limit is reached.
    pub(super) async fn next(&mut self) -> Result<Option<DeadLetter>> {
        if !self.is_open {
            self.open().await?;
            self.is_open = true;
        }
        if self.left == 0 {
            return Ok(None);
        }
        for at in 0..self.lanes.len() {
            self.fill(at).await?;
        }
        let id = |lane: &Lane| lane.page.front().map(|letter| (entry_id::of(&letter.entry), lane.partition));
        let waiting = self.lanes.iter().enumerate().filter_map(|(at, lane)| Some((id(lane)?, at)));
        let next = match self.order {
            Order::OldestFirst => waiting.min(),
            Order::NewestFirst => waiting.max(),
        };
        let Some((_, at)) = next else { return Ok(None) };
        self.left -= 1;
        Ok(self.lanes[at].page.pop_front())
    }

    /// Up to `count` letters.
    pub(super) async fn some(&mut self, count: usize) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        while letters.len() < count {
            match self.next().await? {
                Some(letter) => letters.push(letter),
                None => break,
            }
        }
        Ok(letters)
    }

    async fn open(&mut self) -> Result<()> {
        let named = self.selection.named_places();
        let lane = |partition| Lane { partition, page: VecDeque::new(), rest: None };
        self.lanes = (0..self.queue.partitions()).map(lane).collect();
        if named.is_empty() {
            for lane in &mut self.lanes {
                lane.rest = self.selection.bounds(lane.partition);
            }
            return Ok(());
        }
        for place in named.iter().collect::<BTreeSet<_>>() {
            let found = place.fetch(self.queue, self.selection.shelf()).await?;
            if let Some(letter) = found.filter(|letter| self.selection.matches(letter)) {
                self.lanes[usize::from(place.partition)].page.push_back(letter);
            }
        }
        for lane in &mut self.lanes {
            lane.page.make_contiguous().sort_by_key(|letter| entry_id::of(&letter.entry));
            if self.order == Order::NewestFirst {
                lane.page.make_contiguous().reverse();
            }
        }
        Ok(())
    }

    /// Reads on in one partition until it has a letter to give or is at its end.
    async fn fill(&mut self, at: usize) -> Result<()> {
        while self.lanes[at].page.is_empty() {
            let Some((first, last)) = self.lanes[at].rest.take() else { return Ok(()) };
            let page = self.read(self.lanes[at].partition, &first, &last).await?;
            self.progress.inc(page.len() as u64);
            let lane = &mut self.lanes[at];
            if let Some(end) = page.last().filter(|_| page.len() as u64 == PAGE) {
                let after = format!("({}", end.entry);
                lane.rest = Some(match self.order {
                    Order::OldestFirst => (after, last),
                    Order::NewestFirst => (first, after),
                });
            }
            lane.page.extend(page.into_iter().filter(|letter| self.selection.matches(letter)));
        }
        Ok(())
    }

    async fn read(&self, partition: u16, first: &str, last: &str) -> Result<Vec<DeadLetter>> {
        let shelf = self.selection.shelf();
        Ok(match self.order {
            Order::OldestFirst => self.queue.letters_between(partition, shelf, first, last, PAGE).await?,
            Order::NewestFirst => self.queue.letters_back(partition, shelf, last, first, PAGE).await?,
        })
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}

/// Hidden where standard error is no terminal.
fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} letters read, {elapsed}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
