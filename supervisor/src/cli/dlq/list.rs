//! `weir dlq list`.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use weir_core::dead_letter::DeadLetter;

use super::filter::{Filter, Selection};
use super::place::Place;
use super::render::shorten;
use super::scan::Order;
use crate::Ending;
use crate::cli::Output;
use crate::context::Context;
use crate::output;

/// Letters shown when nothing else is said.
const SHOWN: u64 = 100;

/// List dead letters, the newest first
///
/// Shows 100 letters unless --limit says otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq list
  weir dlq list --class constraint --code 23514 --newer-than 2h
  weir dlq list --text 'out of range' --oldest-first --limit 10 --output json")]
pub(super) struct List {
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
    #[command(flatten)]
    filter: Filter,
}

/// A letter in a list.
#[derive(Debug, Serialize)]
struct Row {
    place: String,
    died_at: String,
    age_ms: u64,
    message_id: String,
    source: String,
    external_message_id: String,
    class: String,
    code: String,
    attempts: u32,
    error: String,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        let queue = super::open_queue(context).await?;
        let selection = Selection::new(&self.filter, &queue).await?;
        let order = if self.oldest_first { Order::OldestFirst } else { Order::NewestFirst };
        let limit = self.filter.limit.unwrap_or(SHOWN);
        let mut scan = selection.scan(&queue, order).unlimited();
        let mut rows = Vec::new();
        let more = loop {
            match scan.next().await? {
                Some(_) if rows.len() as u64 == limit => break true,
                Some(letter) => rows.push(Row::of(&letter, selection.now_ms)),
                None => break false,
            }
        };
        drop(scan);
        match context.output {
            Output::Json => output::json(&rows),
            Output::Table => print(&rows),
        }
        if more {
            output::remark(format_args!("There are more: --limit N shows N, `weir dlq stats` counts all."));
        }
        Ok(Ending::Done)
    }
}

impl Row {
    fn of(letter: &DeadLetter, now_ms: u64) -> Self {
        Self {
            place: Place::of(letter).to_string(),
            died_at: output::time(letter.died_ms()),
            age_ms: now_ms.saturating_sub(letter.died_ms()),
            message_id: format!("{}-{}", letter.partition, letter.origin),
            source: letter.source.clone(),
            external_message_id: letter.external_message_id.clone(),
            class: letter.class.clone(),
            code: letter.code.clone(),
            attempts: letter.journey.attempts,
            error: letter.error.clone(),
        }
    }
}

fn print(rows: &[Row]) {
    let heading = ["place", "age", "source", "external id", "class", "code", "attempts", "error"];
    output::rows(Output::Table, &heading, rows, |row| {
        vec![
            row.place.clone(),
            output::span(Duration::from_millis(row.age_ms)),
            row.source.clone(),
            row.external_message_id.clone(),
            row.class.clone(),
            row.code.clone(),
            row.attempts.to_string(),
            shorten(&row.error, 60),
        ]
    });
}
