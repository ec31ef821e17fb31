//! Profiles page by page, in the order of their last change: whoever has read to the end finds what changed since behind it.

use time::OffsetDateTime;

use super::read::Row;
use super::{NameSource, Profile};
use crate::{Store, StoreError};

/// Which profiles are looked for.
#[derive(Clone, Default)]
pub struct ProfileFilter {
    /// An id, or a part of a name in any case, whose signs count as blanks. One or two characters are a whole word of a name.
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

/// Bytes that are searched of a profile's names. The index that has them takes no row above 2704 bytes; names of 256
/// characters in any script that has words are shorter together.
const LONGEST: usize = 2300;

/// The words of a text in small letters, with a blank between two.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            words.push(c);
        } else if !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
    }
    words.truncate(words.trim_end().len());
    words
}

/// What a profile with these names is found by: their words, each between blanks.
pub(super) fn sought(names: &str) -> String {
    let words = words(names);
    let end = words.floor_char_boundary(LONGEST);
    if end == 0 { String::new() } else { format!(" {} ", &words[..end]) }
}

/// The pattern of what is to be found by a text. None is found by one without words.
fn pattern(text: &str) -> Option<String> {
    let words = words(text);
    match words.chars().count() {
        0 => None,
        1..TRIGRAM => Some(format!("% {words} %")),
        _ => Some(format!("%{words}%")),
    }
}

impl Store {
    /// The profiles behind a place, `limit` at most.
    pub async fn search_profiles(
        &self,
        filter: &ProfileFilter,
        behind: &ProfilePlace,
        limit: u16,
    ) -> Result<Vec<Profile>, StoreError> {
        let rows = match (filter.text.as_deref().map(str::trim).filter(|text| !text.is_empty()), filter.source) {
            (Some(text), source) => self.with_part(text, source, behind, limit).await,
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

    /// What is frequent is found on the way through `profiles_updated_idx`, which has all that is asked for; what is rare by its
    /// trigrams.
    async fn with_part(
        &self,
        text: &str,
        source: Option<NameSource>,
        behind: &ProfilePlace,
        limit: u16,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT p.user_id, p.max_first_name, p.max_last_name, p.user_provided_name, p.updated_at
             FROM (
                 SELECT user_id FROM profiles
                 WHERE (user_id = $5 OR search LIKE $6) AND (updated_at, user_id) > ($1, $2)
                     AND ($3::text IS NULL OR source = $3)
                 ORDER BY updated_at, user_id LIMIT $4
             ) AS found
             JOIN profiles AS p USING (user_id)
             ORDER BY p.updated_at, p.user_id",
            behind.last_updated,
            behind.user_id,
            source.map(NameSource::as_str),
            i64::from(limit),
            text,
            pattern(text)
        );
        self.planned_anew(async |connection| Ok(rows.fetch_all(connection).await?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_words_whatever_stands_between_them() {
        assert_eq!(sought("Жан-Люк  О’Нил, (50%_Я)"), " жан люк о нил 50 я ");
        assert_eq!(sought(" !? "), "");
        for (text, expected) in
            [("Люк О", "%люк о%"), ("50%", "% 50 %"), ("Я", "% я %"), (r"%_\иван\_%", "%иван%"), ("Ян-Ли", "%ян ли%")]
        {
            assert_eq!(pattern(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(pattern("%_"), None);
    }

    #[test]
    fn names_of_any_length_fit_into_the_index() {
        for c in ["я", "名", "𐐨"] {
            let sought = sought(&c.repeat(3 * 256 + 2));
            assert!((3 * 256..=LONGEST + 2).contains(&sought.len()), "{}", sought.len());
        }
        assert_eq!(sought(&"名".repeat(3 * 256 - 2)).chars().count(), 3 * 256);
    }
}
