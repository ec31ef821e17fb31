//! Counts, by minute, of what the queue does not hold: what the gateway looked at and did not take, and what ceased to be an
//! entry and became a dead letter. Workers copy them to PostgreSQL, where statistics are made.

use std::collections::HashMap;

use super::{Arg, Queue, QueueError};

/// Numbers by reason and Unix minute.
pub type Tallies = HashMap<(String, u64), u64>;

/// Reason of events that became dead letters.
pub const DEAD: &str = "dead";

impl Queue {
    /// Counts in a partition. What is not known to have been counted may be counted twice.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn tally(&self, partition: u16, tallies: &Tallies) -> Result<(), QueueError> {
        let fields: Vec<(String, u64)> =
            tallies.iter().map(|((reason, minute), n)| (format!("{reason} {minute}"), *n)).collect();
        let args: Vec<Arg<'_>> = fields.iter().flat_map(|(field, n)| [Arg::Text(field), Arg::Number(*n)]).collect();
        let _: u64 = self.call("tally", &[&self.keys(partition).tally], &args).await?;
        Ok(())
    }

    /// A number that is another one whenever a count of a partition is: 0 where nothing was ever counted.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn tally_changes(&self, partition: u16) -> Result<u64, QueueError> {
        let changes: Option<u64> =
            self.command(redis::cmd("HGET").arg(&self.keys(partition).tally).arg("changes")).await?;
        Ok(changes.unwrap_or_default())
    }

    /// All counts of a partition.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn tallies(&self, partition: u16) -> Result<Tallies, QueueError> {
        let fields: HashMap<String, u64> = self.command(redis::cmd("HGETALL").arg(&self.keys(partition).tally)).await?;
        let read = |(field, n): (String, u64)| {
            let (reason, minute) = field.rsplit_once(' ')?;
            Some(((reason.to_owned(), minute.parse().ok()?), n))
        };
        Ok(fields.into_iter().filter_map(read).collect())
    }

    /// Drops the counts of a partition that are older than `minute`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn forget_tallies(&self, partition: u16, tallies: &Tallies, minute: u64) -> Result<(), QueueError> {
        let old = tallies.keys().filter(|(_, at)| *at < minute);
        let fields: Vec<String> = old.map(|(reason, at)| format!("{reason} {at}")).collect();
        for some in fields.chunks(500) {
            let args: Vec<Arg<'_>> = some.iter().map(|field| Arg::Text(field)).collect();
            let _: u64 = self.call("forget_tallies", &[&self.keys(partition).tally], &args).await?;
        }
        Ok(())
    }
}
