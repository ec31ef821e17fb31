//! The schema: which migrations this binary carries, which the database has, and the way between. The lock that keeps
//! two of these apart is sqlx's own, so `sqlx migrate` honours it too.

use sqlx::migrate::{Migrate, Migrator};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use crate::{Store, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// A migration takes short locks of tables that the fleet writes to. Rather than queue behind a long statement, and all
/// writers behind it, it gives up and is run again.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '10s'";

/// A migration that this binary carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// The number in front of its file's name.
    pub version: i64,
    /// The words after it.
    pub description: String,
    /// When it was applied; none if it was not.
    pub applied_at: Option<OffsetDateTime>,
}

struct Applied {
    version: i64,
    checksum: Vec<u8>,
    installed_on: OffsetDateTime,
}

impl Store {
    /// Applies what is missing and returns its names, oldest first. Each migration is a transaction of its own: after a
    /// failure the earlier ones stay.
    pub async fn migrate_up(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.migrating_connection().await?;
        let before = versions(&mut connection).await?;
        MIGRATIONS.run_direct(None, &mut connection, false).await?;
        let after = versions(&mut connection).await?;
        connection.close().await?;
        Ok(names_of(after.into_iter().filter(|version| !before.contains(version))))
    }

    /// Undoes the last `steps` migrations and returns their names, newest first. **Drops tables with their rows.**
    pub async fn migrate_down(&self, steps: usize) -> Result<Vec<String>, StoreError> {
        let mut connection = self.migrating_connection().await?;
        let mut undone = versions(&mut connection).await?;
        let kept = undone.len().saturating_sub(steps);
        let target = kept.checked_sub(1).map_or(0, |last| undone[last]);
        MIGRATIONS.undo(&mut connection, target).await?;
        connection.close().await?;
        undone.drain(..kept);
        Ok(names_of(undone.into_iter().rev()))
    }

    /// All migrations of this binary, oldest first.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, StoreError> {
        let applied = self.on_connection(applied).await?;
        let when = |version| applied.iter().find(|a| a.version == version).map(|a| a.installed_on);
        let status = MIGRATIONS.iter().filter(|m| m.migration_type.is_up_migration()).map(|m| MigrationStatus {
            version: m.version,
            description: m.description.to_string(),
            applied_at: when(m.version),
        });
        Ok(status.collect())
    }

    /// Whether the database has every migration of this binary, unchanged. It may have newer ones: in a rolling upgrade
    /// the schema goes first.
    pub async fn schema_is_current(&self) -> Result<bool, StoreError> {
        let applied = self.on_connection(applied).await?;
        Ok(MIGRATIONS
            .iter()
            .filter(|m| m.migration_type.is_up_migration())
            .all(|wanted| applied.iter().any(|a| a.version == wanted.version && *a.checksum == *wanted.checksum)))
    }

    /// A connection of its own, without a statement timeout and holding the lock. Closing it gives the lock back
    /// whatever happened, which a connection of the pool would not.
    async fn migrating_connection(&self) -> Result<PgConnection, StoreError> {
        let mut connection = PgConnection::connect_with(&self.options.plain()?).await?;
        connection.lock().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut connection).await?;
        Ok(connection)
    }
}

async fn versions(connection: &mut PgConnection) -> Result<Vec<i64>, StoreError> {
    Ok(applied(connection).await?.into_iter().map(|a| a.version).collect())
}

/// What the database says was applied, oldest first; nothing if it was never migrated.
async fn applied(connection: &mut PgConnection) -> Result<Vec<Applied>, StoreError> {
    let exists = sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "exists!""#)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(Vec::new());
    }
    let applied = sqlx::query_as!(
        Applied,
        "SELECT version, checksum, installed_on FROM _sqlx_migrations WHERE success ORDER BY version"
    );
    Ok(applied.fetch_all(connection).await?)
}

/// Names as the files have them. A newer binary's migrations are known by number only.
fn names_of(versions: impl Iterator<Item = i64>) -> Vec<String> {
    versions.map(name_of).collect()
}

fn name_of(version: i64) -> String {
    match MIGRATIONS.iter().find(|m| m.version == version) {
        Some(migration) => format!("{version:04}_{}", migration.description.replace(' ', "_")),
        None => format!("{version:04}"),
    }
}

/// Names the whole set of migrations: another set, another name.
#[cfg(feature = "testing")]
pub(crate) fn fingerprint() -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    MIGRATIONS.iter().for_each(|migration| migration.checksum.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}
