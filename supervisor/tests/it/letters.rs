//! Plants messages in every state, with a worker that does as it is told.

use std::collections::HashMap;
use std::time::Duration;

use weir_core::dead_letter::DeadLetter;
use weir_core::journey::{Attempt, Journey};
use weir_core::message::{ENTRY_VERSION, Message, MessageId};
use weir_core::queue::Queue;
use weir_core::queue::consume::{Entry, Lane, Target};
use weir_core::queue::enqueue::{Bounds, Enqueued, Enqueuer, NewEntry};

/// A phone and a text that nobody must see.
pub(crate) const PHONE: &str = "+79194961182";
pub(crate) const TEXT: &str = "the secret text";

/// The time of every journey's failure: 2025-05-01T00:00:00Z.
const FAILED_MS: u64 = 1_746_057_600_000;

/// A message of source `messenger`.
pub(crate) fn message(id: &str) -> Message<'_> {
    Message {
        source: "messenger".into(),
        external_message_id: id.into(),
        external_client_id: "client-1".into(),
        client_phone: PHONE.into(),
        message_text: TEXT.into(),
        send_at: 1_640_995_200,
        extra: None,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
    }
}

/// Accepts messages as the gateway does.
pub(crate) async fn accept(queue: &Queue, messages: &[Message<'_>]) -> Vec<MessageId> {
    let bounds =
        Bounds { backlog: 1_000_000, window: Duration::from_secs(3600), remembered: 1_000_000, replicas: None };
    let entries: Vec<_> = messages.iter().map(NewEntry::from).collect();
    let results = Enqueuer::new(queue.clone(), bounds).enqueue(&entries).await;
    let id = |result| match result {
        Ok(Enqueued::New(id)) => id,
        other => panic!("not accepted: {other:?}"),
    };
    results.into_iter().map(id).collect()
}

/// A worker in all partitions that does as it is told.
pub(crate) struct Hand {
    queue: Queue,
    name: String,
}

/// An entry that it read, and the partition.
pub(crate) type Held = (u16, Entry);

impl Hand {
    pub(crate) async fn join(queue: &Queue, name: &str) -> Self {
        for partition in 0..queue.partitions() {
            queue.join(partition, Duration::from_secs(3600), &[name.to_owned()]).await.expect("a lease");
        }
        Self { queue: queue.clone(), name: name.to_owned() }
    }

    /// Everything that nobody has read in a lane.
    pub(crate) async fn read(&self, lane: Lane) -> Vec<Held> {
        let mut held = Vec::new();
        for partition in 0..self.queue.partitions() {
            let block = Duration::from_millis(1);
            let entries = self.queue.read_new(partition, lane, &self.name, 10_000, block).await.expect("entries");
            held.extend(entries.into_iter().map(|entry| (partition, entry)));
        }
        held
    }

    /// Makes dead letters of entries.
    pub(crate) async fn bury(&self, held: &[Held], change: impl Fn(&mut DeadLetter)) {
        self.move_to(held, |entry| Target::Dead(Box::new(letter(entry, &change)))).await;
    }

    /// Sets entries aside.
    pub(crate) async fn park(&self, held: &[Held]) {
        let change = |letter: &mut DeadLetter| letter.class = "version".into();
        self.move_to(held, |entry| Target::Parked(Box::new(letter(entry, change)))).await;
    }

    /// Has entries wait for their next attempt.
    pub(crate) async fn delay(&self, held: &[Held], delay: Duration) {
        self.move_to(held, |_| Target::Retry { journey: journey(2), delay }).await;
    }

    pub(crate) async fn settle(&self, held: &[Held]) {
        for (partition, entry) in held {
            self.queue.settle(*partition, entry.lane, &self.name, &[&entry.id], &[]).await.expect("settled");
        }
    }

    async fn move_to(&self, held: &[Held], target: impl Fn(&Entry) -> Target) {
        let mut groups: HashMap<(u16, Lane), Vec<(&Entry, Target)>> = HashMap::new();
        for (partition, entry) in held {
            groups.entry((*partition, entry.lane)).or_default().push((entry, target(entry)));
        }
        for ((partition, lane), moves) in groups {
            self.queue.move_entries(partition, lane, &self.name, &moves).await.expect("moved");
        }
    }
}

fn letter(entry: &Entry, change: impl Fn(&mut DeadLetter)) -> DeadLetter {
    let envelope = entry.envelope.clone().unwrap_or_default();
    let message: Option<Message<'_>> = serde_json::from_slice(&envelope).ok();
    let source = message.as_ref().map(|message| message.source.to_string()).unwrap_or_default();
    let id = message.as_ref().map(|message| message.external_message_id.to_string()).unwrap_or_default();
    let mut letter = DeadLetter {
        version: ENTRY_VERSION.into(),
        envelope: envelope.clone(),
        journey: journey(1),
        origin: entry.origin.clone(),
        class: "data".into(),
        code: "22021".into(),
        error: "value 17 is too long".into(),
        source,
        external_message_id: id,
        trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        replay: entry.replay.clone(),
        ..DeadLetter::default()
    };
    change(&mut letter);
    letter
}

fn journey(attempts: u64) -> Journey {
    let mut journey = Journey::default();
    for attempt in 0..attempts {
        let at_ms = FAILED_MS + 1000 * attempt;
        let (worker, class, error) = ("worker-7".into(), "data".into(), "value 17 is too long".into());
        journey.failed(Attempt { at_ms, worker, class, error });
    }
    journey
}

/// Accepts messages with these ids and makes dead letters of them.
pub(crate) async fn plant(queue: &Queue, ids: &[&str], change: impl Fn(&mut DeadLetter)) {
    let messages: Vec<_> = ids.iter().map(|id| message(id)).collect();
    plant_messages(queue, &messages, change).await;
}

/// Accepts messages and makes dead letters of them.
pub(crate) async fn plant_messages(queue: &Queue, messages: &[Message<'_>], change: impl Fn(&mut DeadLetter)) {
    accept(queue, messages).await;
    let hand = Hand::join(queue, &weir_stack::testing::unique_name()).await;
    hand.bury(&hand.read(Lane::Ingest).await, change).await;
}

/// Puts an entry that is no message into the ingest stream of a partition, and makes a dead letter of it.
pub(crate) async fn plant_rubbish(queue: &Queue, partition: u16, bytes: &[u8]) {
    let mut add = redis::cmd("XADD");
    add.arg(&queue.keys(partition).ingest).arg("*").arg("v").arg("1").arg("e").arg(bytes);
    queue.command::<String>(&add).await.expect("an entry");
    let hand = Hand::join(queue, &weir_stack::testing::unique_name()).await;
    let change = |letter: &mut DeadLetter| {
        (letter.class, letter.code, letter.error) = ("decode".into(), String::new(), "the envelope is broken".into());
    };
    hand.bury(&hand.read(Lane::Ingest).await, change).await;
}

/// Puts a dead letter with a chosen time of death into a partition that has no younger one.
pub(crate) async fn plant_at(queue: &Queue, partition: u16, ms: u64, id: &str, class: &str, error: &str) {
    let letter = DeadLetter {
        version: ENTRY_VERSION.into(),
        envelope: message(id).encode(),
        origin: format!("{}-0", ms - 1000),
        class: class.into(),
        error: error.into(),
        source: "messenger".into(),
        external_message_id: id.into(),
        ..DeadLetter::default()
    };
    let mut add = redis::cmd("XADD");
    add.arg(&queue.keys(partition).dead).arg(format!("{ms}-0"));
    for (name, value) in letter.fields() {
        add.arg(name).arg(value);
    }
    queue.command::<String>(&add).await.expect("a letter");
}

/// All entries of a stream in all partitions, by field.
pub(crate) async fn entries(queue: &Queue, stream: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut all = Vec::new();
    for partition in 0..queue.partitions() {
        let name = format!("weir:{{{partition}}}:{stream}");
        for entry in queue.range(&name, "-", "+", 100_000).await.expect("entries") {
            let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
            let fields = entry.fields.into_iter().map(|(name, value)| (name, text(value))).collect();
            all.push((format!("{partition}/{}", entry.id), fields));
        }
    }
    all
}
