//! `weir message show`.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use weir_core::event::id_of_message;
use weir_core::message::{MessageId, MessageKey};
use weir_core::queue::trail::{self, Trail, Wanted};
use weir_core::queue::{Queue, enqueue};
use weir_store::Store;

use super::row::{self, Row};
use super::sighting::Sighting;
use crate::Ending;
use crate::cli::Output;
use crate::cli::dlq::open_queue;
use crate::context::Context;
use crate::output;

/// Show the whole journey of one message
///
/// Looks in the queue, among the dead letters and in PostgreSQL, and works without PostgreSQL too. Ends with code 3
/// when nothing is known about the id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir message show 1a2b3c4d5e6f7890abcdef1234567890   by the sender's id
  weir message show 3-1732233600000-12                 by the message id in the gateway's answer
  weir message show --source max mid.000000000adf429c --output json")]
pub(super) struct Show {
    /// External message id, or message id such as 3-1732233600000-12
    id: String,
    /// Source of an external message id [default: messenger, then max]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// The source of the customer's own messenger.
const MESSENGER: &str = "messenger";

/// MAX, whose events are more than messages.
const MAX: &str = "max";

/// Everything that is known about a message.
#[derive(Debug, Serialize)]
struct Journey {
    message_id: Option<String>,
    source: Option<String>,
    external_message_id: Option<String>,
    partition: u16,
    entry: Option<String>,
    accepted_at: Option<String>,
    trace_id: Option<String>,
    /// Where it is in the queue; empty when it has left it.
    now: Vec<Sighting>,
    attempts: u32,
    crashes: u32,
    replay: Option<String>,
    row: Option<Row>,
    events: Vec<Event>,
    notes: Vec<String>,
}

/// Something that happened to it.
#[derive(Debug, Serialize)]
struct Event {
    at: String,
    #[serde(skip)]
    ms: u64,
    what: String,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        let queue = open_queue(context).await?;
        let mut journey = None;
        let mut notes = Vec::new();
        let store = match context.store().await {
            Ok(store) => Some(store),
            Err(error) => {
                notes.push(format!("whether it is stored cannot be said: {error:#}"));
                None
            }
        };
        for wanted in self.meanings(&queue)? {
            let found = look(&queue, store.as_ref(), wanted, &notes).await?;
            if found.is_some() {
                journey = found;
                break;
            }
        }
        let Some(journey) = journey else {
            return Ok(self.nothing(context.output, &notes));
        };
        match context.output {
            Output::Json => output::json(&journey),
            Output::Table => journey.print(),
        }
        Ok(Ending::Done)
    }

    /// What the id can mean: a message id first, because external ids may look like one.
    fn meanings(&self, queue: &Queue) -> Result<Vec<Wanted>> {
        let mut meanings = Vec::new();
        let as_message_id = self.id.parse::<MessageId>().ok().filter(|_| self.source.is_none());
        if let Some(id) = as_message_id.filter(|id| id.partition < queue.partitions()) {
            meanings.push(Wanted { partition: id.partition, origin: Some(id), name: None });
        }
        if self.id.is_empty() {
            bail!("the id is empty");
        }
        let mut sent = |source: &str, id: String| {
            let partition = MessageKey::new(source, &id).partition(queue.partitions());
            meanings.push(Wanted { partition, origin: None, name: Some((source.to_owned(), id)) });
        };
        let sources = match &self.source {
            Some(source) => vec![source.as_str()],
            None => vec![MESSENGER, MAX],
        };
        for source in sources {
            // An event without a message is asked for by its own id.
            sent(source, self.id.clone());
            if source == MAX {
                sent(source, id_of_message(source, &self.id));
            }
        }
        Ok(meanings)
    }

    fn nothing(&self, form: Output, notes: &[String]) -> Ending {
        if form == Output::Json {
            output::json(&serde_json::Value::Null);
        }
        let source = self.source.as_deref().unwrap_or("messenger or max");
        let id = output::escape(&self.id);
        output::remark(format_args!(
            "Nothing is known about {id}: it is no message id in this queue, and source {source} sent no such id. \
             Another source: --source NAME."
        ));
        for note in notes {
            output::remark(output::escape(note));
        }
        Ending::Negative
    }
}

/// Looks for one meaning of the id; none when nothing is known.
async fn look(queue: &Queue, store: Option<&Store>, wanted: Wanted, notes: &[String]) -> Result<Option<Journey>> {
    let mut notes = notes.to_vec();
    let remembered = match &wanted.name {
        Some((source, id)) => enqueue::find(queue, MessageKey::new(source, id)).await?,
        None => None,
    };
    let wanted = Wanted { origin: wanted.origin.or(remembered), ..wanted };
    // An entry that moves while we look can be overlooked, but hardly twice.
    for is_last in [false, true] {
        let trail = trail::follow(queue, &wanted).await?;
        let row = match store {
            Some(store) => row::find(store, trail.name.as_ref(), trail.origin).await.unwrap_or_else(|error| {
                notes.push(format!("whether it is stored cannot be said: {error:#}"));
                None
            }),
            None => None,
        };
        if !trail.sightings.is_empty() || row.is_some() || is_last {
            let is_known =
                !trail.sightings.is_empty() || row.is_some() || remembered.is_some() || trail.trace.is_some();
            return Ok(is_known.then(|| Journey::of(wanted.partition, trail, row, notes)));
        }
    }
    Ok(None)
}

impl Journey {
    fn of(partition: u16, mut trail: Trail, row: Option<Row>, mut notes: Vec<String>) -> Self {
        let from_row = row.as_ref().and_then(|row| row.message_id.parse::<MessageId>().ok());
        let origin = trail.origin.or(from_row);
        notes.extend(remarks(&trail, row.as_ref(), origin));
        let now: Vec<_> = std::mem::take(&mut trail.sightings).into_iter().map(Sighting::of).collect();
        let (source, external_message_id) = trail.name.clone().unzip();
        let text_of = |of: fn(&Row) -> &Option<String>| row.as_ref().and_then(|row| of(row).clone());
        Self {
            message_id: origin.map(|id| id.to_string()),
            source: source.or_else(|| text_of(|row| &row.source)),
            external_message_id: external_message_id.or_else(|| text_of(|row| &row.external_message_id)),
            partition: origin.map_or(partition, |id| id.partition),
            entry: origin.map(|id| id.entry()),
            accepted_at: origin.map(|id| output::time(id.ms)),
            trace_id: trail.trace.clone().or_else(|| text_of(|row| &row.trace_id)),
            events: events(&trail, row.as_ref(), origin, &now),
            now,
            attempts: trail.attempts,
            crashes: trail.crashes,
            replay: trail.replay,
            row,
            notes,
        }
    }

    fn print(&self) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut lines = vec![
            ("message id", text(&self.message_id)),
            ("source", text(&self.source)),
            ("external id", text(&self.external_message_id)),
            ("partition", self.partition.to_string()),
            ("entry", text(&self.entry)),
            ("accepted", text(&self.accepted_at)),
            ("trace id", text(&self.trace_id)),
            ("replay", text(&self.replay)),
        ];
        lines.extend(self.now.iter().map(|sighting| ("now", sighting.to_string())));
        if let Some(row) = &self.row {
            lines.push(("stored", describe(row)));
            lines.push(("accept to row", row.accept_to_row_ms.map(milliseconds).unwrap_or_default()));
        }
        lines.retain(|(_, value)| !value.is_empty());
        output::record(Output::Table, &(), &lines);
        output::line("");
        output::rows(Output::Table, &["at", "what happened"], &self.events, |event| {
            vec![event.at.clone(), event.what.clone()]
        });
        for note in &self.notes {
            output::remark(format_args!("Note: {}", output::escape(note)));
        }
    }
}

fn milliseconds(ms: u64) -> String {
    output::span(Duration::from_millis(ms))
}

fn describe(row: &Row) -> String {
    let id = |name: &str, id: Option<i64>| id.map(|id| format!("{name} {id}"));
    let parts = [
        id("message", row.row_id),
        row.partition_table.as_ref().map(|table| format!("in {table}")),
        id("dialog", row.dialog_id),
        id("client", row.client_id),
        row.stored_at.as_ref().map(|at| format!("at {at}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What an operator could misread.
fn remarks(trail: &Trail, row: Option<&Row>, origin: Option<MessageId>) -> Vec<String> {
    let mut remarks = Vec::new();
    for stream in &trail.cut {
        remarks.push(format!("{stream} is too long to look at whole: it may be there too"));
    }
    match row {
        Some(row) if origin.is_some_and(|id| id.to_string() != row.message_id) => {
            remarks.push(format!("the row comes from {}: this one is a repeat of it, or a conflict", row.message_id));
        }
        Some(row) if row.partition_table.is_none() => {
            remarks.push("the row itself is gone: its month was detached, or the event made no message".to_owned());
        }
        Some(_) => {}
        None if trail.sightings.is_empty() => remarks.push(
            "it was accepted and has left the queue, and no row was seen: it was a repeat, was purged, or PostgreSQL \
             was not asked"
                .to_owned(),
        ),
        None => {}
    }
    remarks
}

/// What happened, in the order of time.
fn events(trail: &Trail, row: Option<&Row>, origin: Option<MessageId>, now: &[Sighting]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut add = |ms: u64, what: String| events.push(Event { at: output::time(ms), ms, what });
    if let Some(id) = origin {
        add(id.ms, format!("accepted into partition {} as entry {}", id.partition, id.entry()));
    }
    let first = trail.attempts.saturating_sub(trail.log.len() as u32) + 1;
    for (number, attempt) in (first..).zip(&trail.log) {
        add(
            attempt.at_ms,
            format!("attempt {number} by {} failed: {} {}", attempt.worker, attempt.class, attempt.error),
        );
    }
    for sighting in now {
        match (sighting, trail.died_ms) {
            (Sighting::Dead { place, .. }, Some(ms)) => add(ms, format!("given up: dead letter {place}")),
            (Sighting::Parked { place, .. }, Some(ms)) => add(ms, format!("set aside: parked letter {place}")),
            _ => {}
        }
    }
    if let Some((ms, row)) = row.and_then(|row| Some((row.stored_ms?, row))) {
        add(ms, format!("stored: {}", describe(row)));
    }
    events.sort_by_key(|event| event.ms);
    events
}
