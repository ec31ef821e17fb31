//! The judgement: what was acknowledged against what is there.

mod max;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use weir_core::dead_letter::DeadLetter;
use weir_core::queue::Queue;
use weir_core::queue::balance::Balance;
use weir_core::queue::letters::Shelf;
use weir_store::{FoundRow, LoneKey, Place as Entry, Store};

use self::max::Max;
use crate::ledger::{self, Answers, Kind, Ledger, Name, Outcome, Record};
use crate::max::SOURCE;

/// What was found. Everything from `lost` on has to be 0.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// Messages that were sent, each counted once. An event of MAX counts as one, also if it makes none.
    pub sent: u64,
    /// Those of them that are events of MAX.
    pub events: u64,
    /// Those of them with a 2xx.
    pub acknowledged: u64,
    /// Those that were refused every time.
    pub refused: u64,
    /// Those of which nobody knows.
    pub unknown: u64,
    /// Those of the acknowledged that had an answer before of which nobody knew: the repeat told the truth.
    pub resolved: u64,
    /// Poison that was acknowledged.
    pub poison: u64,
    /// Rows of messages in PostgreSQL.
    pub rows: u64,
    /// Events in PostgreSQL that made no message.
    pub silent: u64,
    /// Profiles in PostgreSQL.
    pub people: u64,
    /// Dead letters.
    pub dead: u64,
    /// Entries that a worker found to be stored already.
    pub duplicates: u64,
    /// Seconds from the end of the load until nothing was in flight; `None` when that did not come about.
    pub drained_seconds: Option<f64>,
    /// Answers.
    pub answers: Answers,

    /// Acknowledged, and neither a row nor a dead letter.
    pub lost: u64,
    /// There more than once, as rows or dead letters.
    pub doubled: u64,
    /// There although they were never sent, or refused every time.
    pub phantoms: u64,
    /// 2xx that were no truth: of messages that are lost, that had to be refused, or that contradict another one.
    pub wrong_2xx: u64,
    /// Messages whose 2xx answers name different places, or another one than the row came from.
    pub two_truths: u64,
    /// Dead letters of messages that nothing is wrong with.
    pub wrongly_dead: u64,
    /// Poison that is a row.
    pub poison_stored: u64,
    /// Messages of MAX that say something else than their last acknowledged edit, or than what came later and may be there.
    pub stale_texts: u64,
    /// Messages of MAX that are removed and must not be, or the other way round.
    pub wrong_removals: u64,
    /// Profiles that are not there, or called otherwise than by the newest acknowledged event, or one that came later and
    /// may be there; and those of people of whom nobody told.
    pub wrong_people: u64,
    /// Accepted less what the queue accounts for.
    pub drift: i64,
    /// Accepted less rows, events without one, dead letters and duplicates.
    pub missing_in_the_sum: i64,
    /// Still in flight when the time to drain was over.
    pub stuck: u64,
    /// Some of the ids that something is wrong with.
    pub examples: Vec<String>,
}

/// Ids that a verdict names at most.
const EXAMPLES: usize = 10;

impl Verdict {
    /// What did not hold, in words; empty when every promise did.
    pub fn findings(&self) -> Vec<String> {
        let counts = [
            (self.lost, "acknowledged messages are lost"),
            (self.doubled, "messages are there more than once"),
            (self.phantoms, "rows or dead letters of messages that were never sent or always refused"),
            (self.wrong_2xx, "2xx answers were not true"),
            (self.two_truths, "messages were acknowledged under more than one message_id"),
            (self.wrongly_dead, "dead letters of messages that nothing is wrong with"),
            (self.poison_stored, "messages that PostgreSQL should refuse are rows"),
            (self.stale_texts, "messages do not say what their last acknowledged edit says"),
            (self.wrong_removals, "messages are removed that nobody removed, or there although they were removed"),
            (
                self.wrong_people,
                "profiles are missing, of nobody, or not named as the newest acknowledged event names them",
            ),
            (self.answers.events_ignored, "events of MAX were called none although nothing is wrong with them"),
            (self.drift.unsigned_abs(), "messages that the queue's own balance does not account for"),
            (
                self.missing_in_the_sum.unsigned_abs(),
                "messages off: rows + events without one + dead + duplicates is not what was accepted",
            ),
            (self.stuck, "messages are still in flight after the time to drain"),
        ];
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect()
    }
}

/// Waits until nothing is in flight, and no change waits for a message that is there. Gives the seconds it took, or `None`
/// after `patience`.
pub(crate) async fn drain(queue: &Queue, store: &Store, patience: Duration) -> Option<f64> {
    let started = Instant::now();
    while started.elapsed() < patience {
        if queue.balance().await.is_ok_and(|balance| balance.in_flight() == 0)
            && store.owes_changes().await.is_ok_and(|owes| !owes)
        {
            return Some(started.elapsed().as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Compares the books with PostgreSQL and with the dead letters.
pub(crate) async fn judge(
    ledger: &Ledger,
    queue: &Queue,
    store: &Store,
    drained_seconds: Option<f64>,
) -> Result<Verdict> {
    let mut found = Found { ledger, max: Max::new(ledger), places: HashMap::new(), strangers: Vec::new() };
    let rows = store.each_message(|row| found.row(&row)).await.context("the messages cannot be read")?;
    let silent = store.each_lone_key(|key| found.lone_key(&key)).await.context("the keys cannot be read")?;
    let people = store.each_person(|person| found.max.person(person)).await.context("the profiles cannot be read")?;
    let dead = dead_letters(queue, |letter| found.letter(letter)).await.context("the dead letters cannot be read")?;
    let balance = queue.balance().await.context("the balance cannot be read")?;
    let answers = ledger.answers();
    let mut verdict = Verdict { rows, silent, people, dead, drained_seconds, answers, ..Verdict::default() };
    verdict.account(&balance);
    verdict.judge_strangers(&found.strangers);
    for (name, record) in ledger.all() {
        let place = found.places.get(&name).copied().unwrap_or_default();
        verdict.judge_message(ledger, name, record, place);
    }
    found.max.judge(&mut verdict);
    verdict.wrong_2xx += verdict.lost + verdict.answers.conflicts_taken;
    verdict.two_truths += verdict.answers.repeats_told_otherwise;
    Ok(verdict)
}

/// How often a message is there.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Rows, or keys of an event that makes none.
    rows: u32,
    letters: u32,
    /// The row came from another entry than the sender was told.
    elsewhere: bool,
}

struct Found<'l> {
    ledger: &'l Ledger,
    max: Max<'l>,
    places: HashMap<Name, Place>,
    strangers: Vec<String>,
}

impl Found<'_> {
    fn row(&mut self, row: &FoundRow) {
        let name = match row.source == SOURCE {
            true => self.max.row(row),
            false => self.message(&row.external_message_id),
        };
        self.stored(name, &row.external_message_id, row.place);
    }

    fn lone_key(&mut self, found: &LoneKey) {
        self.stored(self.max.lone_key(found.key.as_bytes()), &found.key.to_string(), found.place);
    }

    fn letter(&mut self, letter: &DeadLetter) {
        let id = &letter.external_message_id;
        let name = if letter.source == SOURCE { self.max.letter(id) } else { self.message(id) };
        if let Some(place) = self.place(name, id) {
            place.letters += 1;
        }
    }

    /// The message that the other source sent under an id.
    fn message(&self, id: &str) -> Option<Name> {
        self.ledger.name(id).filter(|name| !self.max.sent(*name))
    }

    fn stored(&mut self, name: Option<Name>, id: &str, entry: Entry) {
        let told = name.and_then(|name| self.ledger.record(name)).and_then(|record| record.truth());
        let elsewhere = told.is_some_and(|told| told != ledger::digest(&entry.to_string()));
        if let Some(place) = self.place(name, id) {
            place.rows += 1;
            place.elsewhere |= elsewhere;
        }
    }

    fn place(&mut self, name: Option<Name>, id: &str) -> Option<&mut Place> {
        if name.is_none() {
            self.strangers.push(id.to_owned());
        }
        Some(self.places.entry(name?).or_default())
    }
}

impl Verdict {
    fn account(&mut self, balance: &Balance) {
        self.duplicates = balance.duplicate;
        self.drift = balance.drift();
        self.stuck = balance.in_flight() + balance.lost;
        let there = self.rows + self.silent + self.dead + balance.duplicate + balance.in_flight();
        self.missing_in_the_sum = balance.accepted as i64 - there as i64;
    }

    fn judge_strangers(&mut self, ids: &[String]) {
        self.phantoms += ids.len() as u64;
        ids.iter().take(3).for_each(|id| self.example(id));
    }

    fn judge_message(&mut self, ledger: &Ledger, name: Name, record: Record, place: Place) {
        let times = place.rows + place.letters;
        self.sent += 1;
        match record.outcome {
            Outcome::Ok => {
                self.acknowledged += 1;
                self.resolved += u64::from(record.doubted);
                self.poison += u64::from(record.kind == Kind::Poison);
            }
            Outcome::Failed => self.refused += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        let faults = [
            (record.outcome == Outcome::Ok && times == 0 && record.kind != Kind::Invalid, &mut self.lost),
            (times > 1, &mut self.doubled),
            (record.outcome == Outcome::Failed && times > 0, &mut self.phantoms),
            (record.kind == Kind::Invalid && record.outcome == Outcome::Ok, &mut self.wrong_2xx),
            (record.two_truths || place.elsewhere, &mut self.two_truths),
            (matches!(record.kind, Kind::Good | Kind::Silent) && place.letters > 0, &mut self.wrongly_dead),
            (record.kind == Kind::Poison && place.rows > 0, &mut self.poison_stored),
        ];
        let mut wrong = false;
        for (holds, count) in faults {
            if holds {
                *count += 1;
                wrong = true;
            }
        }
        if wrong {
            self.example(&ledger.id(name));
        }
    }

    fn example(&mut self, id: &str) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(id.to_owned());
        }
    }
}

async fn dead_letters(queue: &Queue, mut visit: impl FnMut(&DeadLetter)) -> Result<u64> {
    let mut letters = 0;
    for partition in 0..queue.partitions() {
        let mut from = "-".to_owned();
        loop {
            let page = queue.letters(partition, Shelf::Dead, &from, 500).await?;
            let Some(last) = page.last() else { break };
            from = format!("({}", last.entry);
            letters += page.len() as u64;
            page.iter().for_each(&mut visit);
        }
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_ROW: Place = Place { rows: 1, letters: 0, elsewhere: false };
    const ONE_LETTER: Place = Place { rows: 0, letters: 1, elsewhere: false };
    const NOWHERE: Place = Place { rows: 0, letters: 0, elsewhere: false };

    /// The findings about one message that was sent once.
    fn findings(kind: Kind, outcome: Outcome, place: Place) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger"), 1, 1).unwrap();
        let name = ledger.new_message(0, kind);
        ledger.told(name, outcome, 0, None);
        let mut verdict = Verdict::default();
        verdict.judge_message(&ledger, name, ledger.record(name).unwrap(), place);
        verdict.findings()
    }

    #[test]
    fn what_may_be_is_green() {
        for (kind, outcome, place) in [
            (Kind::Good, Outcome::Ok, ONE_ROW),
            (Kind::Good, Outcome::Unknown, ONE_ROW),
            (Kind::Good, Outcome::Unknown, NOWHERE),
            (Kind::Good, Outcome::Failed, NOWHERE),
            (Kind::Poison, Outcome::Ok, ONE_LETTER),
            (Kind::Invalid, Outcome::Failed, NOWHERE),
            (Kind::Silent, Outcome::Ok, ONE_ROW),
        ] {
            assert_eq!(findings(kind, outcome, place), Vec::<String>::new(), "{kind:?} {outcome:?} {place:?}");
        }
    }

    #[test]
    fn every_broken_promise_turns_it_red() {
        for (kind, outcome, place, finding) in [
            (Kind::Good, Outcome::Ok, NOWHERE, "lost"),
            (Kind::Good, Outcome::Ok, Place { rows: 2, letters: 0, elsewhere: false }, "more than once"),
            (Kind::Poison, Outcome::Ok, Place { rows: 0, letters: 2, elsewhere: false }, "more than once"),
            (Kind::Good, Outcome::Failed, ONE_ROW, "always refused"),
            (Kind::Good, Outcome::Ok, Place { elsewhere: true, ..ONE_ROW }, "more than one message_id"),
            (Kind::Good, Outcome::Ok, ONE_LETTER, "nothing is wrong with"),
            (Kind::Poison, Outcome::Ok, ONE_ROW, "should refuse"),
            (Kind::Invalid, Outcome::Ok, NOWHERE, "not true"),
            (Kind::Silent, Outcome::Ok, NOWHERE, "lost"),
            (Kind::Silent, Outcome::Ok, ONE_LETTER, "nothing is wrong with"),
        ] {
            let found = findings(kind, outcome, place);
            assert!(found.iter().any(|text| text.contains(finding)), "{finding}: {found:?}");
        }
    }

    #[test]
    fn an_event_that_was_called_none_turns_it_red() {
        let answers = Answers { events_ignored: 1, ..Answers::default() };
        let findings = Verdict { answers, ..Verdict::default() }.findings();
        assert_eq!(findings, ["1 events of MAX were called none although nothing is wrong with them"]);
    }

    #[test]
    fn a_sum_that_is_off_turns_it_red() {
        let mut verdict = Verdict { rows: 7, dead: 1, ..Verdict::default() };
        verdict.account(&Balance { accepted: 10, stored: 8, dead: 1, duplicate: 1, ..Balance::default() });
        assert_eq!(
            verdict.findings(),
            ["1 messages off: rows + events without one + dead + duplicates is not what was accepted"]
        );
        verdict.silent = 1;
        verdict.account(&Balance { accepted: 10, stored: 8, dead: 1, duplicate: 1, ..Balance::default() });
        assert_eq!(verdict.findings(), Vec::<String>::new());
        verdict.silent = 0;
        verdict.account(&Balance { accepted: 10, stored: 7, dead: 1, duplicate: 1, ..Balance::default() });
        assert_eq!(verdict.findings().len(), 2);
    }
}
