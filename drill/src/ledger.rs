//! The books, kept outside of the system: what was sent, and what the sender was told.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::max::Event;

/// What the sender knows of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A 2xx: it must be there.
    Ok,
    /// A refusal which says that nothing was accepted, or no connection: it must not be there.
    Failed,
    /// Nobody knows: a timeout, a reset, a 5xx. It may be there.
    Unknown,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }
}

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One that becomes a row.
    Good,
    /// One that PostgreSQL refuses: it becomes a dead letter.
    Poison,
    /// One that the gateway has to refuse.
    Invalid,
    /// An event of MAX that makes no message: it leaves its key alone.
    Silent,
}

/// One message of one sender, or one event of MAX that makes none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    /// Where its 2xx answers say that it is: a digest of the `message_id`, 0 when there was none.
    truth: u64,
    /// Two of its 2xx answers name different places.
    pub(crate) two_truths: bool,
    /// One of its answers left the sender in doubt.
    pub(crate) doubted: bool,
}

impl Record {
    /// The digest of the `message_id` that its sender was told.
    pub(crate) fn truth(&self) -> Option<u64> {
        (self.truth != 0).then_some(self.truth)
    }
}

/// A message's name in the books: sender and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) sender: u16,
    pub(crate) number: u32,
}

/// The books of one run.
pub(crate) struct Ledger {
    run: u32,
    books: Vec<Mutex<Vec<Record>>>,
    /// MAX's events, sender by sender in the order of their times. Those that make messages are among them.
    events: Vec<Mutex<Vec<Event>>>,
    file: Mutex<BufWriter<File>>,
    answers: Mutex<Answers>,
    started: Instant,
}

/// Answers by what they were, repeats included.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Answers {
    /// By status; 0 stands for no answer.
    pub by_status: BTreeMap<u16, u64>,
    /// A repeat that was told something else than its message's first id, or that it is new.
    pub repeats_told_otherwise: u64,
    /// Other content under a known id that was not refused.
    pub conflicts_taken: u64,
    /// Events of MAX that were said to be none, although nothing is wrong with them.
    pub events_ignored: u64,
}

impl Ledger {
    /// Opens the books; every attempt, and what each event of MAX is, is also written to `path`, a line each.
    pub(crate) fn open(path: &Path, run: u32, senders: u16) -> io::Result<Self> {
        let file = Mutex::new(BufWriter::with_capacity(1 << 16, File::create(path)?));
        let books = (0..senders).map(|_| Mutex::default()).collect();
        let events = (0..senders).map(|_| Mutex::default()).collect();
        Ok(Self { run, books, events, file, answers: Mutex::default(), started: Instant::now() })
    }

    /// Enters a new message before it is sent for the first time.
    pub(crate) fn new_message(&self, sender: u16, kind: Kind) -> Name {
        let mut book = self.book(sender);
        book.push(Record { kind, outcome: Outcome::Failed, truth: 0, two_truths: false, doubted: false });
        Name { sender, number: (book.len() - 1) as u32 }
    }

    /// Enters what an event of MAX is, whose name must be new.
    pub(crate) fn describe(&self, event: Event) {
        lock(&self.events[usize::from(event.name.sender)]).push(event);
        let (user, names) = (event.user.id(), event.renamed);
        self.write(format_args!(
            "{} is {} at {} of {user}, renamed {names} times",
            self.id(event.name),
            event.id(self),
            event.at_ms
        ));
    }

    /// Enters what the sender was told. A message that was once acknowledged stays so, and one of which nobody knows
    /// stays so until it is acknowledged.
    pub(crate) fn told(&self, name: Name, outcome: Outcome, status: u16, message_id: Option<&str>) {
        let mut book = self.book(name.sender);
        let record = &mut book[name.number as usize];
        record.outcome = match (record.outcome, outcome) {
            (Outcome::Ok, _) | (_, Outcome::Ok) => Outcome::Ok,
            (Outcome::Unknown, _) | (_, Outcome::Unknown) => Outcome::Unknown,
            (Outcome::Failed, Outcome::Failed) => Outcome::Failed,
        };
        record.doubted |= outcome == Outcome::Unknown;
        if let Some(truth) = message_id.filter(|_| outcome == Outcome::Ok).map(digest) {
            record.two_truths |= record.truth != 0 && record.truth != truth;
            record.truth = truth;
        }
        drop(book);
        self.count(status);
        self.write(format_args!("{} {} {status}", self.id(name), outcome.name()));
    }

    fn write(&self, line: fmt::Arguments<'_>) {
        let ms = self.started.elapsed().as_millis();
        // A full disk under the books must not go unnoticed.
        writeln!(lock(&self.file), "{ms} {line}").expect("the ledger is written");
    }

    /// Counts an answer that changes nothing in the books.
    pub(crate) fn count(&self, status: u16) {
        *lock(&self.answers).by_status.entry(status).or_default() += 1;
    }

    /// Enters the answer to the repeat of an acknowledged message.
    pub(crate) fn repeated(&self, name: Name, status: u16, message_id: Option<&str>) {
        self.count(status);
        let truth = self.book(name.sender)[name.number as usize].truth;
        if (200..300).contains(&status) && (status != 200 || message_id.map(digest) != Some(truth)) {
            lock(&self.answers).repeats_told_otherwise += 1;
        }
    }

    /// Enters the answer to other content under an acknowledged id.
    pub(crate) fn contradicted(&self, status: u16) {
        self.count(status);
        if (200..300).contains(&status) {
            lock(&self.answers).conflicts_taken += 1;
        }
    }

    /// Enters that an event of MAX was said to be none.
    pub(crate) fn ignored(&self) {
        lock(&self.answers).events_ignored += 1;
    }

    pub(crate) fn record(&self, name: Name) -> Option<Record> {
        self.books.get(usize::from(name.sender)).and_then(|book| lock(book).get(name.number as usize).copied())
    }

    /// The id under which a message is sent: 32 hex digits.
    pub(crate) fn id(&self, name: Name) -> String {
        format!("{:08x}{:08x}{:016x}", self.run, name.sender, name.number)
    }

    /// The message of an id; `None` for an id that was never given out.
    pub(crate) fn name(&self, id: &str) -> Option<Name> {
        if id.len() != 32 || u32::from_str_radix(&id[..8], 16).ok()? != self.run {
            return None;
        }
        let sender = u32::from_str_radix(&id[8..16], 16).ok()?.try_into().ok()?;
        let number = u64::from_str_radix(&id[16..], 16).ok()?.try_into().ok()?;
        let name = Name { sender, number };
        self.record(name).map(|_| name)
    }

    /// All messages, book by book.
    pub(crate) fn all(&self) -> Vec<(Name, Record)> {
        let mut all = Vec::new();
        for sender in 0..self.books.len() as u16 {
            let book = self.book(sender);
            all.extend((0..).zip(book.iter()).map(|(number, record)| (Name { sender, number }, *record)));
        }
        all
    }

    /// All events of MAX, sender by sender in the order of their times.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.iter().flat_map(|events| lock(events).clone()).collect()
    }

    pub(crate) fn answers(&self) -> Answers {
        lock(&self.answers).clone()
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        lock(&self.file).flush()
    }

    fn book(&self, sender: u16) -> MutexGuard<'_, Vec<Record>> {
        lock(&self.books[usize::from(sender)])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// FNV-1a: the books hold a digest in place of each `message_id`.
pub(crate) fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger"), 7, 2).unwrap();
        (folder, ledger)
    }

    #[test]
    fn an_id_leads_back_to_its_message() {
        let (_folder, ledger) = ledger();
        let name = ledger.new_message(1, Kind::Good);
        assert_eq!(ledger.name(&ledger.id(name)), Some(name));
        assert_eq!(ledger.name(&ledger.id(Name { sender: 1, number: 1 })), None);
        assert_eq!(ledger.name(&ledger.id(name).replacen('7', "8", 1)), None);
        assert_eq!(ledger.name("é"), None);
    }

    #[test]
    fn what_was_acknowledged_stays_so_and_doubt_stays_until_then() {
        let (_folder, ledger) = ledger();
        let name = ledger.new_message(0, Kind::Good);
        let outcome = |ledger: &Ledger| ledger.record(name).unwrap().outcome;
        ledger.told(name, Outcome::Failed, 0, None);
        assert_eq!(outcome(&ledger), Outcome::Failed);
        ledger.told(name, Outcome::Unknown, 503, None);
        ledger.told(name, Outcome::Failed, 429, None);
        assert_eq!(outcome(&ledger), Outcome::Unknown);
        ledger.told(name, Outcome::Ok, 202, Some("0-1-1"));
        ledger.told(name, Outcome::Unknown, 503, None);
        assert_eq!(outcome(&ledger), Outcome::Ok);
    }

    #[test]
    fn two_places_for_one_message_are_two_truths() {
        let (_folder, ledger) = ledger();
        let name = ledger.new_message(0, Kind::Good);
        ledger.told(name, Outcome::Ok, 202, Some("0-1-1"));
        ledger.told(name, Outcome::Ok, 200, Some("0-1-1"));
        assert!(!ledger.record(name).unwrap().two_truths);
        ledger.told(name, Outcome::Ok, 200, Some("0-1-2"));
        assert!(ledger.record(name).unwrap().two_truths);
    }

    #[test]
    fn a_repeat_has_to_be_told_the_first_place() {
        let (_folder, ledger) = ledger();
        let name = ledger.new_message(0, Kind::Good);
        ledger.told(name, Outcome::Ok, 202, Some("0-1-1"));
        ledger.repeated(name, 200, Some("0-1-1"));
        ledger.repeated(name, 503, None);
        assert_eq!(ledger.answers().repeats_told_otherwise, 0);
        ledger.repeated(name, 202, Some("0-1-1"));
        ledger.repeated(name, 200, Some("0-1-9"));
        assert_eq!(ledger.answers().repeats_told_otherwise, 2);
    }
}
