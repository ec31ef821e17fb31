//! The processes of one role on this host, each in a place of its own.

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use weir_core::shutdown::Shutdown;

use crate::supervise::process::{Common, Kind, Replace, Supervised};

/// As many processes as somebody asked for.
pub(crate) struct Crew {
    kind: Kind,
    common: Common,
    members: Vec<Member>,
}

struct Member {
    number: usize,
    stop: Shutdown,
    replace: mpsc::Sender<Replace>,
    task: JoinHandle<bool>,
}

/// Where a process has its place, and how to ask for a new one there.
pub(crate) struct Seat {
    pub(crate) place: String,
    pub(crate) replace: mpsc::Sender<Replace>,
}

impl Crew {
    pub(crate) fn new(kind: Kind, common: Common) -> Self {
        Self { kind, common, members: Vec::new() }
    }

    /// Processes that run, or are about to run again.
    pub(crate) fn running(&self) -> usize {
        self.staying().filter(|member| !member.task.is_finished()).count()
    }

    /// Processes that crashed too often and are not started any more.
    pub(crate) fn given_up(&self) -> usize {
        self.staying().filter(|member| member.task.is_finished()).count()
    }

    fn staying(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.members.iter().filter(|member| !member.stop.is_cancelled())
    }

    /// Starts processes, or asks the youngest to drain.
    pub(crate) fn resize(&mut self, size: usize) {
        self.members.retain(|member| !(member.stop.is_cancelled() && member.task.is_finished()));
        let here = self.staying().count();
        for _ in here..size {
            self.start();
        }
        self.staying().rev().take(here.saturating_sub(size)).for_each(|member| member.stop.cancel());
    }

    /// Processes that were given up get another chance.
    pub(crate) fn revive(&mut self) {
        let size = self.staying().count();
        for member in self.members.iter().filter(|member| !member.stop.is_cancelled() && member.task.is_finished()) {
            self.common.board.remove(&self.place(member.number));
            member.stop.cancel();
        }
        self.resize(size);
    }

    /// The places of all that stay.
    pub(crate) fn seats(&self) -> Vec<Seat> {
        let seat = |member: &Member| Seat { place: self.place(member.number), replace: member.replace.clone() };
        self.staying().map(seat).collect()
    }

    /// Drains all and waits until they are gone.
    pub(crate) async fn stop(mut self) {
        self.resize(0);
        for member in self.members {
            if let Err(error) = member.task.await {
                tracing::error!(%error, "the watch over a process ended badly");
            }
        }
    }

    /// The only gateway has a plain name.
    fn place(&self, number: usize) -> String {
        match (self.kind, number) {
            (Kind::Gateway, 1) => self.kind.name().to_owned(),
            _ => format!("{}-{number}", self.kind.name()),
        }
    }

    /// Starts one in the first place that is free: places have logs, which must not become more and more.
    fn start(&mut self) {
        let taken = |number: &usize| self.members.iter().any(|member| member.number == *number);
        let number = (1..).find(|number| !taken(number)).unwrap_or_default();
        let (stop, (replace, wishes)) = (Shutdown::new(), mpsc::channel(1));
        let supervised = Supervised {
            kind: self.kind,
            place: self.place(number),
            common: self.common.clone(),
            stop: stop.clone(),
            replace: wishes,
            leaving: JoinSet::new(),
        };
        self.members.push(Member { number, stop, replace, task: tokio::spawn(supervised.run()) });
    }
}
