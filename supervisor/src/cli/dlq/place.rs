//! Where a letter lies.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use weir_core::dead_letter::DeadLetter;
use weir_core::queue::letters::Shelf;
use weir_core::queue::{Queue, entry_id};

/// Partition and entry id of a letter in its stream: `3/1732233600000-12`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: u16,
    pub(crate) entry: String,
}

impl Place {
    pub(crate) fn of(letter: &DeadLetter) -> Self {
        Self { partition: letter.partition, entry: letter.entry.clone() }
    }

    /// The letter that lies here, when there is one.
    pub(crate) async fn fetch(&self, queue: &Queue, shelf: Shelf) -> Result<Option<DeadLetter>> {
        if self.partition >= queue.partitions() {
            bail!("{self}: there is no partition {}, they are 0 to {}", self.partition, queue.partitions() - 1);
        }
        let found = queue.letters(self.partition, shelf, &self.entry, 1).await?;
        Ok(found.into_iter().find(|letter| letter.entry == self.entry))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.entry)
    }
}

/// The text is no place.
#[derive(Debug, thiserror::Error)]
#[error("a place looks like 3/1732233600000-12: partition and entry, as `weir dlq list` shows it")]
pub(crate) struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (partition, entry) = text.split_once('/').ok_or(NoPlace)?;
        let (ms, seq) = entry_id::parse(entry).ok_or(NoPlace)?;
        Ok(Self { partition: partition.parse().map_err(|_| NoPlace)?, entry: format!("{ms}-{seq}") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        assert_eq!("3/17-2".parse::<Place>().unwrap().to_string(), "3/17-2");
        for text in ["", "3", "3-17-2", "x/17-2", "3/17", "99999/1-1", "3/1-1\n"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_place_is_read_as_it_is_written(partition in any::<u16>(), ms in any::<u64>(), seq in any::<u64>(), text in any::<String>()) {
            let place = Place { partition, entry: format!("{ms}-{seq}") };
            prop_assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
            let _ = text.parse::<Place>().is_ok();
        }
    }
}
