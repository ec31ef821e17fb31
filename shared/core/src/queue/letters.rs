//! What operators do with dead and parked letters.

use super::{Arg, Queue, QueueError};
use crate::dead_letter::DeadLetter;

/// Where letters lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Given up.
    Dead,
    /// Set aside for a worker that knows their version.
    Parked,
}

impl Shelf {
    /// The last part of the stream's name.
    pub fn name(self) -> &'static str {
        match self {
            Shelf::Dead => "dead",
            Shelf::Parked => "parked",
        }
    }
}

/// Who does something, and why: for the audit stream.
#[derive(Debug, Clone)]
pub struct Author {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
}

impl Queue {
    fn shelf(&self, partition: u16, shelf: Shelf) -> &str {
        let keys = self.keys(partition);
        match shelf {
            Shelf::Dead => &keys.dead,
            Shelf::Parked => &keys.parked,
        }
    }

    /// Up to `count` letters of a partition, oldest first, from entry id `from` (`-` for the first, `(id` for the one
    /// after).
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn letters(
        &self,
        partition: u16,
        shelf: Shelf,
        from: &str,
        count: u64,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let entries = self.range(self.shelf(partition, shelf), from, "+", count).await?;
        Ok(entries.into_iter().map(|entry| DeadLetter::from_fields(partition, entry.id, entry.fields)).collect())
    }

    /// Up to `count` letters of a partition, oldest first, from entry id `from` to `to`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn letters_between(
        &self,
        partition: u16,
        shelf: Shelf,
        from: &str,
        to: &str,
        count: u64,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let entries = self.range(self.shelf(partition, shelf), from, to, count).await?;
        Ok(entries.into_iter().map(|entry| DeadLetter::from_fields(partition, entry.id, entry.fields)).collect())
    }

    /// Up to `count` letters of a partition, newest first, from entry id `to` (`+` for the last, `(id` for the one
    /// before) down to `from`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn letters_back(
        &self,
        partition: u16,
        shelf: Shelf,
        to: &str,
        from: &str,
        count: u64,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let entries = self.range_back(self.shelf(partition, shelf), to, from, count).await?;
        Ok(entries.into_iter().map(|entry| DeadLetter::from_fields(partition, entry.id, entry.fields)).collect())
    }

    /// Sends letters to the retry stream again. Gives the new entry id of each, `None` for those that were not there
    /// any more. At most a few hundred at once: Redis does nothing else meanwhile.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn replay(
        &self,
        partition: u16,
        shelf: Shelf,
        replay: &str,
        author: &Author,
        ids: &[&str],
    ) -> Result<Vec<Option<String>>, QueueError> {
        let keys = self.keys(partition);
        let names = [self.shelf(partition, shelf), &keys.retry, &keys.count, &keys.audit];
        let mut args = vec![Arg::Text(shelf.name()), Arg::Text(replay), Arg::Text(&author.who), Arg::Text(&author.why)];
        args.extend(ids.iter().map(|id| Arg::Text(id)));
        let new: Vec<String> = self.call("replay", &names, &args).await?;
        Ok(new.into_iter().map(|id| (!id.is_empty()).then_some(id)).collect())
    }

    /// Removes letters for good; gives how many were there.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn purge(&self, partition: u16, shelf: Shelf, author: &Author, ids: &[&str]) -> Result<u64, QueueError> {
        let keys = self.keys(partition);
        let mut args = vec![Arg::Text(shelf.name()), Arg::Text(&author.who), Arg::Text(&author.why)];
        args.extend(ids.iter().map(|id| Arg::Text(id)));
        self.call("purge", &[self.shelf(partition, shelf), &keys.count, &keys.audit], &args).await
    }

    /// Replaces the envelope of a dead letter, which keeps the one that came. Gives its new entry id, `None` when it
    /// was not there any more.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn amend(
        &self,
        partition: u16,
        author: &Author,
        id: &str,
        envelope: &[u8],
    ) -> Result<Option<String>, QueueError> {
        let keys = self.keys(partition);
        let args = [Arg::Text(id), Arg::Text(&author.who), Arg::Text(&author.why), Arg::Bytes(envelope)];
        let new: String = self.call("amend", &[&keys.dead, &keys.audit], &args).await?;
        Ok((!new.is_empty()).then_some(new))
    }

    /// Adds dead letters that were exported; gives how many.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn import(&self, partition: u16, author: &Author, letters: &[DeadLetter]) -> Result<u64, QueueError> {
        let keys = self.keys(partition);
        let fields: Vec<_> = letters.iter().map(DeadLetter::fields).collect();
        let mut args = vec![Arg::Text(&author.who), Arg::Text(&author.why)];
        for letter in &fields {
            args.push(Arg::Number(2 * letter.len() as u64));
            args.extend(letter.iter().flat_map(|(name, value)| [Arg::Text(name), Arg::Bytes(value)]));
        }
        self.call("import", &[&keys.dead, &keys.count, &keys.audit], &args).await
    }

    /// The oldest `count` acts of the audit stream.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn audit(&self, partition: u16, count: u64) -> Result<Vec<super::consume::StreamEntry>, QueueError> {
        self.range(&self.keys(partition).audit, "-", "+", count).await
    }
}
