//! Profiles in a Redis that is there, slow, full or away.

use std::net::Ipv4Addr;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::datetime;
use weir_core::profile_cache::{CacheError, CachedProfile, Found, ProfileCache, ProfileCacheConfig, format_time};
use weir_core::queue::Roots;
use weir_core::secret::SecretUrl;
use weir_stack::FaultProxy;
use weir_stack::testing::{TestRedis, eventually, redis, redis_with};

use crate::support::LATER;

const NOON: OffsetDateTime = datetime!(2026-07-01 12:00 UTC);

fn profile(id: &str, first: &str, at: OffsetDateTime) -> CachedProfile {
    CachedProfile {
        user_id: id.into(),
        max_first_name: Some(first.into()),
        max_last_name: None,
        user_provided_name: None,
        last_updated: at,
        source: "webhook".into(),
    }
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
    assert_eq!(cache.get("1").await.unwrap(), Found::Hit(ivan));
    let ttl: i64 = ask(&redis, &["PTTL", "profile:user:1"]).await;
    assert!((719 * 3_600_000..=720 * 3_600_000).contains(&ttl), "{ttl}");
    let found = cache.get_many(&["2", "3", "1"]).await.unwrap();
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
    let (old, new) = (profile("1", "Old", NOON), profile("1", "New", NOON + Duration::from_micros(1)));
    assert_eq!(cache.put(std::slice::from_ref(&new)).await.unwrap(), 1);
    assert_eq!(cache.put(&[old]).await.unwrap(), 0);
    assert_eq!(cache.get("1").await.unwrap(), Found::Hit(new.clone()));
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
    let found = cache.get_many(&ids).await.unwrap();
    assert!(found.into_iter().zip(profiles).all(|(found, put)| found == Found::Hit(put)));
}

#[tokio::test]
async fn what_is_no_profile_is_told_and_replaced() {
    let redis = redis().await;
    let cache = on(&redis);
    let future = format!(r#"{{"last_updated":"{}""#, format_time(NOON + Duration::from_secs(1)));
    for value in ["{not json", "", "[]", "{\"last_updated\":7}", "null", &future] {
        let () = ask(&redis, &["SET", "profile:user:1", value]).await;
        assert_eq!(cache.get("1").await.unwrap(), Found::Broken(value.into()));
        assert_eq!(cache.put(&[profile("1", "A", NOON)]).await.unwrap(), 1, "{value}");
        assert!(matches!(cache.get("1").await.unwrap(), Found::Hit(_)));
    }
    let _: i64 = ask(&redis, &["DEL", "profile:user:1"]).await;
    let _: i64 = ask(&redis, &["LPUSH", "profile:user:1", "x"]).await;
    assert_eq!(cache.get("1").await.unwrap(), Found::Miss);
    assert_eq!(cache.put(&[profile("1", "A", NOON)]).await.unwrap(), 1);
    assert_eq!(cache.take_counts().errors, 6);
}

#[tokio::test]
async fn a_broken_value_is_dropped_unless_it_was_replaced() {
    let redis = redis().await;
    let cache = on(&redis);
    let () = ask(&redis, &["SET", "profile:user:1", "broken"]).await;
    assert_eq!(cache.drop_broken("1", b"broken").await.unwrap(), 1);
    assert_eq!(cache.get("1").await.unwrap(), Found::Miss);
    cache.put(&[profile("1", "A", NOON)]).await.unwrap();
    assert_eq!(cache.drop_broken("1", b"broken").await.unwrap(), 0);
    assert!(matches!(cache.get("1").await.unwrap(), Found::Hit(_)));
}

#[tokio::test]
async fn a_cache_that_is_switched_off_reads_nothing_and_leaves_nothing_stale() {
    let redis = redis().await;
    let (on, off) = (on(&redis), with(&redis.url(), |config| config.enabled = false));
    on.put(&[profile("1", "Old", NOON), profile("2", "B", NOON)]).await.unwrap();
    assert!(matches!(off.get("1").await, Err(CacheError::Off)));
    assert_eq!(off.put(&[profile("1", "New", NOON + Duration::from_secs(1))]).await.unwrap(), 0);
    assert_eq!(on.get("1").await.unwrap(), Found::Miss);
    assert!(matches!(on.get("2").await.unwrap(), Found::Hit(_)));
}

#[tokio::test]
async fn a_queues_server_that_is_half_full_is_left_to_the_queue() {
    let redis = redis_with(&[("maxmemory", "100mb")]).await;
    on(&redis).put(&[profile("1", "A", NOON)]).await.unwrap();
    let () = ask(&redis, &["CONFIG", "SET", "maxmemory", "1500000"]).await;
    let cache = on(&redis);
    assert_eq!(cache.put(&[profile("1", "B", NOON + Duration::from_secs(1))]).await.unwrap(), 0);
    assert_eq!(cache.get("1").await.unwrap(), Found::Miss);
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
    let error = cache.get("1").await.unwrap_err();
    assert!(matches!(error, CacheError::Slow(_) | CacheError::Redis(_)), "{error}");
    assert!(matches!(cache.get("1").await, Err(CacheError::Resting)));
    proxy.stall(false);
    eventually("the cache is used again", LATER, async || matches!(cache.get("1").await, Ok(Found::Hit(_)))).await;
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
    cache.put(&[profile("1", "New", NOON + Duration::from_secs(1))]).await.unwrap_err();
    assert!(matches!(other.get("1").await.unwrap(), Found::Hit(_)), "nobody could reach it");
    proxy.refuse(false);
    eventually("the cache is used again", LATER, async || matches!(cache.get("2").await, Ok(Found::Hit(_)))).await;
    assert_eq!(cache.get("1").await.unwrap(), Found::Miss, "its value is known to be stale");
    cache.settle_debts().await;
    assert_eq!(other.get("1").await.unwrap(), Found::Miss);
    assert!(matches!(other.get("2").await.unwrap(), Found::Hit(_)));
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
        on(&redis).get("2").await.unwrap() == Found::Miss
    })
    .await;
}

#[tokio::test]
async fn a_cache_without_a_server_says_so() {
    let cache = with("redis://127.0.0.1:1/", |_| {});
    assert!(matches!(cache.get("1").await, Err(CacheError::Redis(_))));
    assert!(matches!(cache.put(&[profile("1", "A", NOON)]).await, Err(CacheError::Resting)));
}

#[tokio::test]
async fn a_cluster_is_refused_by_name() {
    let url = SecretUrl::new("redis-cluster://127.0.0.1:7000,127.0.0.1:7001/");
    let error = ProfileCache::new(&url, Roots::default(), ProfileCacheConfig::default()).unwrap_err();
    assert!(error.to_string().contains("cache.url"), "{error}");
}
