//! Checks of PostgreSQL.

use anyhow::Result;
use weir_store::{ServerSettings, Store};

use super::finding::Findings;
use super::repair::Repair;
use crate::cli::status::probe;
use crate::context::Context;
use crate::output;

const PART: &str = "database";
/// The oldest major version that the migrations are tested with.
const VERSION: i32 = 15;

pub(super) async fn examine(context: &Context, findings: &mut Findings) {
    let store = match probe::store(context).await {
        Ok(store) => store,
        Err(error) => {
            let url = context.database_url().map(|url| format!("{url}: ")).unwrap_or_default();
            findings.fail(PART, "reachable", format!("{url}{error:#}"), "start it, or correct WEIR_DATABASE_URL");
            return;
        }
    };
    findings.ok(PART, "reachable", context.database_url().map(|url| url.to_string()).unwrap_or_default());
    if let Err(error) = look(&store, context, findings).await {
        findings.fail(PART, "readable", format!("{error:#}"), "see which right or relation the text names");
    }
}

async fn look(store: &Store, context: &Context, findings: &mut Findings) -> Result<()> {
    let settings = store.server_settings().await?;
    version(&settings, findings);
    durability(&settings, findings);
    connections(store, context, findings).await?;
    clock(store, findings).await?;
    if schema(store, findings).await? {
        months(store, findings).await?;
    }
    Ok(())
}

fn version(settings: &ServerSettings, findings: &mut Findings) {
    let version = settings.version.as_str();
    if settings.major_version >= VERSION {
        findings.ok(PART, "version", version);
    } else {
        findings.fail(PART, "version", version, format!("upgrade to PostgreSQL {VERSION} or newer"));
    }
}

fn durability(settings: &ServerSettings, findings: &mut Findings) {
    let settings = [
        ("fsync", settings.fsync),
        ("synchronous_commit", settings.synchronous_commit),
        ("full_page_writes", settings.full_page_writes),
    ];
    let named = |on| settings.iter().filter(|setting| setting.1 == on).map(|setting| setting.0).collect::<Vec<_>>();
    let off = named(false);
    if off.is_empty() {
        findings.ok(PART, "durability", format!("{} are on", named(true).join(", ")));
    } else {
        let fix = "set on: a row that is acknowledged to the queue must survive a crash";
        findings.fail(PART, "durability", format!("{} off", off.join(", ")), fix);
    }
}

async fn connections(store: &Store, context: &Context, findings: &mut Findings) -> Result<()> {
    let left = store.connections_left().await?;
    let each = context.settings.database.connections;
    let found = format!("{left} left, a worker takes up to {each}");
    if left < i64::from(each) {
        let fix = "raise max_connections, put pgbouncer in front, or run fewer workers";
        findings.warn(PART, "connections", found, fix);
    } else {
        findings.ok(PART, "connections", found);
    }
    Ok(())
}

async fn clock(store: &Store, findings: &mut Findings) -> Result<()> {
    let before = output::now_ms();
    let theirs = store.clock_ms().await?.max(0) as u64;
    findings.clock(PART, theirs, before.midpoint(output::now_ms()));
    Ok(())
}

/// Gives whether the schema is ours.
async fn schema(store: &Store, findings: &mut Findings) -> Result<bool> {
    if store.schema_is_current().await? {
        findings.ok(PART, "schema", "current");
        return Ok(true);
    }
    findings.fail(PART, "schema", "not the one that this version needs", "run `weir migrate up`");
    Ok(false)
}

async fn months(store: &Store, findings: &mut Findings) -> Result<()> {
    let missing = store.missing_partitions(1).await?;
    if missing.is_empty() {
        findings.ok(PART, "months", "this one and the next are there");
    } else {
        let fix = "start a worker, which makes them, or run `weir doctor --fix --yes`";
        findings.fail(PART, "months", format!("missing: {}", missing.join(", ")), fix);
        findings.repairs.push(Repair::MakeMonths);
    }
    Ok(())
}
