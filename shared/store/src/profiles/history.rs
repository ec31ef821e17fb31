//! What changed in a profile, when and by whom.

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::Names;
use crate::{Store, StoreError};

/// One change of a profile. No `Debug`: it is personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct ProfileEvent {
    /// Later changes of the same profile have greater ones.
    pub id: i64,
    /// Whose profile.
    pub user_id: String,
    /// When it was made: the version of the profile after it.
    pub changed_at: OffsetDateTime,
    /// The provider's clock, if an event did it.
    pub event_at: Option<OffsetDateTime>,
    /// `webhook`, `user_input` or `manual`.
    pub cause: String,
    /// The message id of the event, or the name of the caller's key.
    pub actor: String,
    /// The names before; none if there was no profile.
    pub old: Option<Names>,
    /// The names after.
    pub new: Names,
    /// Whether the phone is another one now. Which, is nobody's business here.
    pub phone_changed: bool,
}

struct Row {
    id: i64,
    user_id: String,
    changed_at: OffsetDateTime,
    event_at: Option<OffsetDateTime>,
    cause: String,
    actor: String,
    old: Option<Value>,
    new: Value,
}

impl Store {
    /// The changes of a profile before the one of that id, newest first. Of those that are not given an id, the newest.
    pub async fn profile_history(
        &self,
        user_id: &str,
        before: Option<i64>,
        limit: u16,
    ) -> Result<Vec<ProfileEvent>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, user_id, changed_at, event_at, cause, actor, old, new FROM profile_history
             WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
            user_id,
            before.unwrap_or(i64::MAX),
            i64::from(limit)
        );
        let rows = self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await?;
        Ok(rows.into_iter().map(ProfileEvent::from).collect())
    }

    /// The changes of profiles behind the one that is known of each, oldest first for each, `limit` at most for each.
    ///
    /// None is ever missed: who changes a profile holds its row, so that a change with a smaller id than another one of the
    /// same profile is there before it.
    pub async fn profile_changes(&self, known: &[(&str, i64)], limit: u16) -> Result<Vec<ProfileEvent>, StoreError> {
        let user_ids: Vec<&str> = known.iter().map(|known| known.0).collect();
        let ids: Vec<i64> = known.iter().map(|known| known.1).collect();
        let rows = sqlx::query_as!(
            Row,
            r#"
            SELECT h.id AS "id!", h.user_id AS "user_id!", h.changed_at AS "changed_at!", h.event_at,
                   h.cause AS "cause!", h.actor AS "actor!", h.old, h.new AS "new!"
            FROM unnest($1::text[], $2::bigint[]) AS k (user_id, id)
            CROSS JOIN LATERAL (
                SELECT * FROM profile_history h WHERE h.user_id = k.user_id AND h.id > k.id ORDER BY h.id LIMIT $3
            ) h
            ORDER BY h.id
            "#,
            &user_ids as &[&str],
            &ids,
            i64::from(limit)
        );
        let rows = self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await?;
        Ok(rows.into_iter().map(ProfileEvent::from).collect())
    }
}

impl From<Row> for ProfileEvent {
    fn from(row: Row) -> Self {
        let (old_phone, new_phone) = (row.old.as_ref().and_then(phone), phone(&row.new));
        Self {
            id: row.id,
            user_id: row.user_id,
            changed_at: row.changed_at,
            event_at: row.event_at,
            cause: row.cause,
            actor: row.actor,
            phone_changed: old_phone != new_phone,
            old: row.old.as_ref().map(names),
            new: names(&row.new),
        }
    }
}

fn phone(state: &Value) -> Option<&str> {
    state.get("phone")?.as_str()
}

fn names(state: &Value) -> Names {
    Names::deserialize(state).unwrap_or_default()
}
