//! Who is alive: leases fence every settle and move, and whose lease ran out is reaped.

use std::time::Duration;

use redis::Value;

use super::{Arg, Queue, QueueError, head, number, text};

/// What one step of reaping did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// The dead consumer.
    pub consumer: String,
    /// Entries moved to suspect in this step.
    pub moved: u64,
    /// Nothing of it is left.
    pub finished: bool,
}

/// Entries that one step of reaping or leaving moves.
const STEP: u64 = 200;

impl Queue {
    async fn beat(&self, partition: u16, mode: &str, lease: Duration, consumers: &[String]) -> Result<(), QueueError> {
        let mut args = vec![Arg::Number(lease.as_millis() as u64), Arg::Text(mode)];
        args.extend(consumers.iter().map(|name| Arg::Text(name)));
        let reply: String = self.call("beat", &[&self.keys(partition).alive], &args).await?;
        if reply == "FENCED" { Err(QueueError::Fenced) } else { Ok(()) }
    }

    /// Takes leases for consumers that have none.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] when a name is taken, else see [`QueueError`].
    pub async fn join(&self, partition: u16, lease: Duration, consumers: &[String]) -> Result<(), QueueError> {
        self.beat(partition, "join", lease, consumers).await
    }

    /// Renews leases.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] when one of them is lost, else see [`QueueError`].
    pub async fn renew(&self, partition: u16, lease: Duration, consumers: &[String]) -> Result<(), QueueError> {
        self.beat(partition, "renew", lease, consumers).await
    }

    /// One step of taking over what a dead worker left; `None` when nobody is dead.
    ///
    /// `all_late` must not be set before the caller has held its own lease for a full term since it (re)connected: after
    /// an outage of Redis every lease has run out and nobody is dead. Without it only consumers count that were
    /// declared dead.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] when the caller's lease is lost, else see [`QueueError`].
    pub async fn reap(&self, partition: u16, consumer: &str, all_late: bool) -> Result<Option<Reaped>, QueueError> {
        let keys = self.keys(partition);
        let names = [&*keys.alive, &keys.count, &keys.ingest, &keys.retry, &keys.suspect];
        let reply: Vec<Value> =
            self.call("reap", &names, &[Arg::Text(consumer), Arg::Number(STEP), Arg::Number(all_late.into())]).await?;
        match head(&reply) {
            b"FENCED" => Err(QueueError::Fenced),
            b"NONE" => Ok(None),
            _ => Ok(Some(Reaped {
                consumer: text(&reply, 1),
                moved: number(&reply, 2),
                finished: number(&reply, 3) == 1,
            })),
        }
    }

    /// Gives up a lease in good order: what is still pending goes back to the other workers without an attempt counted.
    /// Gives how many entries went back.
    ///
    /// # Errors
    /// [`QueueError::Fenced`] when the lease is lost already, else see [`QueueError`].
    pub async fn leave(&self, partition: u16, consumer: &str) -> Result<u64, QueueError> {
        let keys = self.keys(partition);
        let names = [&*keys.alive, &keys.ingest, &keys.retry, &keys.suspect, &keys.count];
        let mut handed_back = 0;
        loop {
            let reply: Vec<Value> = self.call("leave", &names, &[Arg::Text(consumer), Arg::Number(STEP)]).await?;
            if head(&reply) == b"FENCED" {
                return Err(QueueError::Fenced);
            }
            handed_back += number(&reply, 1);
            if number(&reply, 2) == 1 {
                return Ok(handed_back);
            }
        }
    }

    /// Declares a worker dead whose process is known to have ended, so that nobody waits for its leases to run out.
    /// Gives how many of its consumers had one.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn declare_dead(&self, partition: u16, worker: &str) -> Result<u64, QueueError> {
        self.call("condemn", &[&self.keys(partition).alive], &[Arg::Text(worker)]).await
    }
}
