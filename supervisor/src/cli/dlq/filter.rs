//! Which letters are meant.

use std::time::Duration;

use anyhow::{Result, bail};
use sha2::{Digest as _, Sha256};
use weir_core::config::Setting;
use weir_core::dead_letter::DeadLetter;
use weir_core::message::MessageId;
use weir_core::queue::letters::Shelf;
use weir_core::queue::{Queue, entry_id};

use super::place::Place;
use super::redis_now_ms;
use super::scan::{Order, Scan};

const HEADING: &str = "Which letters (all that is given must hold; of a repeated option, one)";

/// The options that select letters.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Filter {
    /// From this source; repeatable
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    source: Vec<String>,
    /// Of this error class, such as data, constraint, conflict, crash, decode; repeatable
    #[arg(long, value_name = "CLASS", help_heading = HEADING)]
    class: Vec<String>,
    /// With this SQLSTATE, such as 23514; repeatable
    #[arg(long, value_name = "SQLSTATE", help_heading = HEADING)]
    code: Vec<String>,
    /// With this error signature, the beginning of it, or its hash as `stats` shows it; repeatable
    #[arg(long, value_name = "TEXT|HASH", help_heading = HEADING)]
    signature: Vec<String>,
    /// Dead for longer than this, such as 2h (an imported letter: since the import)
    #[arg(long, value_name = "AGE", value_parser = <Duration as Setting>::read, help_heading = HEADING)]
    older_than: Option<Duration>,
    /// Dead for less than this, such as 30m
    #[arg(long, value_name = "AGE", value_parser = <Duration as Setting>::read, help_heading = HEADING)]
    newer_than: Option<Duration>,
    /// With this external message id, or message id such as 3-1732233600000-12; repeatable
    #[arg(long, value_name = "ID", help_heading = HEADING)]
    id: Vec<String>,
    /// In this place, such as 3/1732233600000-12; repeatable
    #[arg(long, value_name = "PLACE", help_heading = HEADING)]
    entry: Vec<Place>,
    /// With this text in the message or in the error
    #[arg(long, value_name = "TEXT", help_heading = HEADING)]
    text: Option<String>,
    /// Those that died again after a replay
    #[arg(long, help_heading = HEADING)]
    replayed: bool,
    /// At most so many
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pub(super) limit: Option<u64>,
    /// Parked letters instead of dead ones
    #[arg(long, help_heading = HEADING)]
    parked: bool,
}

impl Filter {
    /// Letters in these places.
    pub(super) fn places(entry: Vec<Place>, parked: bool) -> Self {
        Self { entry, parked, ..Self::default() }
    }

    /// Letters with these ids.
    pub(super) fn ids(id: Vec<String>, parked: bool) -> Self {
        Self { id, parked, ..Self::default() }
    }

    /// Where it looks.
    pub(super) fn shelf(&self) -> Shelf {
        if self.parked { Shelf::Parked } else { Shelf::Dead }
    }

    /// `dead letter` or `parked letter`.
    pub(super) fn noun(&self) -> &'static str {
        if self.parked { "parked letter" } else { "dead letter" }
    }

    /// Whether it selects nothing in particular. How many, and from which stream, is no selection.
    fn is_open(&self) -> bool {
        let lists = [&self.source, &self.class, &self.code, &self.signature, &self.id];
        let given = [self.older_than.is_some(), self.newer_than.is_some(), self.text.is_some(), self.replayed];
        lists.iter().all(|list| list.is_empty()) && self.entry.is_empty() && !given.contains(&true)
    }

    /// Refuses to do something to all letters unless that was said.
    pub(super) fn must_select(&self, all: bool, verb: &str) -> Result<()> {
        match (self.is_open(), all) {
            (true, false) => bail!(
                "{verb} would take every {}: select some with --class, --signature, --older-than … (see \
                 `weir dlq stats`), or say --all",
                self.noun()
            ),
            (false, true) => bail!("--all contradicts the other filters: keep one"),
            _ => Ok(()),
        }
    }

    /// Whether one of the lists wants this value.
    fn wants(list: &[String], value: &str) -> bool {
        list.is_empty() || list.iter().any(|wanted| wanted == value)
    }

    fn wants_id(&self, letter: &DeadLetter) -> bool {
        self.id.is_empty()
            || self.id.iter().any(|id| {
                let known = MessageId::from_entry(letter.partition, &letter.origin);
                *id == letter.external_message_id || id.parse::<MessageId>().is_ok_and(|id| known == Some(id))
            })
    }

    fn wants_signature(&self, letter: &DeadLetter) -> bool {
        if self.signature.is_empty() {
            return true;
        }
        let signature = letter.signature();
        let hash = signature_hash(&signature);
        self.signature.iter().any(|wanted| signature.starts_with(wanted) || *wanted == hash)
    }

    fn wants_text(&self, letter: &DeadLetter) -> bool {
        let Some(text) = &self.text else { return true };
        let in_message = || letter.message().is_some_and(|message| message.message_text.contains(text.as_str()));
        letter.error.contains(text.as_str())
            || String::from_utf8_lossy(&letter.envelope).contains(text.as_str())
            || in_message()
    }

    fn wants_age(&self, letter: &DeadLetter, now_ms: u64) -> bool {
        let age = Duration::from_millis(now_ms.saturating_sub(letter.died_ms()));
        self.older_than.is_none_or(|least| age >= least) && self.newer_than.is_none_or(|most| age < most)
    }

    pub(super) fn matches(&self, letter: &DeadLetter, now_ms: u64) -> bool {
        Self::wants(&self.source, &letter.source)
            && Self::wants(&self.class, &letter.class)
            && Self::wants(&self.code, &letter.code)
            && (self.entry.is_empty() || self.entry.contains(&Place::of(letter)))
            && (!self.replayed || !letter.replay.is_empty())
            && self.wants_age(letter, now_ms)
            && self.wants_id(letter)
            && self.wants_signature(letter)
            && self.wants_text(letter)
    }
}

/// A stable short name of a signature.
pub(crate) fn signature_hash(signature: &str) -> String {
    hex::encode(&Sha256::digest(signature.as_bytes())[..4])
}

/// A filter at one moment: letters that die later are not among the selected, however often they are read.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) filter: Filter,
    pub(super) now_ms: u64,
    /// The newest letter of each partition.
    newest: Vec<Option<String>>,
}

impl Selection {
    pub(super) async fn new(filter: &Filter, queue: &Queue) -> Result<Self> {
        let mut newest = Vec::new();
        for partition in 0..queue.partitions() {
            let last = queue.letters_back(partition, filter.shelf(), "+", "-", 1).await?;
            newest.push(last.into_iter().next().map(|letter| letter.entry));
        }
        Ok(Self { filter: filter.clone(), now_ms: redis_now_ms(queue).await?, newest })
    }

    pub(super) fn shelf(&self) -> Shelf {
        self.filter.shelf()
    }

    pub(super) fn matches(&self, letter: &DeadLetter) -> bool {
        self.filter.matches(letter, self.now_ms)
    }

    /// The first and the last entry id of a partition that can be among the selected.
    pub(super) fn bounds(&self, partition: u16) -> Option<(String, String)> {
        let newest = self.newest.get(usize::from(partition))?.clone()?;
        let ago = |age: Duration| self.now_ms.saturating_sub(age.as_millis().min(u128::from(u64::MAX)) as u64);
        let first = self.filter.newer_than.map_or("-".to_owned(), |age| ago(age).to_string());
        let last = match self.filter.older_than.map(ago) {
            Some(ms) if ms < entry_id::of(&newest).0 => ms.to_string(),
            _ => newest,
        };
        Some((first, last))
    }

    /// The places that were named, when some were.
    pub(super) fn named_places(&self) -> &[Place] {
        &self.filter.entry
    }

    /// Reads the selected letters.
    pub(super) fn scan<'a>(&'a self, queue: &'a Queue, order: Order) -> Scan<'a> {
        Scan::new(queue, self, order)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn letter() -> DeadLetter {
        DeadLetter {
            partition: 3,
            entry: format!("{}-7", NOW - 3_600_000),
            origin: "900-1".into(),
            source: "messenger".into(),
            class: "data".into(),
            code: "22021".into(),
            error: "value 17 is too long".into(),
            external_message_id: "1a2b".into(),
            envelope:
                r#"{"src":"messenger","id":"1a2b","client":"c","phone":"+79194961182","text":"say \"hi\"","sent":1}"#
                    .into(),
            ..DeadLetter::default()
        }
    }

    fn takes(change: impl FnOnce(&mut Filter)) -> bool {
        let mut filter = Filter::default();
        change(&mut filter);
        filter.matches(&letter(), NOW)
    }

    #[test]
    fn each_filter_takes_what_it_names_and_nothing_else() {
        assert!(takes(|_| {}));
        assert!(
            takes(|f| f.source = vec!["max".into(), "messenger".into()]) && !takes(|f| f.source = vec!["max".into()])
        );
        assert!(takes(|f| f.class = vec!["data".into()]) && !takes(|f| f.class = vec!["dat".into()]));
        assert!(takes(|f| f.code = vec!["22021".into()]) && !takes(|f| f.code = vec!["23514".into()]));
        assert!(
            takes(|f| f.entry = vec![Place::of(&letter())]) && !takes(|f| f.entry = vec!["2/1-1".parse().unwrap()])
        );
        assert!(!takes(|f| f.replayed = true));
        for (id, expected) in [("1a2b", true), ("3-900-1", true), ("2-900-1", false), ("1a2", false)] {
            assert_eq!(takes(|f| f.id = vec![id.into()]), expected, "{id}");
        }
        for (text, expected) in [("too long", true), ("say \"hi\"", true), ("+7919", true), ("bye", false)] {
            assert_eq!(takes(|f| f.text = Some(text.into())), expected, "{text}");
        }
    }

    #[test]
    fn a_signature_is_given_whole_by_its_beginning_or_by_its_hash() {
        let signature = letter().signature();
        assert_eq!(signature, "data: 22021: value # is too long");
        for (wanted, expected) in
            [(signature.as_str(), true), ("data: 22", true), (&signature_hash(&signature), true), ("value", false)]
        {
            assert_eq!(takes(|f| f.signature = vec![wanted.into()]), expected, "{wanted}");
        }
        assert_eq!(signature_hash("data: 22021"), "4edd22a5");
    }

    #[test]
    fn age_counts_from_death() {
        let age = |minutes: u64| Some(Duration::from_secs(60 * minutes));
        assert!(takes(|f| f.older_than = age(60)) && !takes(|f| f.older_than = age(61)));
        assert!(takes(|f| f.newer_than = age(61)) && !takes(|f| f.newer_than = age(60)));
    }

    #[test]
    fn everything_must_be_asked_for_by_name() {
        let filter = Filter { limit: Some(3), parked: true, ..Filter::default() };
        assert!(filter.must_select(false, "purge").unwrap_err().to_string().contains("--all"));
        assert!(filter.must_select(true, "purge").is_ok());
        let filter = Filter { replayed: true, ..Filter::default() };
        assert!(filter.must_select(false, "purge").is_ok());
        assert!(filter.must_select(true, "purge").is_err());
    }

    #[test]
    fn only_the_range_that_can_match_is_read() {
        let selection = |older: Option<u64>, newer: Option<u64>| Selection {
            filter: Filter {
                older_than: older.map(Duration::from_millis),
                newer_than: newer.map(Duration::from_millis),
                ..Filter::default()
            },
            now_ms: NOW,
            newest: vec![Some(format!("{}-4", NOW - 100)), None],
        };
        let bounds = |older, newer| selection(older, newer).bounds(0).unwrap();
        assert_eq!(bounds(None, None), ("-".to_owned(), format!("{}-4", NOW - 100)));
        assert_eq!(bounds(Some(500), Some(900)), ((NOW - 900).to_string(), (NOW - 500).to_string()));
        assert_eq!(bounds(Some(50), None).1, format!("{}-4", NOW - 100));
        assert_eq!(selection(None, None).bounds(1), None);
    }

    /// The options of a command line.
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    proptest! {
        #[test]
        fn no_command_line_and_no_letter_make_a_filter_panic(
            words in prop::collection::vec(
                ("--(source|class|code|signature|older-than|newer-than|id|entry|text|replayed|limit|parked)", "[0-9a-z/-]{0,12}|[0-9]{1,20}[smhdy]|\\PC{0,9}"),
                0..4,
            ),
            texts in prop::collection::vec(any::<String>(), 5),
            envelope in any::<Vec<u8>>(),
            now_ms in any::<u64>(),
        ) {
            use clap::Parser as _;
            let words = words.into_iter().flat_map(|(name, value)| match name.as_str() {
                "--replayed" | "--parked" => vec![name],
                _ => vec![format!("{name}={value}")],
            });
            let Ok(Line { filter }) = Line::try_parse_from(std::iter::once("weir".to_owned()).chain(words)) else { return Ok(()) };
            let text = |at: usize| texts[at].clone();
            let letter = DeadLetter {
                entry: text(0), origin: text(1), error: text(2), source: text(3), external_message_id: text(4), envelope,
                ..letter()
            };
            let _ = (filter.matches(&letter, now_ms), filter.must_select(false, "purge").is_ok());
            let selection = Selection { filter, now_ms, newest: vec![Some(letter.entry)] };
            prop_assert!(selection.bounds(0).is_some());
        }

        #[test]
        fn a_letter_is_found_by_any_id_and_signature_of_its_own(id in any::<String>(), error in any::<String>(), origin in any::<(u64, u64)>()) {
            let letter = DeadLetter { external_message_id: id.clone(), error, origin: format!("{}-{}", origin.0, origin.1), ..letter() };
            let whole = letter.signature();
            for filter in [
                Filter { id: vec![id], ..Filter::default() },
                Filter { id: vec![format!("3-{}", letter.origin)], ..Filter::default() },
                Filter { signature: vec![whole.clone()], ..Filter::default() },
                Filter { signature: vec![signature_hash(&whole)], ..Filter::default() },
                Filter { text: Some(letter.error.clone()), ..Filter::default() },
            ] {
                prop_assert!(filter.matches(&letter, NOW), "{filter:?}");
            }
        }
    }
}
