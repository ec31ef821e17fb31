//! A sender as MAX is: it tells of messages, of what becomes of them, and of people who now and then are called otherwise.

use std::collections::VecDeque;
use std::time::SystemTime;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;

use super::{Deadline, Sender, remember};
use crate::ledger::Outcome;
use crate::max::{Event, PATH, User, What};

/// So many users, the newest ones, talk to a bot. Of all others it shows for good how their last events were taken.
const TALKING: usize = 8;

/// How many of its messages a sender may still change.
const CHANGEABLE: usize = 64;

/// What a sender knows of the bot that its events are for.
pub(super) struct Bot {
    /// How often each user was renamed.
    users: Vec<u32>,
    /// The time of the last event.
    at_ms: i64,
    /// Messages that were acknowledged, the newest one last.
    messages: VecDeque<Event>,
    /// Events that were acknowledged.
    acknowledged: Vec<Event>,
}

impl Bot {
    pub(super) fn new() -> Self {
        Self { users: vec![0], at_ms: 0, messages: VecDeque::new(), acknowledged: Vec::new() }
    }

    /// The time of a new event: now, and later than any before.
    fn next_time(&mut self) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        self.at_ms = now.max(self.at_ms + 1);
        self.at_ms
    }

    /// What happens to a message that is there already, or to one that is not.
    fn draw(&self, poison: u32, rng: &mut StdRng) -> (What, Option<Event>) {
        if rng.random_range(0..1000) < poison {
            return (What::Poison, None);
        }
        match (rng.random_range(0..100), self.some_message(rng)) {
            (0..25, Some(message)) => (What::Edited { of: message.name, sent_ms: message.at_ms }, Some(message)),
            (25..32, Some(message)) => (What::Removed { of: message.name }, Some(message)),
            (32..47, _) => (What::Pressed, None),
            (47..55, _) => (What::Started, None),
            _ => (What::Created, None),
        }
    }

    /// Mostly the newest one: it may not be stored yet.
    fn some_message(&self, rng: &mut StdRng) -> Option<Event> {
        let last = self.messages.len().checked_sub(1)?;
        let at = if rng.random_range(0..3) > 0 { last } else { rng.random_range(0..=last) };
        self.messages.get(at).copied()
    }

    fn somebody(&mut self, rng: &mut StdRng) -> u32 {
        if rng.random_range(0..10) == 0 {
            self.users.push(0);
        }
        let newest = self.users.len().min(TALKING);
        (self.users.len() - 1 - rng.random_range(0..newest)) as u32
    }

    /// How often a user was renamed, which may be once more than a moment ago.
    fn renamed(&mut self, user: u32, tells_names: bool, rng: &mut StdRng) -> u32 {
        let renamed = &mut self.users[user as usize];
        *renamed += u32::from(tells_names && rng.random_range(0..8) == 0);
        *renamed
    }

    fn acknowledge(&mut self, event: Event, rng: &mut StdRng) {
        if event.what == What::Created {
            self.messages.push_back(event);
            if self.messages.len() > CHANGEABLE {
                self.messages.pop_front();
            }
        }
        if event.what != What::Poison {
            remember(&mut self.acknowledged, event, rng);
        }
    }
}

impl Sender {
    /// Sends one event until it is acknowledged or given up, or an earlier one once more.
    pub(super) async fn send_event(&mut self) {
        if self.rng.random_range(0..1000) < self.mix.repeats {
            return self.repeat_event().await;
        }
        let event = self.next_event();
        let mut deadline = Deadline::new(&self.stop);
        loop {
            let (outcome, status, body) = self.exchange(PATH, event.body(&self.shared.ledger), 1).await;
            let told = self.of_event(outcome, &body);
            self.shared.ledger.told(event.name, told, status, body["message_id"].as_str());
            if told == Outcome::Ok {
                self.shared.count();
                self.bot.acknowledge(event, &mut self.rng);
            }
            // Who is told 2xx is content, whatever else it says.
            if outcome == Outcome::Ok || self.gives_up(outcome) || deadline.is_over() {
                return;
            }
            self.pause().await;
        }
    }

    fn next_event(&mut self) -> Event {
        let (bot, rng) = (&mut self.bot, &mut self.rng);
        let (what, message) = bot.draw(self.mix.poison, rng);
        if let What::Removed { of } = what {
            bot.messages.retain(|message| message.name != of);
        }
        let user =
            message.map_or_else(|| User { sender: self.number, number: bot.somebody(rng) }, |message| message.user);
        let renamed = bot.renamed(user.number, what.tells_names(), rng);
        let name = self.shared.ledger.new_message(self.number, what.kind());
        let event = Event { name, what, at_ms: bot.next_time(), user, renamed };
        self.shared.ledger.describe(event);
        event
    }

    async fn repeat_event(&mut self) {
        let known = self.bot.acknowledged.len();
        if known == 0 {
            return;
        }
        let event = self.bot.acknowledged[self.rng.random_range(0..known)];
        let (_, status, body) = self.exchange(PATH, event.body(&self.shared.ledger), 0).await;
        self.shared.ledger.repeated(event.name, status, body["message_id"].as_str());
    }

    /// MAX is told 200 also of what is ignored.
    fn of_event(&self, outcome: Outcome, body: &Value) -> Outcome {
        match (outcome, body["status"].as_str()) {
            (Outcome::Ok, Some("accepted" | "duplicate")) => Outcome::Ok,
            (Outcome::Ok, _) => {
                self.shared.ledger.ignored();
                Outcome::Failed
            }
            (outcome, _) => outcome,
        }
    }
}
