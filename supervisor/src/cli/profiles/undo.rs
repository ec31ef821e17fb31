//! `weir profiles backfill --undo`.

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use weir_core::shutdown;
use weir_store::Store;

use crate::Ending;
use crate::cli::consent::{self, Preview};
use crate::context::Context;
use crate::output;

/// What was put back, or would be looked at.
#[derive(Debug, Serialize)]
struct Undone {
    backfill: i64,
    kind: &'static str,
    /// Employees that the backfill had changed.
    employees: usize,
    /// Those that are as before; none of a dry run.
    restored: Option<usize>,
    dry_run: bool,
}

pub(super) async fn run(
    context: &Context,
    store: &Store,
    number: Option<i64>,
    batch: u16,
    dry_run: bool,
    yes: bool,
) -> Result<Ending> {
    let Some(backfill) = store.find_backfill(number).await? else {
        match number {
            Some(number) => output::remark(format_args!("there is no backfill {number}")),
            None => output::remark("there is no backfill that could be undone"),
        }
        return Ok(Ending::Negative);
    };
    if let Some(at) = backfill.undone_at {
        bail!("backfill {} was undone already, at {at}", backfill.id);
    }
    let count = store.count_backfilled(backfill.id).await?;
    let mut undone = Undone {
        backfill: backfill.id,
        kind: backfill.kind.as_str(),
        employees: usize::try_from(count).unwrap_or_default(),
        restored: None,
        dry_run,
    };
    if !dry_run {
        let employees = output::counted(u64::try_from(count).unwrap_or_default(), "employee");
        let question = format!("Undo backfill {} ({}) of {employees}?", backfill.id, backfill.kind.as_str());
        consent::ask(&question, yes, Preview::DryRun)?;
        undone.restored = Some(undo(store, backfill.id, count, batch).await?);
    }
    undone.print(context);
    Ok(Ending::Done)
}

async fn undo(store: &Store, id: i64, count: i64, batch: u16) -> Result<usize> {
    let stop = shutdown::on_signals().context("signals cannot be handled")?;
    let bar = super::bar(count, "undo");
    let (mut reached, mut restored) = (0, 0);
    loop {
        let step = store.undo_backfill_step(id, reached, batch).await;
        let step = step.context("it stopped half-way; run it again, what is back already stays so")?;
        reached = step.reached;
        restored += step.restored;
        bar.inc(step.looked_at as u64);
        if step.looked_at < usize::from(batch) {
            bar.finish_and_clear();
            return Ok(restored);
        }
        if stop.is_cancelled() {
            bar.finish_and_clear();
            bail!("interrupted after {restored} employees; run it again for the rest");
        }
    }
}

impl Undone {
    fn print(&self, context: &Context) {
        let mut lines = vec![
            ("backfill", format!("{} ({})", self.backfill, self.kind)),
            ("employees changed by it", self.employees.to_string()),
        ];
        if let Some(restored) = self.restored {
            lines.push(("as before again", restored.to_string()));
            lines.push(("changed since, or gone", (self.employees - restored.min(self.employees)).to_string()));
        }
        output::record(context.output, self, &lines);
    }
}
