//! Checks of PostgreSQL. What is asked here are settings of the server; the rows belong to the store.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use weir_store::Store;

use super::finding::Findings;
use super::repair::Repair;
use crate::cli::status::probe;
use crate::context::Context;

const PART: &str = "database";
/// The oldest major version that the migrations are tested with.
const VERSION: i32 = 15;

/// Settings that a committed row depends on.
const DURABLE: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];

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
    let more = async {
        let mut connection = connect(context).await?;
        server(&mut connection, context, findings).await?;
        if schema(&store, findings).await? {
            months(&mut connection, findings).await?;
        }
        connection.close().await?;
        anyhow::Ok(())
    };
    if let Err(error) = more.await {
        findings.fail(PART, "readable", format!("{error:#}"), "see which right or relation the text names");
    }
}

async fn connect(context: &Context) -> Result<PgConnection> {
    let options: PgConnectOptions = context.database_url()?.expose().parse()?;
    let options = options.application_name("weir doctor").disable_statement_logging();
    PgConnection::connect_with(&options).await.context("a second connection cannot be made")
}

async fn setting(connection: &mut PgConnection, name: &str) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(connection).await?)
}

async fn server(connection: &mut PgConnection, context: &Context, findings: &mut Findings) -> Result<()> {
    let number: i32 = setting(connection, "server_version_num").await?.parse()?;
    let version = setting(connection, "server_version").await?;
    if number / 10_000 >= VERSION {
        findings.ok(PART, "version", version);
    } else {
        findings.fail(PART, "version", version, format!("upgrade to PostgreSQL {VERSION} or newer"));
    }
    let mut off = Vec::new();
    for name in DURABLE {
        let value = setting(connection, name).await?;
        if value == "off" {
            off.push(name);
        }
    }
    if off.is_empty() {
        findings.ok(PART, "durability", format!("{} are on", DURABLE.join(", ")));
    } else {
        let fix = "set on: a row that is acknowledged to the queue must survive a crash";
        findings.fail(PART, "durability", format!("{} off", off.join(", ")), fix);
    }
    connections(connection, context, findings).await
}

async fn connections(connection: &mut PgConnection, context: &Context, findings: &mut Findings) -> Result<()> {
    let left: i32 = sqlx::query_scalar(
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                - (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')",
    )
    .fetch_one(connection)
    .await?;
    let each = context.settings.database.connections;
    let found = format!("{left} left, a worker takes up to {each}");
    if left < each as i32 {
        let fix = "raise max_connections, put pgbouncer in front, or run fewer workers";
        findings.warn(PART, "connections", found, fix);
    } else {
        findings.ok(PART, "connections", found);
    }
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

async fn months(connection: &mut PgConnection, findings: &mut Findings) -> Result<()> {
    let missing: Vec<String> = sqlx::query_scalar(
        r#"SELECT name FROM generate_series(0, 1) AS ahead,
             to_char((now() AT TIME ZONE 'UTC') + make_interval(months => ahead), '"messages_y"YYYY"m"MM') AS name
           WHERE NOT EXISTS (
             SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'messages'::regclass AND c.relname = name)"#,
    )
    .fetch_all(connection)
    .await?;
    if missing.is_empty() {
        findings.ok(PART, "months", "this one and the next are there");
    } else {
        let fix = "start a worker, which makes them, or run `weir doctor --fix --yes`";
        findings.fail(PART, "months", format!("missing: {}", missing.join(", ")), fix);
        findings.repairs.push(Repair::MakeMonths);
    }
    Ok(())
}
