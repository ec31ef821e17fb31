//! `weir dlq purge`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;
use weir_core::queue::Queue;
use weir_core::queue::letters::Author;

use super::filter::{Filter, Selection};
use super::groups::{self, Groups};
use super::scan::Order;
use super::{author, export};
use crate::Ending;
use crate::cli::Output;
use crate::cli::consent::{self, Preview};
use crate::context::Context;
use crate::output;

/// Letters in one call: Redis does nothing else meanwhile.
const CHUNK: usize = 200;

/// Remove dead letters for good
///
/// Removes what the filters select at the start; who, when and why goes to the audit stream.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq purge --class conflict --older-than 30d --dry-run
  weir dlq purge --class conflict --older-than 30d --export conflicts.ndjson --reason 'agreed with the provider'")]
pub(super) struct Purge {
    /// Every letter, when no filter is given
    #[arg(long)]
    all: bool,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Export the letters to this file first
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Why, for the audit stream
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

/// How a purge ended.
#[derive(Debug, Serialize)]
struct Summary {
    selected: u64,
    exported: u64,
    purged: u64,
    gone_already: u64,
    dry_run: bool,
}

impl Purge {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        self.filter.must_select(self.all, "purge")?;
        let queue = super::open_queue(context).await?;
        let selection = Selection::new(&self.filter, &queue).await?;
        let groups = group(&queue, &selection).await?;
        let selected = groups.total();
        let mut summary = Summary { selected, exported: 0, purged: 0, gone_already: 0, dry_run: self.dry_run };
        if context.output == Output::Table && selected > 0 {
            groups::print(&groups.sorted());
        }
        if !self.dry_run && selected > 0 {
            let question = format!("Remove {} for good?", output::counted(selected, self.filter.noun()));
            consent::ask(&question, self.yes, Preview::DryRun)?;
            if let Some(file) = &self.export {
                summary.exported = export::to_file(&queue, &selection, file).await?;
            }
            summary.purged = purge(&queue, &selection, &author(self.reason.as_deref())).await?;
            summary.gone_already = selected - summary.purged.min(selected);
        }
        summary.print(context.output);
        Ok(Ending::Done)
    }
}

async fn group(queue: &Queue, selection: &Selection) -> Result<Groups> {
    let mut groups = Groups::default();
    let mut scan = selection.scan(queue, Order::OldestFirst);
    while let Some(letter) = scan.next().await? {
        groups.add(&letter);
    }
    Ok(groups)
}

async fn purge(queue: &Queue, selection: &Selection, author: &Author) -> Result<u64> {
    let mut scan = selection.scan(queue, Order::OldestFirst);
    let mut purged = 0;
    loop {
        let mut ids: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for letter in scan.some(CHUNK).await? {
            ids.entry(letter.partition).or_default().push(letter.entry);
        }
        if ids.is_empty() {
            return Ok(purged);
        }
        for (partition, ids) in ids {
            let ids: Vec<_> = ids.iter().map(String::as_str).collect();
            let gone = queue.purge(partition, selection.shelf(), author, &ids).await;
            purged += gone.with_context(|| format!("{purged} letters were purged, then it failed"))?;
        }
    }
}

impl Summary {
    fn print(&self, form: Output) {
        let mut lines = vec![("selected", self.selected.to_string())];
        if self.exported > 0 {
            lines.push(("exported", self.exported.to_string()));
        }
        if self.dry_run {
            lines.push(("purged", "0 (dry run)".to_owned()));
        } else {
            lines.push(("purged", self.purged.to_string()));
            lines.push(("gone already", self.gone_already.to_string()));
        }
        output::record(form, self, &lines);
    }
}
