//! What a drill wants of its own database: something that fails on purpose, faults, and every id for the judge.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _};

use crate::{Place, Store, StoreError};

/// Refuses the texts that a drill marks, as PostgreSQL refuses data that it cannot hold.
const POISON: &str = r"
    CREATE FUNCTION drill_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'poison of a drill' USING ERRCODE = '22023'; END $$;
    CREATE TRIGGER drill_poison BEFORE INSERT ON messages FOR EACH ROW
        WHEN (NEW.text = 'poison of a drill') EXECUTE FUNCTION drill_refuse();
";

const EVERY_ROW: &str = r"
    DECLARE every_row NO SCROLL CURSOR FOR
    SELECT m.external_message_id, k.partition, k.entry_ms, k.entry_seq
    FROM messages m LEFT JOIN event_keys k ON k.message_id = m.id
";

/// External id, and partition, milliseconds and sequence of the entry.
type Row = (String, Option<i16>, Option<i64>, Option<i64>);

/// The text that [`Store::plant_poison`] makes the table refuse.
pub const POISON_TEXT: &str = "poison of a drill";

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

    /// Calls `visit` with the external id of every row of messages and the entry that it came from, in no order. Gives
    /// how many there are.
    pub async fn each_row(&self, mut visit: impl FnMut(&str, Place)) -> Result<u64, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        transaction.execute("SET LOCAL statement_timeout = 0").await?;
        transaction.execute(EVERY_ROW).await?;
        let mut count = 0;
        loop {
            let fetch = sqlx::query_as::<_, Row>("FETCH FORWARD 50000 FROM every_row");
            let rows = fetch.fetch_all(&mut *transaction).await?;
            if rows.is_empty() {
                return Ok(count);
            }
            count += rows.len() as u64;
            for (id, partition, ms, seq) in rows {
                // A row without a key has no place in the queue that anybody was told.
                let place = Place { partition: partition.unwrap_or(-1), ms: ms.unwrap_or(-1), seq: seq.unwrap_or(-1) };
                visit(&id, place);
            }
        }
    }
}
