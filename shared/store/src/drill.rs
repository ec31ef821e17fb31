//! What a drill wants of its own database: something that fails on purpose, faults, and all that is there for the judge.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Connection as _, Executor as _, FromRow};
use uuid::Uuid;

use crate::{Place, Store, StoreError};

/// Refuses the texts that a drill marks, as PostgreSQL refuses data that it cannot hold.
const POISON: &str = r"
    CREATE FUNCTION drill_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'poison of a drill' USING ERRCODE = '22023'; END $$;
    CREATE TRIGGER drill_poison BEFORE INSERT ON messages FOR EACH ROW
        WHEN (NEW.text = 'poison of a drill') EXECUTE FUNCTION drill_refuse();
";

// A row without a key has no place in the queue that anybody was told.
const EVERY_MESSAGE: &str = r"
    DECLARE everything NO SCROLL CURSOR FOR
    SELECT
        m.external_message_id, coalesce(c.source, '') AS source, m.text, m.removed_at IS NOT NULL AS is_removed,
        coalesce(k.partition, -1::smallint) AS partition, coalesce(k.entry_ms, -1) AS ms, coalesce(k.entry_seq, -1) AS seq
    FROM messages m
    LEFT JOIN event_keys k ON k.message_id = m.id
    LEFT JOIN dialogs d ON d.id = m.dialog_id
    LEFT JOIN clients c ON c.id = d.client_id
";

const EVERY_LONE_KEY: &str = r"
    DECLARE everything NO SCROLL CURSOR FOR
    SELECT id AS key, partition, entry_ms AS ms, entry_seq AS seq FROM event_keys WHERE message_id IS NULL
";

const EVERY_PROFILE: &str = r"
    DECLARE everything NO SCROLL CURSOR FOR
    SELECT user_id, max_first_name AS first_name, max_last_name AS last_name FROM profiles
";

/// The text that [`Store::plant_poison`] makes the table refuse.
pub const POISON_TEXT: &str = "poison of a drill";

/// A message as a drill finds it. No `Debug`: it holds personal data.
#[derive(FromRow)]
pub struct FoundRow {
    /// The provider's id of the message.
    pub external_message_id: String,
    /// Who sent it.
    pub source: String,
    /// What it says.
    pub text: Option<String>,
    /// Whether it is gone at the provider.
    pub is_removed: bool,
    /// The entry that it came from.
    #[sqlx(flatten)]
    pub place: Place,
}

/// The key of an event that made no message.
#[derive(Debug, FromRow)]
pub struct LoneKey {
    /// The 16-byte digest of (source, key).
    pub key: Uuid,
    /// The entry that it came from.
    #[sqlx(flatten)]
    pub place: Place,
}

/// A person as a drill finds them. No `Debug`: it is personal data.
#[derive(FromRow)]
pub struct FoundPerson {
    /// The provider's id.
    pub user_id: String,
    /// As the provider's events tell.
    pub first_name: Option<String>,
    /// As the provider's events tell.
    pub last_name: Option<String>,
}

impl Store {
    /// Makes the table of messages refuse those whose text is [`POISON_TEXT`], with SQLSTATE 22023.
    pub async fn plant_poison(&self) -> Result<(), StoreError> {
        self.pool.acquire().await?.execute(POISON).await?;
        Ok(())
    }

    /// Ends every session of this database but the caller's. Gives how many.
    pub async fn end_other_sessions(&self) -> Result<i64, StoreError> {
        let ended = sqlx::query_scalar!(
            r#"
            SELECT count(pg_terminate_backend(pid)) AS "ended!" FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
            "#
        );
        Ok(ended.fetch_one(&self.pool).await?)
    }

    /// Keeps everybody else from the table of messages for a while.
    pub async fn lock_messages(&self, hold: Duration) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        transaction.execute("SET LOCAL lock_timeout = '30s'").await?;
        transaction.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'").await?;
        transaction.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE").await?;
        tokio::time::sleep(hold).await;
        transaction.rollback().await?;
        Ok(())
    }

    /// Whether a change waits that was there before its message, which is there now: the workers' upkeep owes it.
    pub async fn owes_changes(&self) -> Result<bool, StoreError> {
        let owed = sqlx::query_scalar!(
            r#"
            SELECT EXISTS (
                SELECT FROM early_changes e JOIN event_keys k ON k.id = e.event_key WHERE k.message_id IS NOT NULL
            ) AS "owed!"
            "#
        );
        Ok(owed.fetch_one(&self.pool).await?)
    }

    /// Calls `visit` with every message, in no order. Gives how many there are.
    pub async fn each_message(&self, visit: impl FnMut(FoundRow)) -> Result<u64, StoreError> {
        self.each(EVERY_MESSAGE, visit).await
    }

    /// Calls `visit` with the key of every event that made no message, in no order. Gives how many there are.
    pub async fn each_lone_key(&self, visit: impl FnMut(LoneKey)) -> Result<u64, StoreError> {
        self.each(EVERY_LONE_KEY, visit).await
    }

    /// Calls `visit` with every profile, in no order. Gives how many there are.
    pub async fn each_person(&self, visit: impl FnMut(FoundPerson)) -> Result<u64, StoreError> {
        self.each(EVERY_PROFILE, visit).await
    }

    /// Visits all rows of a cursor that `declare` calls `everything`.
    async fn each<R>(&self, declare: &'static str, mut visit: impl FnMut(R)) -> Result<u64, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        transaction.execute("SET LOCAL statement_timeout = 0").await?;
        transaction.execute(declare).await?;
        let mut count = 0;
        loop {
            // Not kept: for the next cursor the same words have other columns.
            let fetch = sqlx::query_as::<_, R>("FETCH FORWARD 50000 FROM everything");
            let rows = fetch.persistent(false).fetch_all(&mut *transaction).await?;
            if rows.is_empty() {
                return Ok(count);
            }
            count += rows.len() as u64;
            rows.into_iter().for_each(&mut visit);
        }
    }
}
