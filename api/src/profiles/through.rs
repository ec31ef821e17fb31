//! Reading through the cache, and writing through it. The cache may be slow, empty or away: then PostgreSQL answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use weir_core::profile_cache::{CacheCounts, CacheError, Entry, Found, ProfileCache, ProfileCacheConfig};
use weir_core::shutdown::Shutdown;
use weir_store::{Profile, ProfileChange, Store, StoreError};

/// All profiles. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Profiles {
    store: Store,
    cache: Option<Arc<ProfileCache>>,
}

impl Profiles {
    pub(crate) fn new(store: Store, cache: Option<Arc<ProfileCache>>) -> Self {
        Self { store, cache }
    }

    /// How long somebody who can do without a profile waits for it: for the cache, and as long for PostgreSQL.
    pub(crate) fn patience(&self) -> Duration {
        let cache = self.cache.as_ref().map(|cache| cache.timeout());
        2 * cache.unwrap_or(ProfileCacheConfig::default().timeout)
    }

    /// Writes down what readers of the cache got since the last time.
    pub(crate) async fn note_counts(&self) -> Result<(), StoreError> {
        let Some(cache) = &self.cache else { return Ok(()) };
        cache.settle_debts().await;
        let CacheCounts { hits, misses, errors, micros, .. } = cache.take_counts();
        let counts = [("hit", hits), ("miss", misses), ("error", errors), ("us", micros)];
        self.store.add_cache_counts(OffsetDateTime::now_utc(), &counts).await
    }

    /// The profile of a user; none if that id was never seen.
    pub(crate) async fn get(&self, user_id: &str) -> Result<Option<Profile>, StoreError> {
        Ok(self.get_many(&[user_id]).await?.remove(user_id))
    }

    /// The profiles of those users that were ever seen, by id.
    pub(crate) async fn get_many(&self, user_ids: &[&str]) -> Result<HashMap<String, Profile>, StoreError> {
        let Some((cache, found)) = self.look(user_ids).await else { return self.store.find_profiles(user_ids).await };
        let (mut profiles, mut missing, mut broken) = (HashMap::new(), Vec::new(), Vec::new());
        for (id, found) in user_ids.iter().zip(found) {
            match found {
                Found::Hit(profile) => drop(profiles.insert((*id).to_owned(), profile)),
                Found::Miss => missing.push(*id),
                Found::Broken(value) => {
                    missing.push(*id);
                    broken.push((*id, value));
                }
            }
        }
        if !missing.is_empty() {
            let stored = self.store.find_profiles(&missing).await?;
            let nobodys = broken.iter().filter(|(id, _)| !stored.contains_key(*id));
            rebuild(cache, stored.values(), nobodys).await;
            profiles.extend(stored);
        }
        Ok(profiles)
    }

    /// What the cache has; none if it has no answer.
    async fn look(&self, user_ids: &[&str]) -> Option<(&ProfileCache, Vec<Found<Profile>>)> {
        let cache = self.cache.as_deref()?;
        match cache.get_many(user_ids, read).await {
            Ok(found) => Some((cache, found)),
            Err(error) => {
                note(&error, "profiles are read from PostgreSQL alone");
                None
            }
        }
    }

    /// Who has confirmed that this phone is theirs.
    pub(crate) async fn by_phone(&self, phone: &str) -> Result<Option<Profile>, StoreError> {
        self.store.find_profile_by_phone(phone).await
    }

    /// Changes profiles, all or none, and gives each as it is then, by id.
    pub(crate) async fn change(&self, changes: &[ProfileChange]) -> Result<HashMap<String, Profile>, StoreError> {
        let changed = self.store.change_profiles(changes).await?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(&changed.iter().map(entry).collect::<Vec<_>>()).await
        {
            note(&error, "changed profiles could not be cached");
        }
        Ok(changed.into_iter().map(|profile| (profile.user_id.clone(), profile)).collect())
    }
}

/// How often what readers got is written down.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Writes down what readers of the cache got, until shutdown and then once more.
pub(crate) async fn count(profiles: Profiles, shutdown: Shutdown) {
    while profiles.cache.is_some() {
        let ended = shutdown.run_until_cancelled(tokio::time::sleep(COUNT_EVERY)).await.is_none();
        if let Err(error) = profiles.note_counts().await {
            tracing::debug!(%error, "what readers of the cache got could not be written down");
        }
        if ended {
            break;
        }
    }
}

/// The profile in a value of the cache; none if it holds anything else.
fn read(user_id: &str, value: &[u8]) -> Option<Profile> {
    let profile: Profile = serde_json::from_slice(value).ok()?;
    // A value whose source contradicts its names was written by somebody else.
    (profile.user_id == user_id && profile.source == profile.names.source()).then_some(profile)
}

fn entry(profile: &Profile) -> Entry {
    Entry { user_id: profile.user_id.clone(), json: profile.to_json(), version: profile.version() }
}

/// Puts what was read from PostgreSQL into the cache, and takes out what nobody can read.
async fn rebuild<'a, 'b: 'a>(
    cache: &ProfileCache,
    stored: impl Iterator<Item = &'a Profile>,
    broken: impl Iterator<Item = &'a (&'b str, Vec<u8>)>,
) {
    let entries: Vec<Entry> = stored.map(entry).collect();
    if !entries.is_empty()
        && let Err(error) = cache.put(&entries).await
    {
        note(&error, "profiles that were read could not be cached");
    }
    for (id, value) in broken {
        if let Err(error) = cache.drop_broken(id, value).await {
            note(&error, "a broken value could not be taken out of the cache");
        }
    }
}

/// The cache says by itself how often it fails; one line a failure would be many.
fn note(error: &CacheError, consequence: &str) {
    match error {
        CacheError::Off | CacheError::Resting => tracing::debug!(%error, "{consequence}"),
        CacheError::Redis(_) | CacheError::Slow(_) => tracing::warn!(%error, "{consequence}"),
    }
}
