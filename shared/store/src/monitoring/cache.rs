//! How reads of the profile cache ended.

use sqlx::PgConnection;

use super::Period;
use crate::{Store, StoreError};

/// Reads of the cache in a period, as all API processes counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheCounts {
    /// Found.
    pub hits: i64,
    /// Not there.
    pub misses: i64,
    /// No answer in time, or one that could not be read.
    pub errors: i64,
    /// Microseconds of all of them together.
    pub us: i64,
}

impl CacheCounts {
    /// All reads.
    pub fn reads(&self) -> i64 {
        self.hits + self.misses + self.errors
    }
}

impl Store {
    /// How the cache did in a period.
    pub async fn cache_counts(&self, period: Period) -> Result<CacheCounts, StoreError> {
        self.on_connection(async |connection| cache_counts(connection, period).await).await
    }
}

pub(crate) async fn cache_counts(connection: &mut PgConnection, period: Period) -> Result<CacheCounts, StoreError> {
    let counts = sqlx::query_as!(
        CacheCounts,
        r#"
        SELECT coalesce(sum(n) FILTER (WHERE what = 'cache.hit'), 0)::bigint AS "hits!",
               coalesce(sum(n) FILTER (WHERE what = 'cache.miss'), 0)::bigint AS "misses!",
               coalesce(sum(n) FILTER (WHERE what = 'cache.error'), 0)::bigint AS "errors!",
               coalesce(sum(n) FILTER (WHERE what = 'cache.us'), 0)::bigint AS "us!"
        FROM tallies
        WHERE what = ANY(ARRAY['cache.hit', 'cache.miss', 'cache.error', 'cache.us']) AND at >= $1 AND at < $2
        "#,
        period.from,
        period.to
    );
    Ok(counts.fetch_one(connection).await?)
}
