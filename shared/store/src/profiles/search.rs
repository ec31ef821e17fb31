//! Profiles page by page, in the order of their last change: whoever has read to the end finds what changed since behind it.

use time::OffsetDateTime;

use super::read::Row;
use super::{NameSource, Profile};
use crate::{Store, StoreError};

/// Which profiles are looked for.
#[derive(Clone, Default)]
pub struct ProfileFilter {
    /// An id, or a part of a name in any case. One or two characters are a whole word of a name.
    pub text: Option<String>,
    /// Those of a source.
    pub source: Option<NameSource>,
}

/// Where a page ended: the version and the id of its last profile.
#[derive(Clone, PartialEq, Eq)]
pub struct ProfilePlace {
    /// The last change.
    pub last_updated: OffsetDateTime,
    /// The id.
    pub user_id: String,
}

impl ProfilePlace {
    /// Before all profiles that changed after this moment, and behind all others.
    pub fn after(moment: OffsetDateTime) -> Self {
        // No id has this character, and all compare byte by byte.
        Self { last_updated: moment, user_id: "~".into() }
    }

    /// Before all profiles.
    pub fn start() -> Self {
        Self { last_updated: OffsetDateTime::UNIX_EPOCH, user_id: String::new() }
    }

    /// That of a profile.
    pub fn of(profile: &Profile) -> Self {
        Self { last_updated: profile.last_updated, user_id: profile.user_id.clone() }
    }
}

/// Texts shorter than this have no trigram but at the ends of a word.
const TRIGRAM: usize = 3;

impl Store {
    /// The profiles behind a place, `limit` at most.
    pub async fn search_profiles(
        &self,
        filter: &ProfileFilter,
        behind: &ProfilePlace,
        limit: u16,
    ) -> Result<Vec<Profile>, StoreError> {
        let rows = match (filter.text.as_deref().map(str::trim).filter(|text| !text.is_empty()), filter.source) {
            (Some(text), source) if text.chars().count() >= TRIGRAM => {
                self.with_part(text, source, behind, limit).await
            }
            (Some(text), source) => self.with_word(text, source, behind, limit).await,
            (None, Some(source @ (NameSource::UserInput | NameSource::Default))) => {
                self.of_rare_source(source, behind, limit).await
            }
            (None, source) => self.all(source, behind, limit).await,
        };
        Ok(rows?.into_iter().map(Profile::from).collect())
    }

    async fn all(&self, source: Option<NameSource>, behind: &ProfilePlace, limit: u16) -> Result<Vec<Row>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT user_id, max_first_name, max_last_name, user_provided_name, updated_at FROM profiles
             WHERE (updated_at, user_id) > ($1, $2) AND ($3::text IS NULL OR source = $3)
             ORDER BY updated_at, user_id LIMIT $4",
            behind.last_updated,
            behind.user_id,
            source.map(NameSource::as_str),
            i64::from(limit)
        );
        self.planned_anew(async |connection| Ok(rows.fetch_all(connection).await?)).await
    }

    /// Most profiles are of the source `webhook`; the others have an index of their own.
    async fn of_rare_source(
        &self,
        source: NameSource,
        behind: &ProfilePlace,
        limit: u16,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT user_id, max_first_name, max_last_name, user_provided_name, updated_at FROM profiles
             WHERE source = $3 AND source <> 'webhook' AND (updated_at, user_id) > ($1, $2)
             ORDER BY updated_at, user_id LIMIT $4",
            behind.last_updated,
            behind.user_id,
            source.as_str(),
            i64::from(limit)
        );
        self.planned_anew(async |connection| Ok(rows.fetch_all(connection).await?)).await
    }

    async fn with_part(
        &self,
        text: &str,
        source: Option<NameSource>,
        behind: &ProfilePlace,
        limit: u16,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT user_id, max_first_name, max_last_name, user_provided_name, updated_at FROM profiles
             WHERE (user_id = $5 OR search LIKE $6) AND (updated_at, user_id) > ($1, $2)
                 AND ($3::text IS NULL OR source = $3)
             ORDER BY updated_at, user_id LIMIT $4",
            behind.last_updated,
            behind.user_id,
            source.map(NameSource::as_str),
            i64::from(limit),
            text,
            containing(text)
        );
        self.planned_anew(async |connection| Ok(rows.fetch_all(connection).await?)).await
    }

    async fn with_word(
        &self,
        text: &str,
        source: Option<NameSource>,
        behind: &ProfilePlace,
        limit: u16,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT user_id, max_first_name, max_last_name, user_provided_name, updated_at FROM profiles
             WHERE (user_id = $5 OR $6 <<% search) AND (updated_at, user_id) > ($1, $2)
                 AND ($3::text IS NULL OR source = $3)
             ORDER BY updated_at, user_id LIMIT $4",
            behind.last_updated,
            behind.user_id,
            source.map(NameSource::as_str),
            i64::from(limit),
            text,
            text.to_lowercase()
        );
        self.planned_anew(async |connection| Ok(rows.fetch_all(connection).await?)).await
    }
}

/// The pattern of texts that contain this one.
fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::containing;

    #[test]
    fn signs_of_a_pattern_stand_for_themselves() {
        assert_eq!(containing(r"50%_\Я"), r"%50\%\_\\я%");
    }
}
