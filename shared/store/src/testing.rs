//! Migrated databases for tests: one template per server and schema, cloned for each test in a fraction of the time that
//! migrations take.

use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

use crate::{Store, StoreError, StoreOptions};

/// Keeps test processes that share a server from making the template twice, and from cloning it half made: 'weirtmpl'
/// in ASCII.
const TEMPLATE_LOCK: i64 = 8_603_398_603_461_718_124;

/// Creates the database `name` with the present schema and no rows, and returns its URL. `server_url` gives the URL of
/// a database of the server, by name; its user must be allowed to create databases.
///
/// # Errors
/// If the server cannot be reached or the database exists.
pub async fn migrated_database(server_url: impl Fn(&str) -> String, name: &str) -> Result<String, StoreError> {
    let mut connection = connect(&server_url("postgres")).await?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut connection).await?;
    let template = format!("weir_template_{}", crate::migrate::fingerprint());
    let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").bind(&template);
    if !exists.fetch_one(&mut connection).await? {
        create_template(&mut connection, &server_url, &template).await?;
    }
    run(&mut connection, format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#)).await?;
    connection.close().await?;
    Ok(server_url(name))
}

/// Under another name until it is whole, so that a test that is killed in between leaves no half a template.
async fn create_template(
    connection: &mut PgConnection,
    server_url: &impl Fn(&str) -> String,
    template: &str,
) -> Result<(), StoreError> {
    let draft = format!("{template}_draft");
    run(connection, format!(r#"DROP DATABASE IF EXISTS "{draft}" WITH (FORCE)"#)).await?;
    run(connection, format!(r#"CREATE DATABASE "{draft}""#)).await?;
    let store = Store::connect_lazy(&StoreOptions::new(SecretString::from(server_url(&draft))))?;
    store.migrate_up().await?;
    store.close().await;
    run(connection, format!(r#"ALTER DATABASE "{draft}" RENAME TO "{template}""#)).await
}

async fn connect(url: &str) -> Result<PgConnection, StoreError> {
    let options: PgConnectOptions = url.parse()?;
    Ok(PgConnection::connect_with(&options).await?)
}

/// Names of databases cannot be parameters. Only tests give them.
async fn run(connection: &mut PgConnection, statement: String) -> Result<(), StoreError> {
    connection.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}

/// One number from the database at `url`.
///
/// # Errors
/// If the server cannot be reached, or the statement fails or gives no number.
pub async fn number(url: &str, sql: &str) -> Result<i64, StoreError> {
    let mut connection = connect(url).await?;
    let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(number)
}

/// The texts of the first column of all rows.
///
/// # Errors
/// If the server cannot be reached, or the statement fails or gives no text.
pub async fn texts(url: &str, sql: &str) -> Result<Vec<String>, StoreError> {
    let mut connection = connect(url).await?;
    let texts = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(texts)
}

/// Runs statements on the database at `url`.
///
/// # Errors
/// If the server cannot be reached, or a statement fails.
pub async fn execute(url: &str, sql: &str) -> Result<(), StoreError> {
    let mut connection = connect(url).await?;
    run(&mut connection, sql.to_owned()).await?;
    connection.close().await?;
    Ok(())
}

/// A session of somebody else, who holds locks and open transactions.
#[derive(Debug)]
pub struct Session(PgConnection);

impl Session {
    /// Opens a session on the database at `url`.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self(connect(url).await?))
    }

    /// Runs statements, in the transaction that is open if there is one.
    ///
    /// # Errors
    /// If a statement fails.
    pub async fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        run(&mut self.0, sql.to_owned()).await
    }

    /// Runs `COPY … FROM STDIN` with these bytes, which are in its format.
    ///
    /// # Errors
    /// If the statement or one of the rows fails.
    pub async fn copy_in(&mut self, sql: &str, rows: &[u8]) -> Result<(), StoreError> {
        let mut copy = self.0.copy_in_raw(sql).await?;
        copy.send(rows).await?;
        copy.finish().await?;
        Ok(())
    }

    /// Whether a committed message has this key. The statement is prepared once: it may be asked again and again.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn is_stored(&mut self, key: Uuid) -> Result<bool, StoreError> {
        let stored = "SELECT EXISTS (SELECT FROM event_keys k JOIN messages m ON m.id = k.message_id \
                      AND m.send_at = k.send_at WHERE k.id = $1)";
        Ok(sqlx::query_scalar(stored).bind(key).fetch_one(&mut self.0).await?)
    }
}

impl Store {
    /// The store's own connections: tests look at rows, and hold locks, behind its back.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}
