//! Profiles by their ids, or by a phone.

use std::collections::HashMap;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Names, Profile};
use crate::{Store, StoreError};

/// A row of `profiles`, as far as it is answered.
pub(super) struct Row {
    pub(super) user_id: String,
    pub(super) max_first_name: Option<String>,
    pub(super) max_last_name: Option<String>,
    pub(super) user_provided_name: Option<String>,
    pub(super) updated_at: OffsetDateTime,
}

impl From<Row> for Profile {
    fn from(row: Row) -> Self {
        let names = Names {
            max_first_name: row.max_first_name,
            max_last_name: row.max_last_name,
            user_provided_name: row.user_provided_name,
        };
        let source = names.source();
        Self { user_id: row.user_id, names, last_updated: row.updated_at, source }
    }
}

impl Store {
    /// The profile of a user; none if that id was never seen.
    pub async fn find_profile(&self, user_id: &str) -> Result<Option<Profile>, StoreError> {
        Ok(self.find_profiles(&[user_id]).await?.into_values().next())
    }

    /// The profiles of those users that were ever seen, by id.
    pub async fn find_profiles(&self, user_ids: &[&str]) -> Result<HashMap<String, Profile>, StoreError> {
        self.on_connection(async |connection| by_ids(connection, user_ids).await).await
    }

    /// Who has confirmed that this phone is theirs; of several who did so last.
    pub async fn find_profile_by_phone(&self, phone: &str) -> Result<Option<Profile>, StoreError> {
        let found = self.on_connection(async |connection| by_phones(connection, &[phone]).await);
        Ok(found.await?.into_values().next())
    }

    /// Up to `limit` profiles that changed after `at`, or just then and come after `user_id`, in the order of their changes.
    pub async fn profiles_changed_since(
        &self,
        at: OffsetDateTime,
        user_id: &str,
        limit: i64,
    ) -> Result<Vec<Profile>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"
            SELECT user_id, max_first_name, max_last_name, user_provided_name, updated_at
            FROM profiles WHERE (updated_at, user_id) > ($1, $2)
            ORDER BY updated_at, user_id LIMIT $3
            "#,
            at,
            user_id,
            limit
        );
        let rows = self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await?;
        Ok(rows.into_iter().map(Profile::from).collect())
    }
}

pub(crate) async fn by_ids(
    connection: &mut PgConnection,
    user_ids: &[&str],
) -> Result<HashMap<String, Profile>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT user_id, max_first_name, max_last_name, user_provided_name, updated_at FROM profiles
         WHERE user_id = ANY($1)",
        user_ids as &[&str]
    );
    let profiles = rows.fetch_all(connection).await?.into_iter().map(Profile::from);
    Ok(profiles.map(|profile| (profile.user_id.clone(), profile)).collect())
}

/// Whose phones these are, by phone.
pub(crate) async fn by_phones(
    connection: &mut PgConnection,
    phones: &[&str],
) -> Result<HashMap<String, Profile>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT DISTINCT ON (phone) phone AS "phone!", user_id, max_first_name, max_last_name, user_provided_name,
               updated_at
        FROM profiles WHERE phone = ANY($1) ORDER BY phone, phone_at DESC NULLS LAST, user_id
        "#,
        phones as &[&str]
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| {
        let profile = Row {
            user_id: row.user_id,
            max_first_name: row.max_first_name,
            max_last_name: row.max_last_name,
            user_provided_name: row.user_provided_name,
            updated_at: row.updated_at,
        };
        (row.phone, profile.into())
    });
    Ok(rows.collect())
}
