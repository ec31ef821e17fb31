//! A batch over the primaries of a Redis Cluster: each gets the calls of its partitions in one round trip, all at once.
//!
//! What one primary does not accept or does not answer is its partitions' alone. A call that meets a slot that has moved
//! was not executed and goes where the slot is; a call that may have been executed is never sent again.

use std::time::Instant;

use futures_util::future::join_all;
use redis::{Pipeline, RedisResult, Value};

use super::{EnqueueError, Enqueued, Enqueuer, Group, NewEntry, ROUNDS, Reply, doubt, never, refuse};
use crate::queue::branches::{Branches, REDIRECTS, Way, never as astray};
use crate::queue::slots::slot_of;
use crate::queue::{Node, QueueError};

type Results = [Result<Enqueued, EnqueueError>];

/// What goes to one primary in one round trip.
struct Share {
    way: Way,
    groups: Vec<Group>,
}

impl Share {
    /// Puts a partition's entries with the others that go the same way.
    fn add(shares: &mut Vec<Self>, way: Way, group: Group) {
        match shares.iter_mut().find(|share| share.way == way) {
            Some(share) => share.groups.push(group),
            None => shares.push(Self { way, groups: vec![group] }),
        }
    }
}

impl Enqueuer {
    /// Appends the entries of `groups`. A batch that is sent somewhere else, or that has to ask again, has as long for all
    /// of it as one answer may take.
    pub(super) async fn spread(
        &self,
        branches: &Branches,
        entries: &[NewEntry],
        groups: Vec<Group>,
        results: &mut Results,
    ) {
        let deadline = Instant::now() + branches.timeout();
        let mut shares = self.shares(branches, groups, results).await;
        for _ in 0..ROUNDS + REDIRECTS {
            let answers = join_all(shares.iter().map(|share| self.send(branches, share, entries))).await;
            let mut next = Vec::new();
            for (share, answer) in shares.into_iter().zip(answers) {
                self.settle(branches, share, answer, entries, results, &mut next).await;
            }
            shares = next;
            if shares.is_empty() || Instant::now() >= deadline {
                break;
            }
        }
        for share in shares {
            for group in share.groups {
                let slot = self.slot(group.0);
                refuse(&[group], results, &if share.way.asking { astray(slot) } else { never() }.into());
            }
        }
    }

    fn slot(&self, partition: u16) -> u16 {
        slot_of(self.queue.keys(partition).ingest.as_bytes())
    }

    async fn shares(&self, branches: &Branches, groups: Vec<Group>, results: &mut Results) -> Vec<Share> {
        let mut shares = Vec::new();
        for group in groups {
            match branches.way(self.slot(group.0)).await {
                Ok(way) => Share::add(&mut shares, way, group),
                Err(error) => refuse(&[group], results, &error.into()),
            }
        }
        shares
    }

    /// One round trip to one primary. Gives the replies to the calls, and whether enough replicas have them: `WAIT` goes
    /// over the connection that wrote.
    async fn send(
        &self,
        branches: &Branches,
        share: &Share,
        entries: &[NewEntry],
    ) -> Result<(Vec<RedisResult<Value>>, bool), QueueError> {
        let mut pipeline = Pipeline::with_capacity(2 * share.groups.len() + 1);
        for (partition, indexes) in &share.groups {
            if share.way.asking {
                pipeline.cmd("ASKING").ignore();
            }
            self.push_call(&mut pipeline, *partition, entries, indexes);
        }
        if let Some((replicas, patience)) = self.bounds.replicas {
            pipeline.cmd("WAIT").arg(replicas).arg(patience.as_millis() as u64);
        }
        let mut replies = branches.send(&share.way, &mut pipeline).await?;
        let replicated = self.replicated(&mut replies);
        if replies.len() == share.groups.len() { Ok((replies, replicated)) } else { Err(QueueError::reply(&"batch")) }
    }

    /// Takes the answer of one primary. What it did not execute and others may goes to `next`.
    async fn settle(
        &self,
        branches: &Branches,
        share: Share,
        answer: Result<(Vec<RedisResult<Value>>, bool), QueueError>,
        entries: &[NewEntry],
        results: &mut Results,
        next: &mut Vec<Share>,
    ) {
        let Share { way, groups } = share;
        let (replies, replicated) = match answer {
            Ok(answer) => answer,
            Err(error) => return self.reroute(branches, &way, groups, &error, results, next).await,
        };
        let mut missing = Vec::new();
        for (group, reply) in groups.into_iter().zip(replies) {
            if let Some(other) = reply.as_ref().err().and_then(|error| branches.redirect(error, &way)) {
                Share::add(next, other, group);
                continue;
            }
            match self.read_reply(group.0, entries, &group.1, reply, results) {
                Reply::Done if !replicated => doubt(&group.1, results),
                Reply::Done => {}
                Reply::Again => Share::add(next, way.clone(), group),
                Reply::Load => missing.push(group),
            }
        }
        if missing.is_empty() {
            return;
        }
        match self.queue.load_at(&Node(Some(way.address.clone()))).await {
            Ok(()) => missing.into_iter().for_each(|group| Share::add(next, way.clone(), group)),
            Err(error) => refuse(&missing, results, &error.into()),
        }
    }

    /// A primary gave no answer. Only if nothing was sent, and another one has its place by now, does that one get the
    /// calls.
    async fn reroute(
        &self,
        branches: &Branches,
        way: &Way,
        groups: Vec<Group>,
        error: &QueueError,
        results: &mut Results,
        next: &mut Vec<Share>,
    ) {
        for group in groups {
            let other = match error {
                QueueError::Unreachable(_) => branches.replaced(self.slot(group.0), way).await,
                _ => None,
            };
            match other {
                Some(other) => Share::add(next, other, group),
                None => refuse(&[group], results, &error.clone().into()),
            }
        }
    }
}
