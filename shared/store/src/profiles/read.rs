//! Profiles as they are.

use time::OffsetDateTime;

use super::{Names, Profile};
use crate::{Store, StoreError};

impl Store {
    /// Up to `limit` profiles that changed after `at`, or just then and come after `user_id`, in the order of their changes.
    pub async fn profiles_changed_since(
        &self,
        at: OffsetDateTime,
        user_id: &str,
        limit: i64,
    ) -> Result<Vec<Profile>, StoreError> {
        let rows = sqlx::query!(
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
        let profile = |names: Names, user_id, last_updated| {
            let source = names.source();
            Profile { user_id, names, last_updated, source }
        };
        Ok(rows
            .into_iter()
            .map(|row| {
                let names = Names {
                    max_first_name: row.max_first_name,
                    max_last_name: row.max_last_name,
                    user_provided_name: row.user_provided_name,
                };
                profile(names, row.user_id, row.updated_at)
            })
            .collect())
    }
}
