//! Brings the employees that are there already up to what is known of people, in steps that can be interrupted and undone.
//!
//! A step is one transaction: it locks some employees, keeps what it is about to change in `employee_backfill_rows`, changes
//! it, and notes how far it is. Two processes at once take turns. A row that somebody changed after the backfill is left
//! alone when it is undone.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use super::FullName;
use crate::profiles::{by_ids, by_phones};
use crate::{NameSource, Names, Profile, Store, StoreError};

/// What is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillKind {
    /// `profile_source`: who has a MAX id with a named profile counts as `webhook`.
    Sources,
    /// Names that are empty or unknown, from the profile of the MAX id or of the confirmed phone.
    Names,
}

impl BackfillKind {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sources => "sources",
            Self::Names => "names",
        }
    }

    fn read(word: &str) -> Self {
        if word == "names" { Self::Names } else { Self::Sources }
    }
}

/// A backfill that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfill {
    /// Its number.
    pub id: i64,
    /// What it brings up to date.
    pub kind: BackfillKind,
    /// The last employee that it has looked at.
    pub reached: i64,
    /// Whether it is through.
    pub finished: bool,
    /// When it was undone.
    pub undone_at: Option<OffsetDateTime>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackfillStep {
    /// Employees that it looked at; fewer than it might means that these were the last.
    pub looked_at: usize,
    /// Those that it changed.
    pub changed: usize,
    /// The last one of them.
    pub reached: i64,
}

/// What one step back did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UndoStep {
    /// Rows that the backfill had changed.
    pub looked_at: usize,
    /// Those that are as they were before.
    pub restored: usize,
    /// The last one of them.
    pub reached: i64,
}

/// An employee, locked.
struct Row {
    id: i64,
    phone: String,
    max_id: Option<String>,
    first_name: String,
    last_name: String,
    profile_source: String,
    profile_last_updated: Option<OffsetDateTime>,
}

/// An employee as they are to be.
struct Change<'a> {
    row: &'a Row,
    name: FullName,
    source: NameSource,
    version: OffsetDateTime,
}

impl Store {
    /// The backfill of that kind that was interrupted, or a new one.
    pub async fn begin_backfill(&self, kind: BackfillKind) -> Result<Backfill, StoreError> {
        let begun = self.on_connection(async |connection| {
            let mut transaction = connection.begin().await?;
            // Two who begin at once begin the same one.
            sqlx::query("LOCK TABLE employee_backfills IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
            let open = sqlx::query!(
                "SELECT id, reached FROM employee_backfills
                 WHERE kind = $1 AND finished_at IS NULL AND undone_at IS NULL ORDER BY id LIMIT 1",
                kind.as_str()
            );
            let (id, reached) = match open.fetch_optional(&mut *transaction).await? {
                Some(open) => (open.id, open.reached),
                None => {
                    let new = sqlx::query_scalar!(
                        "INSERT INTO employee_backfills (kind) VALUES ($1) RETURNING id",
                        kind.as_str()
                    );
                    (new.fetch_one(&mut *transaction).await?, 0)
                }
            };
            transaction.commit().await?;
            Ok(Backfill { id, kind, reached, finished: false, undone_at: None })
        });
        begun.await
    }

    /// Looks at the next employees, `most` at most, and changes those that need it. A dry run does so too and takes it back;
    /// it goes on behind `reached`, and a backfill that is none is enough for it.
    pub async fn backfill_step(
        &self,
        backfill: &Backfill,
        most: u16,
        dry_run: bool,
    ) -> Result<BackfillStep, StoreError> {
        self.on_connection(async |connection| {
            let mut transaction = connection.begin().await?;
            let mut backfill = backfill.clone();
            if !dry_run {
                // Somebody else may have gone on with it.
                let reached = sqlx::query_scalar!(
                    "SELECT reached FROM employee_backfills WHERE id = $1 AND undone_at IS NULL FOR NO KEY UPDATE",
                    backfill.id
                );
                backfill.reached = reached.fetch_one(&mut *transaction).await?;
            }
            let step = step(&mut transaction, &backfill, most, dry_run).await?;
            if dry_run {
                transaction.rollback().await?
            } else {
                transaction.commit().await?
            }
            Ok(step)
        })
        .await
    }

    /// How many employees are behind the one of that id.
    pub async fn count_employees(&self, behind: i64) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar!(r#"SELECT count(*) AS "n!" FROM employees WHERE id > $1"#, behind);
        self.on_connection(async |connection| Ok(count.fetch_one(connection).await?)).await
    }

    /// A backfill by its number, or the last one that was not undone; none if there is none.
    pub async fn find_backfill(&self, id: Option<i64>) -> Result<Option<Backfill>, StoreError> {
        let found = sqlx::query!(
            r#"
            SELECT id, kind, reached, finished_at IS NOT NULL AS "finished!", undone_at FROM employee_backfills
            WHERE CASE WHEN $1::bigint IS NULL THEN undone_at IS NULL ELSE id = $1 END
            ORDER BY id DESC LIMIT 1
            "#,
            id
        );
        let found = self.on_connection(async |connection| Ok(found.fetch_optional(connection).await?)).await?;
        Ok(found.map(|row| Backfill {
            id: row.id,
            kind: BackfillKind::read(&row.kind),
            reached: row.reached,
            finished: row.finished,
            undone_at: row.undone_at,
        }))
    }

    /// How many rows a backfill has changed.
    pub async fn count_backfilled(&self, backfill_id: i64) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "n!" FROM employee_backfill_rows WHERE backfill_id = $1"#,
            backfill_id
        );
        self.on_connection(async |connection| Ok(count.fetch_one(connection).await?)).await
    }

    /// Restores some of what a backfill changed behind the employee of that id, except what was changed since. Once nothing is
    /// left it counts as undone.
    pub async fn undo_backfill_step(&self, backfill_id: i64, behind: i64, most: u16) -> Result<UndoStep, StoreError> {
        self.on_connection(async |connection| {
            let mut transaction = connection.begin().await?;
            let step = undo(&mut transaction, backfill_id, behind, most).await?;
            if step.looked_at < usize::from(most) {
                let undone = sqlx::query!(
                    "UPDATE employee_backfills SET undone_at = now(), finished_at = coalesce(finished_at, now())
                     WHERE id = $1",
                    backfill_id
                );
                undone.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            Ok(step)
        })
        .await
    }
}

async fn step(
    connection: &mut PgConnection,
    backfill: &Backfill,
    most: u16,
    dry_run: bool,
) -> Result<BackfillStep, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, phone, max_id, first_name, last_name, profile_source, profile_last_updated FROM employees
         WHERE id > $1 ORDER BY id LIMIT $2 FOR NO KEY UPDATE",
        backfill.reached,
        i64::from(most)
    );
    let rows = rows.fetch_all(&mut *connection).await?;
    let known = Known::of(connection, &rows).await?;
    let changes: Vec<Change<'_>> = rows.iter().filter_map(|row| known.change(backfill.kind, row)).collect();
    let reached = rows.last().map_or(backfill.reached, |row| row.id);
    if !dry_run {
        write(connection, backfill.id, &changes).await?;
        sqlx::query!(
            "UPDATE employee_backfills SET reached = $2, finished_at = CASE WHEN $3 THEN now() END WHERE id = $1",
            backfill.id,
            reached,
            rows.len() < usize::from(most)
        )
        .execute(connection)
        .await?;
    }
    Ok(BackfillStep { looked_at: rows.len(), changed: changes.len(), reached })
}

/// The profiles of some employees.
struct Known {
    by_id: HashMap<String, Profile>,
    by_phone: HashMap<String, Profile>,
}

impl Known {
    async fn of(connection: &mut PgConnection, rows: &[Row]) -> Result<Self, StoreError> {
        let ids: Vec<&str> = rows.iter().filter_map(|row| row.max_id.as_deref()).collect();
        let phones: Vec<&str> = rows.iter().filter(|row| row.max_id.is_none()).map(|row| row.phone.as_str()).collect();
        Ok(Self { by_id: by_ids(connection, &ids).await?, by_phone: by_phones(connection, &phones).await? })
    }

    fn change<'a>(&self, kind: BackfillKind, row: &'a Row) -> Option<Change<'a>> {
        let name = FullName { first: row.first_name.clone(), last: row.last_name.clone() };
        match kind {
            BackfillKind::Sources => {
                let profile = self.by_id.get(row.max_id.as_deref()?)?;
                let is_open = row.profile_source == "manual" || row.profile_source == "default";
                (is_open && profile.names != Names::default()).then_some(Change {
                    row,
                    name,
                    source: NameSource::Webhook,
                    version: profile.last_updated,
                })
            }
            BackfillKind::Names => {
                let profile = match &row.max_id {
                    Some(id) => self.by_id.get(id)?,
                    None => self.by_phone.get(&row.phone)?,
                };
                let (known, source) = FullName::of(&profile.names)?;
                Some(Change { row, name: name.filled(&known)?, source, version: profile.last_updated })
            }
        }
    }
}

async fn write(connection: &mut PgConnection, backfill_id: i64, changes: &[Change<'_>]) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = changes.iter().map(|change| change.row.id).collect();
    let firsts: Vec<&str> = changes.iter().map(|change| change.name.first.as_str()).collect();
    let lasts: Vec<&str> = changes.iter().map(|change| change.name.last.as_str()).collect();
    let sources: Vec<&str> = changes.iter().map(|change| change.source.as_str()).collect();
    let versions: Vec<OffsetDateTime> = changes.iter().map(|change| change.version).collect();
    sqlx::query!(
        r#"
        WITH changed AS (
            UPDATE employees e SET
                first_name = c.first_name, last_name = c.last_name, profile_source = c.source,
                profile_last_updated = c.version, updated_at = greatest(now(), e.updated_at + interval '1 microsecond')
            FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
                AS c (id, first_name, last_name, source, version)
            WHERE e.id = c.id
            RETURNING e.id, e.updated_at
        )
        INSERT INTO employee_backfill_rows (
            backfill_id, employee_id, first_name, last_name, profile_source, profile_last_updated, changed_at
        )
        SELECT $1, o.id, o.first_name, o.last_name, o.profile_source, o.profile_last_updated, c.updated_at
        FROM unnest($2::bigint[], $7::text[], $8::text[], $9::text[], $10::timestamptz[])
            AS o (id, first_name, last_name, profile_source, profile_last_updated)
        JOIN changed c ON c.id = o.id
        "#,
        backfill_id,
        &ids,
        &firsts as &[&str],
        &lasts as &[&str],
        &sources as &[&str],
        &versions,
        &changes.iter().map(|change| change.row.first_name.as_str()).collect::<Vec<_>>() as &[&str],
        &changes.iter().map(|change| change.row.last_name.as_str()).collect::<Vec<_>>() as &[&str],
        &changes.iter().map(|change| change.row.profile_source.as_str()).collect::<Vec<_>>() as &[&str],
        &changes.iter().map(|change| change.row.profile_last_updated).collect::<Vec<_>>()
            as &[Option<OffsetDateTime>]
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn undo(connection: &mut PgConnection, backfill_id: i64, behind: i64, most: u16) -> Result<UndoStep, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT employee_id FROM employee_backfill_rows WHERE backfill_id = $1 AND employee_id > $2
         ORDER BY employee_id LIMIT $3",
        backfill_id,
        behind,
        i64::from(most)
    );
    let ids = ids.fetch_all(&mut *connection).await?;
    let restored = sqlx::query!(
        r#"
        UPDATE employees e SET
            first_name = r.first_name, last_name = r.last_name, profile_source = r.profile_source,
            profile_last_updated = r.profile_last_updated,
            updated_at = greatest(now(), e.updated_at + interval '1 microsecond')
        FROM employee_backfill_rows r
        WHERE r.backfill_id = $1 AND r.employee_id = ANY($2) AND e.id = r.employee_id AND e.updated_at = r.changed_at
        "#,
        backfill_id,
        &ids
    );
    let restored = restored.execute(connection).await?.rows_affected();
    let reached = ids.last().copied().unwrap_or(behind);
    Ok(UndoStep { looked_at: ids.len(), restored: usize::try_from(restored).unwrap_or_default(), reached })
}
