//! Profiles in Redis, so that reading one asks PostgreSQL only when it must. What a profile is, the store knows; here it is
//! JSON with an id and a version.
//!
//! A value is there to be lost: who reads takes what is not there, or cannot be read, from PostgreSQL and puts it back. A
//! value is never to be stale for long, though. Writing is conditional on the version (`last_updated`), so that a slow
//! reader does not put back what a writer has replaced; and a process remembers which of its writes failed (`owed`) and
//! takes those values out as soon as Redis answers again.

mod config;
mod counts;
mod owed;
mod room;
mod server;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::FromRedisValue;

use crate::queue::keys::{PROFILES_MARK, profile as key};
use crate::queue::{Arg, Queue, QueueError, Roots};
use crate::secret::SecretUrl;
use counts::Counts;
use owed::Owed;
use room::Room;

pub use config::ProfileCacheConfig;
pub use counts::CacheCounts;
pub use server::CacheServer;

/// Profiles in one call: Redis does nothing else meanwhile.
const CHUNK: usize = 100;

/// After a failure nothing is sent for so long: while Redis is away its readers must not all wait for the timeout.
const REST: Duration = Duration::from_secs(1);

/// Why the cache is of no use at the moment. Whoever gets it goes on without.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// What Redis, or the way to it, has.
    #[error(transparent)]
    Redis(#[from] QueueError),
    /// No answer within the timeout.
    #[error("the cache did not answer within {0:?}")]
    Slow(Duration),
    /// It failed a moment ago and was not asked.
    #[error("the cache failed a moment ago and is not asked again yet")]
    Resting,
    /// The settings say so.
    #[error("the cache is switched off (cache.enabled)")]
    Off,
}

/// A profile for the cache. No `Debug`: it is personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub user_id: String,
    /// The profile, with its version as `last_updated`.
    pub json: String,
    /// When it last changed: RFC 3339 in UTC with six decimals, `2026-07-01T12:00:00.000000Z`.
    pub version: String,
}

/// What the cache has of a profile.
#[derive(Clone, PartialEq, Eq)]
pub enum Found<P> {
    /// It is there.
    Hit(P),
    /// Nothing.
    Miss,
    /// Something that is no profile. The reader puts the profile in its place, or [drops](ProfileCache::drop_broken) it if
    /// there is none.
    Broken(Vec<u8>),
}

/// The cache. Shared by all who read and write profiles in a process.
pub struct ProfileCache {
    queue: Queue,
    config: ProfileCacheConfig,
    /// Until when Redis is left alone.
    rests_until: Mutex<Option<Instant>>,
    owed: Owed,
    room: Room,
    counts: Counts,
}

impl ProfileCache {
    /// The cache on the server at `url`. Nothing is connected yet.
    ///
    /// # Errors
    /// When the URL is none, or names a Redis Cluster.
    pub fn new(url: &SecretUrl, roots: Roots, config: ProfileCacheConfig) -> Result<Self, QueueError> {
        // A little less than the timeout: the connection is given up before its caller is.
        let queue = Queue::with_roots(url, 1, roots)?.on_own_link(config.timeout - config.timeout / 10);
        if queue.link().is_cluster() {
            return Err(QueueError::Deployment(format!(
                "profiles are not cached in a Redis Cluster; name a server of its own with cache.url, not {url}"
            )));
        }
        let (owed, room, counts) = (Owed::default(), Room::default(), Counts::default());
        Ok(Self { queue, config, rests_until: Mutex::default(), owed, room, counts })
    }

    /// The longest that a reader or writer waits.
    pub fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// What is there of one profile; see [`get_many`](Self::get_many).
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn get<P>(&self, user_id: &str, read: impl Fn(&str, &[u8]) -> Option<P>) -> Result<Found<P>, CacheError> {
        Ok(self.get_many(&[user_id], read).await?.pop().unwrap_or(Found::Miss))
    }

    /// What is there of each profile, in one round trip. `read` gives the profile of that id in a value, or none if it holds
    /// anything else.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn get_many<P>(
        &self,
        user_ids: &[&str],
        read: impl Fn(&str, &[u8]) -> Option<P>,
    ) -> Result<Vec<Found<P>>, CacheError> {
        if !self.config.enabled {
            return Err(CacheError::Off);
        }
        if user_ids.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let values = self.bounded(self.values(user_ids)).await;
        self.counts.read(&values, started.elapsed());
        let values = values?.into_iter().zip(user_ids);
        let found: Vec<_> = values.map(|(value, id)| self.judge(value, id, &read)).collect();
        found.iter().for_each(|found| self.counts.found(found));
        Ok(found)
    }

    async fn values(&self, user_ids: &[&str]) -> Result<Vec<Option<Vec<u8>>>, QueueError> {
        let mut ask = redis::cmd("MGET");
        for id in user_ids {
            ask.arg(key(id));
        }
        self.queue.command(&ask).await
    }

    /// A value that we failed to replace is as good as none.
    fn judge<P>(&self, value: Option<Vec<u8>>, user_id: &str, read: impl Fn(&str, &[u8]) -> Option<P>) -> Found<P> {
        match value {
            Some(_) if self.owed.contains(user_id) => Found::Miss,
            None => Found::Miss,
            Some(bytes) => match read(user_id, &bytes) {
                Some(profile) => Found::Hit(profile),
                None => Found::Broken(bytes),
            },
        }
    }

    /// Keeps profiles, each unless a newer one is there, and gives how many were kept. When the cache is switched off, or
    /// its server has no room, they are taken out instead: nothing stale is there when it is used again.
    ///
    /// # Errors
    /// See [`CacheError`]. Then those profiles are taken out as soon as that can be done.
    pub async fn put(&self, profiles: &[Entry]) -> Result<u64, CacheError> {
        self.settle_debts().await;
        let mut kept = 0;
        for (index, chunk) in profiles.chunks(CHUNK).enumerate() {
            match self.put_chunk(chunk).await {
                Ok(count) => kept += count,
                Err(error) => {
                    self.counts.failed();
                    self.owed.add(profiles[index * CHUNK..].iter().map(|profile| profile.user_id.as_str()));
                    return Err(error);
                }
            }
        }
        Ok(kept)
    }

    async fn put_chunk(&self, profiles: &[Entry]) -> Result<u64, CacheError> {
        let keys: Vec<String> = profiles.iter().map(|profile| key(&profile.user_id)).collect();
        if !self.config.enabled || !self.bounded(self.room.is_there(&self.queue)).await? {
            self.bounded(self.unlink(&keys)).await?;
            return Ok(0);
        }
        let mut args = vec![Arg::Number(self.config.ttl.as_millis() as u64)];
        args.extend(profiles.iter().flat_map(|profile| [Arg::Text(&profile.json), Arg::Text(&profile.version)]));
        self.call("put_profiles", &keys, &args).await
    }

    /// Takes profiles out.
    ///
    /// # Errors
    /// See [`CacheError`]. Then they are taken out as soon as that can be done.
    pub async fn delete(&self, user_ids: &[&str]) -> Result<u64, CacheError> {
        let keys: Vec<String> = user_ids.iter().map(|id| key(id)).collect();
        let gone = self.bounded(self.unlink(&keys)).await;
        if gone.is_err() {
            self.owed.add(user_ids.iter().copied());
        }
        gone
    }

    /// Takes a value out that is no profile, unless another has come in its place.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn drop_broken(&self, user_id: &str, value: &[u8]) -> Result<u64, CacheError> {
        self.call("drop_profiles", &[key(user_id)], &[Arg::Bytes(value)]).await
    }

    /// What was counted since this was last asked.
    pub fn take_counts(&self) -> CacheCounts {
        self.counts.take()
    }

    /// Takes out what failed writes have left. Each [`put`](Self::put) begins with it; a process calls it every few
    /// seconds besides, for there may be none for long.
    pub async fn settle_debts(&self) {
        while let Some(debts) = self.owed.some(CHUNK) {
            let keys: Vec<String> = debts.iter().map(|(id, _)| key(id)).collect();
            if self.bounded(self.unlink(&keys)).await.is_err() {
                return;
            }
            self.owed.settle(&debts);
        }
    }

    /// Unix milliseconds up to which all changes are in the cache, as its writers have noted.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn mark(&self) -> Result<Option<i64>, CacheError> {
        self.bounded(self.queue.command(redis::cmd("GET").arg(PROFILES_MARK))).await
    }

    /// Notes that all changes up to then are in the cache.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub async fn set_mark(&self, ms: i64) -> Result<(), CacheError> {
        self.bounded(self.queue.command(redis::cmd("SET").arg(PROFILES_MARK).arg(ms))).await
    }

    async fn unlink(&self, keys: &[String]) -> Result<u64, QueueError> {
        if keys.is_empty() {
            return Ok(0);
        }
        self.queue.command(redis::cmd("UNLINK").arg(keys)).await
    }

    async fn call<T: FromRedisValue>(
        &self,
        function: &str,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<T, CacheError> {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.bounded(self.queue.call(function, &keys, args)).await
    }

    /// Waits no longer than the timeout, and not at all shortly after a failure.
    async fn bounded<T>(&self, asked: impl Future<Output = Result<T, QueueError>>) -> Result<T, CacheError> {
        if self.rests() {
            return Err(CacheError::Resting);
        }
        let result = tokio::time::timeout(self.config.timeout, asked).await;
        let result = result.map_err(|_| CacheError::Slow(self.config.timeout)).and_then(|done| Ok(done?));
        if result.is_err() {
            self.rest();
        }
        result
    }

    fn rests(&self) -> bool {
        self.rests_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn rest(&self) {
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }
}

impl std::fmt::Debug for ProfileCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProfileCache").field("config", &self.config).finish_non_exhaustive()
    }
}
