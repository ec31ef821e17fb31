//! Profiles in a Redis that is there, slow, full or away.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use weir_core::profile_cache::{CacheError, Entry, Found, ProfileCache, ProfileCacheConfig};
use weir_core::queue::Roots;
use weir_core::secret::SecretUrl;
use weir_stack::FaultProxy;
use weir_stack::testing::{TestRedis, eventually, redis, redis_with};

use crate::support::LATER;

const NOON: &str = "2026-07-01T12:00:00.000000Z";
const LATER_ON: &str = "2026-07-01T12:00:00.000001Z";

fn profile(id: &str, first: &str, version: &str) -> Entry {
    let json = json!({"user_id": id, "max_first_name": first, "last_updated": version}).to_string();
    Entry { user_id: id.into(), json, version: version.into() }
}

/// What a reader of profiles would make of a value.
fn read(user_id: &str, value: &[u8]) -> Option<Entry> {
    let profile: Value = serde_json::from_slice(value).ok()?;
    let text = |name: &str| profile.get(name)?.as_str().map(str::to_owned);
    let entry = Entry { user_id: text("user_id")?, version: text("last_updated")?, json: profile.to_string() };
    (entry.user_id == user_id).then_some(entry)
}

async fn get(cache: &ProfileCache, user_id: &str) -> Result<Found<Entry>, CacheError> {
    cache.get(user_id, read).await
}

/// Whether the profile is there.
async fn hits(cache: &ProfileCache, user_id: &str) -> bool {
    matches!(get(cache, user_id).await, Ok(Found::Hit(_)))
}

/// Whether nothing is there.
async fn misses(cache: &ProfileCache, user_id: &str) -> bool {
    matches!(get(cache, user_id).await, Ok(Found::Miss))
}

fn with(url: &str, adjust: impl FnOnce(&mut ProfileCacheConfig)) -> ProfileCache {
    let mut config = ProfileCacheConfig::default();
    adjust(&mut config);
    ProfileCache::new(&SecretUrl::new(url), Roots::default(), config).unwrap()
}

fn on(redis: &TestRedis) -> ProfileCache {
    with(&redis.url(), |_| {})
}

async fn ask<T: redis::FromRedisValue>(redis: &TestRedis, words: &[&str]) -> T {
    let mut connection =
        redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.expect("the server");
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
}

/// A cache behind a proxy, with a timeout that a stalled one runs into soon.
async fn behind_proxy(redis: &TestRedis) -> (FaultProxy, ProfileCache) {
    let proxy = FaultProxy::start((Ipv4Addr::LOCALHOST, redis.port()).into()).await;
    let url = redis.url().replace(&redis.port().to_string(), &proxy.addr().port().to_string());
    (proxy, with(&url, |config| config.timeout = Duration::from_millis(300)))
}

#[tokio::test]
async fn what_was_put_is_there_and_stays_for_its_time() {
    let redis = redis().await;
    let cache = on(&redis);
    let ivan = profile("1", "Иван", NOON);
    assert_eq!(cache.put(&[ivan.clone(), profile("2", "Пётр", NOON)]).await.unwrap(), 2);
    assert!(get(&cache, "1").await.unwrap() == Found::Hit(ivan));
    let ttl: i64 = ask(&redis, &["PTTL", "profile:user:1"]).await;
    assert!((719 * 3_600_000..=720 * 3_600_000).contains(&ttl), "{ttl}");
    let found = cache.get_many(&["2", "3", "1"], read).await.unwrap();
    assert!(
        matches!(&found[..], [Found::Hit(two), Found::Miss, Found::Hit(one)] if two.user_id == "2" && one.user_id == "1")
    );
    let counts = cache.take_counts();
    assert_eq!((counts.hits, counts.misses, counts.errors, counts.reads), (3, 1, 0, 2));
    assert_eq!(cache.take_counts().hits, 0);
}

#[tokio::test]
async fn an_older_profile_does_not_replace_a_newer_one() {
    let redis = redis().await;
    let cache = on(&redis);
    let (old, new) = (profile("1", "Old", NOON), profile("1", "New", LATER_ON));
    assert_eq!(cache.put(std::slice::from_ref(&new)).await.unwrap(), 1);
    assert_eq!(cache.put(&[old]).await.unwrap(), 0);
    assert!(get(&cache, "1").await.unwrap() == Found::Hit(new.clone()));
    assert_eq!(cache.put(&[new]).await.unwrap(), 1, "the same again is kept longer");
}

#[tokio::test]
async fn thousands_are_put_and_read_at_once() {
    let redis = redis().await;
    let cache = on(&redis);
    let ids: Vec<String> = (0..2500).map(|n| format!("user-{n}")).collect();
    let profiles: Vec<_> = ids.iter().map(|id| profile(id, "Имя", NOON)).collect();
    assert_eq!(cache.put(&profiles).await.unwrap(), 2500);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let found = cache.get_many(&ids, read).await.unwrap();
    assert!(found.into_iter().zip(profiles).all(|(found, put)| found == Found::Hit(put)));
}

#[tokio::test]
async fn what_is_no_profile_is_told_and_replaced() {
    let redis = redis().await;
    let cache = on(&redis);
    let future = format!(r#"{{"last_updated":"{}""#, LATER_ON);
    for value in ["{not json", "", "[]", "{\"last_updated\":7}", "null", &future] {
        let () = ask(&redis, &["SET", "profile:user:1", value]).await;
        assert!(get(&cache, "1").await.unwrap() == Found::Broken(value.into()));
        assert_eq!(cache.put(&[profile("1", "A", NOON)]).await.unwrap(), 1, "{value}");
        assert!(hits(&cache, "1").await);
    }
    let _: i64 = ask(&redis, &["DEL", "profile:user:1"]).await;
    let _: i64 = ask(&redis, &["LPUSH", "profile:user:1", "x"]).await;
    assert!(misses(&cache, "1").await);
    assert_eq!(cache.put(&[profile("1", "A", NOON)]).await.unwrap(), 1);
    assert_eq!(cache.take_counts().errors, 6);
}

#[tokio::test]
async fn a_broken_value_is_dropped_unless_it_was_replaced() {
    let redis = redis().await;
    let cache = on(&redis);
    let () = ask(&redis, &["SET", "profile:user:1", "broken"]).await;
    assert_eq!(cache.drop_broken("1", b"broken").await.unwrap(), 1);
    assert!(misses(&cache, "1").await);
    cache.put(&[profile("1", "A", NOON)]).await.unwrap();
    assert_eq!(cache.drop_broken("1", b"broken").await.unwrap(), 0);
    assert!(hits(&cache, "1").await);
}

#[tokio::test]
async fn a_cache_that_is_switched_off_reads_nothing_and_leaves_nothing_stale() {
    let redis = redis().await;
    let (on, off) = (on(&redis), with(&redis.url(), |config| config.enabled = false));
    on.put(&[profile("1", "Old", NOON), profile("2", "B", NOON)]).await.unwrap();
    assert!(matches!(get(&off, "1").await, Err(CacheError::Off)));
    assert_eq!(off.put(&[profile("1", "New", LATER_ON)]).await.unwrap(), 0);
    assert!(misses(&on, "1").await);
    assert!(hits(&on, "2").await);
}

#[tokio::test]
async fn a_queues_server_that_is_half_full_is_left_to_the_queue() {
    let redis = redis_with(&[("maxmemory", "100mb")]).await;
    on(&redis).put(&[profile("1", "A", NOON)]).await.unwrap();
    let () = ask(&redis, &["CONFIG", "SET", "maxmemory", "1500000"]).await;
    let cache = on(&redis);
    assert_eq!(cache.put(&[profile("1", "B", LATER_ON)]).await.unwrap(), 0);
    assert!(misses(&cache, "1").await);
    let () = ask(&redis, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let () = ask(&redis, &["CONFIG", "SET", "maxmemory", "100mb"]).await;
    let again = on(&redis);
    assert_eq!(again.put(&[profile("1", "C", NOON)]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_stalled_cache_keeps_nobody_longer_than_its_timeout_and_then_nobody_at_all() {
    let redis = redis().await;
    let (proxy, cache) = behind_proxy(&redis).await;
    cache.put(&[profile("1", "A", NOON)]).await.unwrap();
    proxy.stall(true);
    let error = get(&cache, "1").await.err().expect("a stalled server gives nothing");
    assert!(matches!(error, CacheError::Slow(_) | CacheError::Redis(_)), "{error}");
    eventually("nobody waits", LATER, async || matches!(get(&cache, "1").await, Err(CacheError::Resting))).await;
    proxy.stall(false);
    eventually("the cache is used again", LATER, async || hits(&cache, "1").await).await;
    assert!(cache.take_counts().errors >= 2);
}

#[tokio::test]
async fn what_could_not_be_written_is_not_believed_and_is_taken_out_later() {
    let redis = redis().await;
    let (proxy, cache) = behind_proxy(&redis).await;
    let other = on(&redis);
    cache.put(&[profile("1", "Old", NOON), profile("2", "B", NOON)]).await.unwrap();
    proxy.refuse(true);
    proxy.cut();
    cache.put(&[profile("1", "New", LATER_ON)]).await.unwrap_err();
    assert!(hits(&other, "1").await, "nobody could reach it");
    proxy.refuse(false);
    eventually("the cache is used again", LATER, async || hits(&cache, "2").await).await;
    assert!(misses(&cache, "1").await, "its value is known to be stale");
    cache.settle_debts().await;
    assert!(misses(&other, "1").await);
    assert!(hits(&other, "2").await);
}

#[tokio::test]
async fn a_deleted_profile_is_gone_at_once_or_as_soon_as_can_be() {
    let redis = redis().await;
    let (proxy, cache) = behind_proxy(&redis).await;
    cache.put(&[profile("1", "A", NOON), profile("2", "B", NOON)]).await.unwrap();
    assert_eq!(cache.delete(&["1", "3"]).await.unwrap(), 1);
    proxy.refuse(true);
    proxy.cut();
    cache.delete(&["2"]).await.unwrap_err();
    proxy.refuse(false);
    eventually("the profile is gone", LATER, async || {
        cache.settle_debts().await;
        misses(&on(&redis), "2").await
    })
    .await;
}

#[tokio::test]
async fn a_cache_without_a_server_says_so() {
    let cache = with("redis://127.0.0.1:1/", |_| {});
    assert!(matches!(get(&cache, "1").await, Err(CacheError::Redis(_))));
    cache.put(&[profile("1", "A", NOON)]).await.unwrap_err();
}

#[tokio::test]
async fn a_cluster_is_refused_by_name() {
    let url = SecretUrl::new("redis-cluster://127.0.0.1:7000,127.0.0.1:7001/");
    let error = ProfileCache::new(&url, Roots::default(), ProfileCacheConfig::default()).unwrap_err();
    assert!(error.to_string().contains("cache.url"), "{error}");
}
