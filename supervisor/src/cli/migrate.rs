//! `weir migrate`.

use std::num::NonZeroUsize;

use anyhow::Result;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weir_store::{MigrationStatus, Store};

use crate::Ending;
use crate::cli::Output;
use crate::cli::consent::{self, Preview};
use crate::context::Context;
use crate::output;

/// Bring the schema of PostgreSQL up to date, show it or take it back; load the functions of Redis
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir migrate up")]
pub(crate) struct Migrate {
    #[command(subcommand)]
    way: Way,
}

#[derive(Debug, clap::Subcommand)]
enum Way {
    /// Apply every migration that is missing
    ///
    /// Each is a transaction of its own. It waits for no writer longer than ten seconds: run it again if it gives up.
    #[command(after_help = "Example: weir migrate up --dry-run")]
    Up {
        /// Show what would be applied, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Undo the last migrations; drops tables with their rows
    #[command(after_help = "Example: weir migrate down --steps 1 --dry-run")]
    Down {
        /// How many migrations to undo, newest first
        #[arg(long, value_name = "N", default_value = "1")]
        steps: NonZeroUsize,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Show what would be undone, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the migrations of this binary and when they were applied; exit code 3 when one is missing
    #[command(after_help = "Example: weir migrate status --output json")]
    Status,
    /// Load the functions of this binary into Redis
    ///
    /// Gateways and workers load them by themselves where their user may. Where it may not, this comes before they start,
    /// as a user who may; older ones beside them do not mind.
    #[command(after_help = "Example: WEIR_REDIS_URL=redis://weir-operator:…@queue/0 weir migrate functions")]
    Functions,
}

impl Migrate {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        match self.way {
            Way::Up { dry_run } => up(&context.store().await?, context.output, dry_run).await,
            Way::Down { steps, yes, dry_run } => {
                down(&context.store().await?, context.output, steps.get(), yes, dry_run).await
            }
            Way::Status => status(&context.store().await?, context.output).await,
            Way::Functions => functions(context).await,
        }
    }
}

async fn functions(context: &Context) -> Result<Ending> {
    #[derive(Serialize)]
    struct Loaded<'a> {
        library: &'a str,
    }
    let queue = context.queue()?;
    queue.load().await?;
    match context.output {
        Output::Json => output::json(&Loaded { library: queue.library() }),
        Output::Table => output::line(format_args!("{} is loaded", queue.library())),
    }
    Ok(Ending::Done)
}

/// What a migration did, or would do.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undone: Option<&'a [String]>,
    dry_run: bool,
}

async fn up(store: &Store, output: Output, dry_run: bool) -> Result<Ending> {
    let names = if dry_run {
        let status = store.migration_status().await?;
        status.iter().filter(|migration| migration.applied_at.is_none()).map(name).collect()
    } else {
        store.migrate_up().await?
    };
    if output == Output::Json {
        output::json(&Done { applied: Some(&names), undone: None, dry_run });
    } else if names.is_empty() {
        output::line("nothing to apply: the schema is current");
    } else {
        list(if dry_run { "would apply" } else { "applied" }, &names);
    }
    Ok(Ending::Done)
}

async fn down(store: &Store, output: Output, steps: usize, yes: bool, dry_run: bool) -> Result<Ending> {
    let status = store.migration_status().await?;
    let applied = status.iter().rev().filter(|migration| migration.applied_at.is_some());
    let doomed: Vec<String> = applied.take(steps).map(name).collect();
    let mut undone = doomed.clone();
    if !dry_run && !doomed.is_empty() {
        let question = format!("Undo {} and drop their tables with all rows?", doomed.join(", "));
        consent::ask(&question, yes, Preview::DryRun)?;
        undone = store.migrate_down(steps).await?;
    }
    if output == Output::Json {
        output::json(&Done { applied: None, undone: Some(&undone), dry_run });
    } else if undone.is_empty() {
        output::line("nothing to undo: no migration is applied");
    } else {
        list(if dry_run { "would undo" } else { "undid" }, &undone);
    }
    Ok(Ending::Done)
}

fn list(verb: &str, names: &[String]) {
    for name in names {
        output::line(format_args!("{verb} {name}"));
    }
}

#[derive(Serialize)]
struct Row {
    version: i64,
    name: String,
    applied_at: Option<String>,
}

async fn status(store: &Store, output: Output) -> Result<Ending> {
    let status = store.migration_status().await?;
    let row = |migration: &MigrationStatus| Row {
        version: migration.version,
        name: name(migration),
        applied_at: migration.applied_at.map(when),
    };
    let rows: Vec<Row> = status.iter().map(row).collect();
    output::rows(output, &["migration", "applied"], &rows, |row| {
        vec![row.name.clone(), row.applied_at.clone().unwrap_or_else(|| "no".into())]
    });
    if store.schema_is_current().await? {
        return Ok(Ending::Done);
    }
    if rows.iter().all(|row| row.applied_at.is_some()) {
        output::remark("a migration was applied with other content than this binary carries: which build made it?");
    } else {
        output::remark("the schema is not current: run `weir migrate up`");
    }
    Ok(Ending::Negative)
}

fn name(migration: &MigrationStatus) -> String {
    format!("{:04}_{}", migration.version, migration.description.replace(' ', "_"))
}

fn when(at: OffsetDateTime) -> String {
    let at = at.replace_nanosecond(0).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}
