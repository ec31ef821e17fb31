use std::time::Duration;

use crate::config::Reader;

/// How profiles are cached. Where is [`RedisConfig::cache`](crate::config::RedisConfig::cache).
#[derive(Debug, Clone)]
pub struct ProfileCacheConfig {
    /// Whether the cache is used. When not, all reads go to PostgreSQL and what changes is taken out of the cache, so that
    /// it can be switched on again at any time. Default true. `cache.enabled`, `PROFILE_CACHE_ENABLED`.
    pub enabled: bool,
    /// How long a profile stays that does not change. Default 720 h. `cache.ttl`, `PROFILE_TTL`.
    pub ttl: Duration,
    /// The longest that a reader or writer waits for the cache. Default 3 s. `cache.timeout`, `PROFILE_CACHE_TIMEOUT`.
    pub timeout: Duration,
}

impl Default for ProfileCacheConfig {
    fn default() -> Self {
        Self { enabled: true, ttl: Duration::from_secs(720 * 3600), timeout: Duration::from_secs(3) }
    }
}

impl ProfileCacheConfig {
    /// Reads the settings `cache.enabled`, `cache.ttl` and `cache.timeout`.
    pub fn read(reader: &mut Reader) -> Self {
        let default = Self::default();
        let config = Self {
            enabled: reader.get("cache.enabled", &["PROFILE_CACHE_ENABLED"], default.enabled),
            ttl: reader.get("cache.ttl", &["PROFILE_TTL"], default.ttl),
            timeout: reader.get("cache.timeout", &["PROFILE_CACHE_TIMEOUT"], default.timeout),
        };
        if config.ttl < Duration::from_secs(1) {
            reader.mistake("cache.ttl: at least 1s");
        }
        if config.timeout < Duration::from_millis(10) {
            reader.mistake("cache.timeout: at least 10ms");
        }
        config
    }
}
