//! MAX's side of the judgement: what became of events that are more than one new message.
//!
//! Events of one message, and of one person, come from one sender, one after the other. So the books say what there has to be:
//! what the last acknowledged one told, or what one of which nobody knows told after it.

use std::collections::{HashMap, HashSet};

use weir_core::message::MessageKey;
use weir_store::{FoundPerson, FoundRow};

use super::Verdict;
use crate::ledger::{Kind, Ledger, Name, Outcome};
use crate::max::{self, Event, User, What};

/// What something may be after events that each told it, in the order of their times. At the end is what the last one told.
struct MayBe<T>(Vec<T>);

impl<T: PartialEq> MayBe<T> {
    fn tell(&mut self, told: T, outcome: Outcome) {
        match outcome {
            Outcome::Ok => self.0 = vec![told],
            Outcome::Unknown => self.0.push(told),
            Outcome::Failed => {}
        }
    }
}

/// What a message may be.
struct Message {
    texts: MayBe<Name>,
    removed: MayBe<bool>,
}

/// A message's row.
struct Row {
    /// The event that made it say what it says; none if no event of ours did.
    told_by: Option<Name>,
    is_removed: bool,
}

/// First and last name.
type Names = (Option<String>, Option<String>);

/// The books of MAX's events, and what was found of them.
pub(super) struct Max<'l> {
    ledger: &'l Ledger,
    events: Vec<Event>,
    names: HashSet<Name>,
    by_key: HashMap<[u8; 16], Name>,
    rows: HashMap<Name, Row>,
    people: HashMap<String, Names>,
}

impl<'l> Max<'l> {
    pub(super) fn new(ledger: &'l Ledger) -> Self {
        let events = ledger.events();
        let by_key = events.iter().map(|event| (key(&event.id(ledger)), event.name)).collect();
        let names = events.iter().map(|event| event.name).collect();
        Self { ledger, events, names, by_key, rows: HashMap::new(), people: HashMap::new() }
    }

    /// Whether a name is that of an event of MAX.
    pub(super) fn sent(&self, name: Name) -> bool {
        self.names.contains(&name)
    }

    /// The message of a row, if it is one of MAX's.
    pub(super) fn row(&mut self, row: &FoundRow) -> Option<Name> {
        let name = *self.by_key.get(&key(&format!("mc:{}", row.external_message_id)))?;
        let told_by = row.text.as_deref().and_then(|text| self.ledger.name(text));
        self.rows.insert(name, Row { told_by, is_removed: row.is_removed });
        Some(name)
    }

    /// The event whose key it is, if it makes no message.
    pub(super) fn lone_key(&self, key: &[u8; 16]) -> Option<Name> {
        let name = *self.by_key.get(key)?;
        self.ledger.record(name).filter(|record| record.kind == Kind::Silent).map(|_| name)
    }

    /// The event that a dead letter holds.
    pub(super) fn letter(&self, id: &str) -> Option<Name> {
        self.by_key.get(&key(id)).copied()
    }

    pub(super) fn person(&mut self, person: FoundPerson) {
        self.people.insert(person.user_id, (person.first_name, person.last_name));
    }

    pub(super) fn judge(mut self, verdict: &mut Verdict) {
        verdict.events = self.events.len() as u64;
        self.judge_messages(verdict);
        self.judge_people(verdict);
    }

    fn judge_messages(&self, verdict: &mut Verdict) {
        let mut messages: HashMap<Name, Message> = HashMap::new();
        for event in &self.events {
            let outcome = self.outcome(event.name);
            match event.what {
                What::Created => {
                    let message = Message { texts: MayBe(vec![event.name]), removed: MayBe(vec![false]) };
                    messages.insert(event.name, message);
                }
                What::Edited { of, .. } => {
                    messages.entry(of).and_modify(|message| message.texts.tell(event.name, outcome));
                }
                What::Removed { of } => {
                    messages.entry(of).and_modify(|message| message.removed.tell(true, outcome));
                }
                What::Poison | What::Pressed | What::Started => {}
            }
        }
        for (name, message) in messages {
            // One that is not there is judged as every other.
            let Some(row) = self.rows.get(&name) else { continue };
            let other_text = !row.told_by.is_some_and(|event| message.texts.0.contains(&event));
            let other_fate = !message.removed.0.contains(&row.is_removed);
            verdict.stale_texts += u64::from(other_text);
            verdict.wrong_removals += u64::from(other_fate);
            if other_text || other_fate {
                verdict.example(&self.ledger.id(name));
            }
        }
    }

    fn judge_people(&mut self, verdict: &mut Verdict) {
        // In front there is that nobody has told of them.
        let mut people: HashMap<User, MayBe<Option<u32>>> = HashMap::new();
        for event in &self.events {
            let names = people.entry(event.user).or_insert_with(|| MayBe(vec![None]));
            if event.what.tells_names() {
                names.tell(Some(event.renamed), self.outcome(event.name));
            }
        }
        for (user, may_be) in people {
            let id = user.id().to_string();
            let found = self.people.remove(&id);
            let holds = may_be.0.iter().any(|renamed| match (renamed, &found) {
                (Some(renamed), Some(found)) => *found == as_found(*renamed),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            });
            if !holds {
                verdict.wrong_people += 1;
                verdict.example(&id);
            }
        }
        verdict.wrong_people += self.people.len() as u64;
        self.people.keys().take(3).for_each(|id| verdict.example(id));
    }

    fn outcome(&self, name: Name) -> Outcome {
        self.ledger.record(name).map_or(Outcome::Failed, |record| record.outcome)
    }
}

fn key(id: &str) -> [u8; 16] {
    MessageKey::new(max::SOURCE, id).0
}

fn as_found(renamed: u32) -> Names {
    let (first, last) = max::names(renamed);
    (Some(first), last)
}

#[cfg(test)]
mod tests {
    use weir_store::Place;

    use super::*;

    const USER: User = User { sender: 0, number: 7 };
    const PLACE: Place = Place { partition: 0, ms: 1, seq: 1 };

    struct Books {
        _folder: tempfile::TempDir,
        ledger: Ledger,
    }

    impl Books {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(&folder.path().join("ledger"), 1, 1).unwrap();
            Self { _folder: folder, ledger }
        }

        /// Enters an event that was sent once, later than all before.
        fn event(&self, what: What, renamed: u32, outcome: Outcome) -> Name {
            let name = self.ledger.new_message(0, what.kind());
            let at_ms = 1_780_000_000_000 + i64::from(name.number);
            self.ledger.describe(Event { name, what, at_ms, user: USER, renamed });
            self.ledger.told(name, outcome, 0, None);
            name
        }

        fn edit(&self, of: Name, outcome: Outcome) -> Name {
            self.event(What::Edited { of, sent_ms: 0 }, 0, outcome)
        }

        fn row(&self, message: Name, told_by: Name, is_removed: bool) -> FoundRow {
            FoundRow {
                external_message_id: self.ledger.id(message),
                source: max::SOURCE.into(),
                text: Some(self.ledger.id(told_by)),
                is_removed,
                place: PLACE,
            }
        }

        /// The verdict on a row and a profile, if there is one.
        fn verdict(&self, row: Option<FoundRow>, profile: Option<u32>) -> Verdict {
            let mut max = Max::new(&self.ledger);
            row.iter().for_each(|row| assert!(max.row(row).is_some(), "a message of ours"));
            if let Some(renamed) = profile {
                let (first_name, last_name) = as_found(renamed);
                max.person(FoundPerson { user_id: USER.id().to_string(), first_name, last_name });
            }
            let mut verdict = Verdict::default();
            max.judge(&mut verdict);
            verdict
        }

        fn findings(&self, row: FoundRow) -> Vec<String> {
            self.verdict(Some(row), Some(0)).findings()
        }
    }

    fn contain(findings: &[String], finding: &str) {
        assert!(findings.len() == 1 && findings[0].contains(finding), "{finding}: {findings:?}");
    }

    #[test]
    fn a_message_says_what_its_last_acknowledged_edit_says_or_one_after_it_that_may_be_there() {
        let books = Books::new();
        let message = books.event(What::Created, 0, Outcome::Ok);
        let says = |told_by| books.findings(books.row(message, told_by, false));
        let lost = books.edit(message, Outcome::Unknown);
        let refused = books.edit(message, Outcome::Failed);
        for (told_by, may_be) in [(message, true), (lost, true), (refused, false)] {
            assert_eq!(says(told_by).is_empty(), may_be, "{told_by:?}: {:?}", says(told_by));
        }
        let edit = books.edit(message, Outcome::Ok);
        let later = books.edit(message, Outcome::Unknown);
        for told_by in [edit, later] {
            assert_eq!(says(told_by), Vec::<String>::new());
        }
        for told_by in [message, lost, refused] {
            contain(&says(told_by), "last acknowledged edit");
        }
        let silent = FoundRow { text: None, ..books.row(message, message, false) };
        contain(&books.findings(silent), "last acknowledged edit");
    }

    #[test]
    fn a_message_is_removed_if_that_was_acknowledged_and_only_if_it_was_sent() {
        let books = Books::new();
        let message = books.event(What::Created, 0, Outcome::Ok);
        let is_removed = |removed| books.findings(books.row(message, message, removed));
        assert_eq!(is_removed(false), Vec::<String>::new());
        contain(&is_removed(true), "that nobody removed");
        books.event(What::Removed { of: message }, 0, Outcome::Unknown);
        assert!(is_removed(false).is_empty() && is_removed(true).is_empty());
        books.event(What::Removed { of: message }, 0, Outcome::Ok);
        assert_eq!(is_removed(true), Vec::<String>::new());
        contain(&is_removed(false), "although they were removed");
    }

    #[test]
    fn a_profile_is_named_by_the_newest_acknowledged_event_or_one_after_it_that_may_be_there() {
        let books = Books::new();
        let named = |renamed| books.verdict(None, renamed).findings();
        books.event(What::Started, 0, Outcome::Unknown);
        assert!(named(None).is_empty() && named(Some(0)).is_empty());
        books.event(What::Pressed, 1, Outcome::Failed);
        contain(&named(Some(1)), "profiles are");
        books.event(What::Pressed, 2, Outcome::Ok);
        books.event(What::Poison, 3, Outcome::Ok);
        assert_eq!(named(Some(2)), Vec::<String>::new());
        for other in [None, Some(0), Some(1), Some(3)] {
            contain(&named(other), "profiles are");
        }
        books.event(What::Started, 3, Outcome::Unknown);
        assert!(named(Some(2)).is_empty() && named(Some(3)).is_empty());
    }

    #[test]
    fn a_profile_of_nobody_is_found() {
        let books = Books::new();
        contain(&books.verdict(None, Some(0)).findings(), "profiles are");
    }

    #[test]
    fn an_event_is_found_by_its_row_its_key_or_its_letter_and_by_nothing_of_another_kind() {
        let books = Books::new();
        let message = books.event(What::Created, 0, Outcome::Ok);
        let edit = books.edit(message, Outcome::Ok);
        let mut max = Max::new(&books.ledger);
        let id = |name: Name| max.events[name.number as usize].id(&books.ledger);
        let (created, edited) = (id(message), id(edit));
        assert_eq!((max.lone_key(&key(&edited)), max.lone_key(&key(&created))), (Some(edit), None));
        assert_eq!((max.letter(&edited), max.letter(&created), max.letter("mc:")), (Some(edit), Some(message), None));
        assert_eq!(max.row(&books.row(edit, edit, false)), None);
        assert_eq!(max.row(&books.row(message, message, false)), Some(message));
    }
}
