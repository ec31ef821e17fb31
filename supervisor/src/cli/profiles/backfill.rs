//! `weir profiles backfill`.

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use weir_core::shutdown::{self, Shutdown};
use weir_store::{BackfillKind, Store};

use super::undo;
use crate::Ending;
use crate::cli::consent::{self, Preview};
use crate::context::Context;
use crate::output;

/// Give employees who are there already the names and sources that new ones get
///
/// It goes through them in small transactions, so that nobody waits for it, and remembers how far it is: after Ctrl-C, a
/// crash or a kill the same command goes on from there. What it changes is kept, and --undo puts it back, except where
/// somebody has changed the employee since.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir profiles backfill --sources --dry-run
  weir profiles backfill --sources --names --yes
  weir profiles backfill --undo")]
pub(super) struct Backfill {
    /// Employees whose MAX id has a profile with a name: their profile_source becomes webhook
    #[arg(long, required_unless_present_any = ["names", "undo"])]
    sources: bool,
    /// Employees whose name is empty or Неизвестно: it becomes the one that counts in their profile, which is found by
    /// their MAX id or by a phone that its owner has confirmed
    #[arg(long)]
    names: bool,
    /// Put back what the last backfill changed, or the one of this number
    #[arg(long, value_name = "NUMBER", num_args = 0..=1, conflicts_with_all = ["sources", "names"])]
    undo: Option<Option<i64>>,
    /// Only count what would be changed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Employees in one transaction
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u16).range(1..=5000))]
    batch: u16,
}

/// What a backfill did, or would do.
#[derive(Debug, Serialize)]
struct Done {
    /// Its number; none of a dry run.
    backfill: Option<i64>,
    kind: &'static str,
    /// Employees that it looked at.
    employees: usize,
    changed: usize,
    dry_run: bool,
}

impl Backfill {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        let store = context.store().await?;
        if let Some(number) = self.undo {
            return undo::run(context, &store, number, self.batch, self.dry_run, self.yes).await;
        }
        let kinds = [(BackfillKind::Names, self.names), (BackfillKind::Sources, self.sources)];
        let kinds: Vec<_> = kinds.into_iter().filter_map(|(kind, wanted)| wanted.then_some(kind)).collect();
        if !self.dry_run {
            let count = u64::try_from(store.count_employees(0).await?).unwrap_or_default();
            let words: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
            let question =
                format!("Bring {} of {} up to date?", words.join(" and "), output::counted(count, "employee"));
            consent::ask(&question, self.yes, Preview::DryRun)?;
        }
        let stop = shutdown::on_signals().context("signals cannot be handled")?;
        let mut done = Vec::new();
        for kind in kinds {
            done.push(self.go_through(&store, kind, &stop).await?);
        }
        output::rows(context.output, &["backfill", "kind", "employees", "changed"], &done, |done| {
            let number = done.backfill.map_or_else(|| "dry run".into(), |id| id.to_string());
            vec![number, done.kind.into(), done.employees.to_string(), done.changed.to_string()]
        });
        Ok(Ending::Done)
    }

    async fn go_through(&self, store: &Store, kind: BackfillKind, stop: &Shutdown) -> Result<Done> {
        let mut backfill = if self.dry_run {
            weir_store::Backfill { id: 0, kind, reached: 0, finished: false, undone_at: None }
        } else {
            store.begin_backfill(kind).await?
        };
        if backfill.reached > 0 {
            output::remark(format_args!("backfill {} goes on behind employee {}", backfill.id, backfill.reached));
        }
        let bar = super::bar(store.count_employees(backfill.reached).await?, kind.as_str());
        let number = (!self.dry_run).then_some(backfill.id);
        let mut done = Done { backfill: number, kind: kind.as_str(), employees: 0, changed: 0, dry_run: self.dry_run };
        loop {
            let step = store.backfill_step(&backfill, self.batch, self.dry_run).await.with_context(|| {
                format!("the backfill of {} stopped; run it again to go on from where it is", kind.as_str())
            })?;
            backfill.reached = step.reached;
            done.employees += step.looked_at;
            done.changed += step.changed;
            bar.inc(step.looked_at as u64);
            if step.looked_at < usize::from(self.batch) {
                bar.finish_and_clear();
                return Ok(done);
            }
            if stop.is_cancelled() {
                bar.finish_and_clear();
                bail!("interrupted after {} employees; run it again to go on from there", done.employees);
            }
        }
    }
}
