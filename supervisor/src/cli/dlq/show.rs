//! `weir dlq show`.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;
use weir_core::dead_letter::DeadLetter;
use weir_core::journey::Attempt;
use weir_core::message::MessageId;
use weir_core::queue::Queue;
use weir_core::queue::letters::Shelf;

use super::filter::{Filter, Selection, signature_hash};
use super::place::Place;
use super::render;
use super::scan::Order;
use crate::Ending;
use crate::cli::Output;
use crate::context::Context;
use crate::output;

/// Show all that is known about one dead letter
///
/// Phones show their last four digits, and texts their length, unless --reveal is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq show 3/1732233600000-12                 by its place, as `list` shows it
  weir dlq show 1a2b3c4d5e6f7890abcdef1234567890   by the external message id
  weir dlq show 3-1732233500000-4 --reveal         by the message id that the sender got")]
pub(super) struct Show {
    /// Place, external message id or message id
    id: String,
    /// Show the phone and the text too
    #[arg(long)]
    reveal: bool,
    /// Look among the parked letters only
    #[arg(long)]
    parked: bool,
}

/// A letter, whole.
#[derive(Debug, Serialize)]
struct Details {
    place: String,
    shelf: &'static str,
    died_at: String,
    class: String,
    code: String,
    error: String,
    signature: String,
    signature_hash: String,
    source: String,
    external_message_id: String,
    message_id: String,
    accepted_at: Option<String>,
    attempts: u32,
    first_failed_at: Option<String>,
    log: Vec<Try>,
    crashes: u32,
    trace_id: String,
    replay: String,
    edited_by: String,
    version: String,
    payload: Value,
    original: Option<Value>,
}

/// One failed attempt.
#[derive(Debug, Serialize)]
struct Try {
    at: String,
    worker: String,
    class: String,
    error: String,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        let queue = super::open_queue(context).await?;
        let Some((shelf, letter)) = find(&queue, &self.id, self.parked).await? else {
            let id = output::escape(&self.id);
            output::remark(format_args!("No letter is in, or has, {id}; `weir message show {id}` looks everywhere."));
            return Ok(Ending::Negative);
        };
        let details = Details::of(shelf, &letter, self.reveal);
        match context.output {
            Output::Json => output::json(&details),
            Output::Table => details.print(&letter, self.reveal),
        }
        Ok(Ending::Done)
    }
}

/// The one letter that an operator means, and where it lies.
pub(super) async fn find(queue: &Queue, id: &str, parked: bool) -> Result<Option<(Shelf, DeadLetter)>> {
    let shelves = if parked { vec![true] } else { vec![false, true] };
    let mut found = Vec::new();
    for parked in shelves {
        let filter = match id.parse::<Place>() {
            Ok(place) => Filter::places(vec![place], parked),
            Err(_) => Filter::ids(vec![id.to_owned()], parked),
        };
        let selection = Selection::new(&filter, queue).await?;
        let letters = selection.scan(queue, Order::NewestFirst).some(20).await?;
        found.extend(letters.into_iter().map(|letter| (selection.shelf(), letter)));
    }
    if found.len() > 1 {
        let places: Vec<_> = found.iter().map(|(shelf, l)| format!("{} ({})", Place::of(l), shelf.name())).collect();
        bail!("{id} is in more than one place; name one of them: {}", places.join(", "));
    }
    Ok(found.pop())
}

impl Details {
    fn of(shelf: Shelf, letter: &DeadLetter, reveal: bool) -> Self {
        let signature = letter.signature();
        let origin = MessageId::from_entry(letter.partition, &letter.origin);
        let first = letter.journey.first_failed_ms;
        Self {
            place: Place::of(letter).to_string(),
            shelf: shelf.name(),
            died_at: output::time(letter.died_ms()),
            class: letter.class.clone(),
            code: letter.code.clone(),
            error: letter.error.clone(),
            signature_hash: signature_hash(&signature),
            signature,
            source: letter.source.clone(),
            external_message_id: letter.external_message_id.clone(),
            message_id: format!("{}-{}", letter.partition, letter.origin),
            accepted_at: origin.map(|origin| output::time(origin.ms)),
            attempts: letter.journey.attempts,
            first_failed_at: (first > 0).then(|| output::time(first)),
            log: letter.journey.log.iter().map(Try::of).collect(),
            crashes: letter.crashes,
            trace_id: letter.trace.clone(),
            replay: letter.replay.clone(),
            edited_by: letter.edited.clone(),
            version: letter.version.clone(),
            payload: render::payload_value(&letter.envelope, reveal),
            original: (!letter.original.is_empty()).then(|| render::payload_value(&letter.original, reveal)),
        }
    }

    fn print(&self, letter: &DeadLetter, reveal: bool) {
        let mut lines = vec![
            ("place", format!("{} ({})", self.place, self.shelf)),
            ("died", self.died_at.clone()),
            ("class", self.class.clone()),
            ("code", self.code.clone()),
            ("error", self.error.clone()),
            ("signature", format!("{} {}", self.signature_hash, self.signature)),
            ("source", self.source.clone()),
            ("external id", self.external_message_id.clone()),
            ("message id", self.message_id.clone()),
            ("accepted", self.accepted_at.clone().unwrap_or_default()),
            ("attempts", self.attempts.to_string()),
            ("first failed", self.first_failed_at.clone().unwrap_or_default()),
            ("crashes", self.crashes.to_string()),
            ("trace id", self.trace_id.clone()),
            ("replay", self.replay.clone()),
            ("edited by", self.edited_by.clone()),
            ("version", self.version.clone()),
        ];
        lines.retain(|(_, value)| !value.is_empty());
        output::record(Output::Table, &(), &lines);
        self.print_log();
        print_payload("payload", &letter.envelope, reveal);
        if !letter.original.is_empty() {
            print_payload("payload as it came, before it was edited", &letter.original, reveal);
        }
    }

    fn print_log(&self) {
        if self.log.is_empty() {
            return;
        }
        output::line(format_args!("\nlast {} of {} attempts", self.log.len(), self.attempts));
        output::rows(Output::Table, &["at", "worker", "class", "error"], &self.log, |attempt| {
            vec![attempt.at.clone(), attempt.worker.clone(), attempt.class.clone(), attempt.error.clone()]
        });
    }
}

impl Try {
    fn of(attempt: &Attempt) -> Self {
        Self {
            at: output::time(attempt.at_ms),
            worker: attempt.worker.clone(),
            class: attempt.class.clone(),
            error: attempt.error.clone(),
        }
    }
}

fn print_payload(title: &str, bytes: &[u8], reveal: bool) {
    output::line(format_args!("\n{title}"));
    for line in render::payload(bytes, reveal) {
        output::line(line);
    }
}
