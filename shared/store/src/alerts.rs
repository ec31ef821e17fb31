//! Alerts: what the counts say is judged by one process at a time, and what it finds is written down before anybody else
//! judges. So each alert fires once and resolves once, however many processes look.

use sqlx::{Connection, PgConnection};
use time::{Duration, OffsetDateTime};

use crate::monitoring::{cache_counts, fresh_since, last_event_at, profile_counts, webhook_counts};
use crate::{CacheCounts, Period, ProfileCounts, Store, StoreError, WebhookCounts};

/// Keeps processes from judging at once: 'weiralrt' in ASCII.
const LOCK: i64 = 8_603_398_603_142_886_004;

/// An alert, from firing to resolving.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Its row.
    pub id: i64,
    /// What it is about.
    pub name: String,
    /// What was measured when it fired.
    pub value: f64,
    /// The bound at that time.
    pub threshold: f64,
    /// When it fired.
    pub fired_at: OffsetDateTime,
    /// When it was over; none while it is not.
    pub resolved_at: Option<OffsetDateTime>,
}

/// How far back a judge wants to look.
#[derive(Debug, Clone, Copy)]
pub struct AlertView {
    /// The judge's clock.
    pub now: OffsetDateTime,
    /// Events of so long.
    pub webhooks: Duration,
    /// Reads of the cache of so long.
    pub cache: Duration,
    /// A profile that was not changed for so long is stale. Counted in UTC days.
    pub stale: Duration,
    /// It is silence when no event came for so long.
    pub silence: Duration,
}

/// What there is to judge.
#[derive(Debug, Clone, Default)]
pub struct AlertFacts {
    /// All profiles.
    pub profiles: ProfileCounts,
    /// Profiles that were not changed for a long time.
    pub stale: i64,
    /// Events of late.
    pub webhooks: WebhookCounts,
    /// Reads of the cache of late.
    pub cache: CacheCounts,
    /// The minute of the last event.
    pub last_event_at: Option<OffsetDateTime>,
    /// Events that were processed in the day before the silence, if there is one.
    pub before_silence: i64,
}

/// What a judge found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// What it is about: [`Alert::name`].
    pub name: &'static str,
    /// The bound.
    pub threshold: f64,
    /// How it stands.
    pub finding: Finding,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Finding {
    /// It is bad, with what was measured.
    Bad(f64),
    /// It is well.
    Good,
    /// Nobody can tell: what was found before stays.
    Unknown,
}

/// What changed with a look.
#[derive(Debug, Clone, PartialEq)]
pub enum AlertChange {
    /// It fires from now on.
    Fired(Alert),
    /// It is over.
    Resolved(Alert),
}

/// Which alerts to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertFilter {
    /// All of them.
    All,
    /// Those that are not over.
    Firing,
    /// Those that are.
    Resolved,
}

impl Store {
    /// Has `judge` look at what there is and writes down what changed. None if another process is at it.
    pub async fn judge_alerts(
        &self,
        view: &AlertView,
        judge: impl FnOnce(&AlertFacts) -> Vec<Verdict>,
    ) -> Result<Option<Vec<AlertChange>>, StoreError> {
        self.on_connection(async |connection| judge_alone(connection, view, judge).await).await
    }

    /// The newest alerts, at most so many; those that fire come first.
    pub async fn alerts(&self, filter: AlertFilter, limit: i64) -> Result<Vec<Alert>, StoreError> {
        let (firing, resolved) = (filter != AlertFilter::Resolved, filter != AlertFilter::Firing);
        let alerts = sqlx::query_as!(
            Alert,
            r#"
            SELECT id, name, value, threshold, fired_at, resolved_at FROM alerts
            WHERE CASE WHEN resolved_at IS NULL THEN $1::boolean ELSE $2::boolean END
            ORDER BY resolved_at IS NOT NULL, fired_at DESC, id DESC LIMIT $3
            "#,
            firing,
            resolved,
            limit
        );
        self.on_connection(async |connection| Ok(alerts.fetch_all(connection).await?)).await
    }
}

/// The lock comes first and is held until the commit: each statement behind it sees what the judge before has written.
async fn judge_alone(
    connection: &mut PgConnection,
    view: &AlertView,
    judge: impl FnOnce(&AlertFacts) -> Vec<Verdict>,
) -> Result<Option<Vec<AlertChange>>, StoreError> {
    let mut transaction = connection.begin().await?;
    let mine = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "mine!""#, LOCK);
    if !mine.fetch_one(&mut *transaction).await? {
        return Ok(None);
    }
    let facts = facts(&mut transaction, view).await?;
    let mut changes = Vec::new();
    for verdict in judge(&facts) {
        changes.extend(match verdict.finding {
            Finding::Bad(value) => fire(&mut transaction, &verdict, value).await?.map(AlertChange::Fired),
            Finding::Good => resolve(&mut transaction, verdict.name).await?.map(AlertChange::Resolved),
            Finding::Unknown => None,
        });
    }
    transaction.commit().await?;
    Ok(Some(changes))
}

async fn facts(connection: &mut PgConnection, view: &AlertView) -> Result<AlertFacts, StoreError> {
    let profiles = profile_counts(connection).await?;
    let fresh = fresh_since(connection, view.now - view.stale).await?;
    let last_event_at = last_event_at(connection).await?;
    let silent_since = view.now - view.silence;
    let before_silence = match last_event_at {
        Some(last) if last < silent_since => {
            let before = Period::around(silent_since - Duration::DAY, silent_since, view.now);
            webhook_counts(connection, before).await?.processed()
        }
        _ => 0,
    };
    Ok(AlertFacts {
        stale: profiles.users - fresh,
        profiles,
        webhooks: webhook_counts(connection, Period::last(view.webhooks, view.now)).await?,
        cache: cache_counts(connection, Period::last(view.cache, view.now)).await?,
        last_event_at,
        before_silence,
    })
}

async fn fire(connection: &mut PgConnection, verdict: &Verdict, value: f64) -> Result<Option<Alert>, StoreError> {
    let fired = sqlx::query_as!(
        Alert,
        r#"
        INSERT INTO alerts (name, value, threshold) VALUES ($1, $2, $3)
        ON CONFLICT (name) WHERE resolved_at IS NULL DO NOTHING
        RETURNING id, name, value, threshold, fired_at, resolved_at
        "#,
        verdict.name,
        value,
        verdict.threshold
    );
    Ok(fired.fetch_optional(connection).await?)
}

async fn resolve(connection: &mut PgConnection, name: &str) -> Result<Option<Alert>, StoreError> {
    let resolved = sqlx::query_as!(
        Alert,
        r#"
        UPDATE alerts SET resolved_at = now() WHERE name = $1 AND resolved_at IS NULL
        RETURNING id, name, value, threshold, fired_at, resolved_at
        "#,
        name
    );
    Ok(resolved.fetch_optional(connection).await?)
}
