//! Puts messages into every place where one can be.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;
use weir_core::dead_letter::DeadLetter;
use weir_core::event::{Content, Event, MessageChange};
use weir_core::journey::{Attempt, Journey};
use weir_core::message::{ENTRY_VERSION, Message, MessageId, MessageKey};
use weir_core::queue::Queue;
use weir_core::queue::consume::{Entry, Lane, Target};
use weir_core::queue::enqueue::{Bounds, Enqueued, Enqueuer, NewEntry};
use weir_store::{DialogCache, Effect, NewEvent, Place, Store};

/// A message of the messenger.
pub(crate) fn message(id: &str) -> Message<'_> {
    Message {
        source: "messenger".into(),
        external_message_id: id.into(),
        external_client_id: "client-1".into(),
        client_phone: "+79190000001".into(),
        message_text: "a text".into(),
        send_at: 1_782_864_000,
        extra: None,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
    }
}

/// A message of MAX.
pub(crate) fn max_message(id: &str) -> Event<'_> {
    let content = Content {
        id: id.into(),
        client: "42".into(),
        dialog: "77".into(),
        text: Some("a text".into()),
        sent_ms: 1_782_864_000_000,
        extra: None,
    };
    Event {
        source: "max".into(),
        id: format!("mc:{id}").into(),
        kind: "message_created".into(),
        at_ms: 1_782_864_000_000,
        message: Some(MessageChange::Created(content)),
        user: None,
        traceparent: "".into(),
    }
}

/// Accepts one as the gateway does.
pub(crate) async fn accept(queue: &Queue, entry: impl Into<NewEntry>) -> MessageId {
    let bounds =
        Bounds { backlog: 1_000_000, window: Duration::from_secs(3600), remembered: 1_000_000, replicas: None };
    match Enqueuer::new(queue.clone(), bounds).enqueue(&[entry.into()]).await.pop() {
        Some(Ok(Enqueued::New(id))) => id,
        other => panic!("not accepted: {other:?}"),
    }
}

/// A worker in all partitions that does as it is told.
pub(crate) struct Hand(Queue);

const NAME: &str = "hand";

impl Hand {
    pub(crate) async fn join(queue: &Queue) -> Self {
        for partition in 0..queue.partitions() {
            queue.join(partition, Duration::from_secs(3600), &[NAME.to_owned()]).await.expect("a lease");
        }
        Self(queue.clone())
    }

    /// The one entry of a lane that nobody has read.
    pub(crate) async fn read(&self, lane: Lane) -> (u16, Entry) {
        for partition in 0..self.0.partitions() {
            let found = self.0.read_new(partition, lane, NAME, 10, Duration::from_millis(1)).await.expect("entries");
            if let Some(entry) = found.into_iter().next() {
                return (partition, entry);
            }
        }
        panic!("nobody waits in {lane:?}")
    }

    pub(crate) async fn settle(&self, (partition, entry): &(u16, Entry)) {
        self.0.settle(*partition, entry.lane, NAME, &[&entry.id], &[]).await.expect("settled");
    }

    pub(crate) async fn delay(&self, held: &(u16, Entry)) {
        let mut journey = Journey::default();
        let (worker, class, error) = (NAME.into(), "data".into(), "wrong".into());
        journey.failed(Attempt { at_ms: 1_782_864_000_000, worker, class, error });
        self.move_to(held, Target::Retry { journey, delay: Duration::from_secs(3600) }).await;
    }

    pub(crate) async fn bury(&self, held: &(u16, Entry)) {
        self.move_to(held, Target::Dead(Box::new(letter(&held.1, "data")))).await;
    }

    pub(crate) async fn park(&self, held: &(u16, Entry)) {
        self.move_to(held, Target::Parked(Box::new(letter(&held.1, "version")))).await;
    }

    async fn move_to(&self, (partition, entry): &(u16, Entry), target: Target) {
        self.0.move_entries(*partition, entry.lane, NAME, &[(entry, target)]).await.expect("moved");
    }
}

fn letter(entry: &Entry, class: &str) -> DeadLetter {
    DeadLetter {
        version: ENTRY_VERSION.into(),
        envelope: entry.envelope.clone().unwrap_or_default(),
        origin: entry.origin.clone(),
        class: class.into(),
        error: "value 17 is too long".into(),
        ..DeadLetter::default()
    }
}

/// A message that is ready to be stored: number `n` of a client and a dialog.
pub(crate) fn row(source: &str, client: &str, dialog: &str, n: usize, phone: Option<&str>) -> NewEvent {
    let id = format!("{client}-{dialog}-{n}");
    let key = if source == "max" { format!("mc:{id}") } else { id.clone() };
    let number = i64::try_from(n).expect("a small number");
    NewEvent {
        key: Uuid::from_bytes(MessageKey::new(source, &key).0),
        source: source.into(),
        effect: Effect::Message,
        external_message_id: id,
        external_client_id: client.to_owned(),
        client_phone: phone.map(str::to_owned),
        external_dialog_id: dialog.to_owned(),
        text: Some(format!("text {n}")),
        extra: None,
        send_at: sent(n),
        trace_id: None,
        fingerprint: number,
        place: Place { partition: 1, ms: 1_782_864_000_000, seq: number },
        news: None,
    }
}

/// When the message of this number was sent: a second after the one before, from 2026-07-01 on.
pub(crate) fn sent(n: usize) -> OffsetDateTime {
    let seconds = i64::try_from(n).expect("a small number");
    OffsetDateTime::from_unix_timestamp(1_782_864_000 + seconds).expect("a time")
}

pub(crate) async fn persist(store: &Store, rows: &[NewEvent]) {
    for some in rows.chunks(1000) {
        store.persist(&DialogCache::new(1000), some).await.expect("stored");
    }
}
