//! What the monitoring says of what was counted, and when it cries.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::{Value, json};
use time::OffsetDateTime;
use weir_core::profile_cache::{ProfileCache, ProfileCacheConfig};
use weir_core::secret::SecretUrl;
use weir_stack::testing::eventually;
use weir_store::{AlertChange, News, Person, Role, testing};

use crate::planting::{persist, row};
use crate::support::{House, PATIENCE, Reply, Running, config};

const PATHS: [&str; 5] = [
    "/monitoring/profiles/coverage",
    "/monitoring/profiles/quality",
    "/monitoring/webhook/stats",
    "/monitoring/cache-health",
    "/monitoring/alerts",
];

/// Asks as somebody who may see the monitoring and nothing else.
async fn ask(house: &House, path: &str) -> Reply {
    house.call(Method::GET, path, Some(house.key(Role::Monitor)), None).await
}

async fn run(house: &House, sql: &str) {
    testing::execute(&house.database, sql).await.expect("a statement");
}

/// Ten users, of whom eight have a name and six a full one.
const USERS: &str = "
    INSERT INTO tallies (what, at, shard, n)
    SELECT what, date_trunc('day', now(), 'UTC') - interval '1 day' * days, shard, n
    FROM (VALUES ('profiles', 100, 0, 7), ('profiles', 0, 3, 3), ('profiles.named', 100, 0, 6), ('profiles.named', 0, 1, 2),
                 ('profiles.full', 100, 0, 6), ('profiles.source.webhook', 100, 0, 5), ('profiles.source.user_input', 0, 0, 3),
                 ('profiles.source.default', 0, 0, 2), ('profiles.fresh', 100, 0, 4), ('profiles.fresh', 20, 0, 3),
                 ('profiles.fresh', 0, 0, 3)) AS t (what, days, shard, n)";

/// Of the last minutes: forty events, of which so many failed.
fn events(failed: i64) -> String {
    format!(
        "DELETE FROM tallies WHERE what >= 'events' AND what < 'failed/';
         INSERT INTO tallies (what, at, shard, n)
         SELECT what, date_trunc('minute', now() - interval '3 minutes'), 0, n
         FROM (VALUES ('events.message_new', {}), ('events.callback_query', 10), ('events.ms', 400), ('events.people', 35),
                      ('failed.unknown', {failed}), ('failed.foreign', 4)) AS t (what, n)",
        30 - failed
    )
}

fn names(changes: &[AlertChange]) -> Vec<String> {
    let name = |change: &AlertChange| match change {
        AlertChange::Fired(alert) => format!("+{}", alert.name),
        AlertChange::Resolved(alert) => format!("-{}", alert.name),
    };
    changes.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn coverage_says_who_is_known_by_name() {
    let house = House::new().await;
    let empty = ask(&house, PATHS[0]).await.is(200);
    assert_eq!((&empty["total_users"], &empty["coverage_percentage"]), (&json!(0), &json!(0.0)));
    run(&house, USERS).await;
    let expected = json!({
        "total_users": 10, "users_with_profiles": 8, "users_with_full_names": 6,
        "coverage_percentage": 80.0, "full_name_percentage": 60.0,
        "profiles_by_source": {"webhook": 5, "user_input": 3, "default": 2},
    });
    let mut coverage = ask(&house, PATHS[0]).await.is(200);
    assert!(coverage["last_updated"].take().is_string());
    coverage.as_object_mut().unwrap().remove("last_updated");
    assert_eq!(coverage, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn quality_says_how_complete_how_old_and_since_when() {
    let house = House::new().await;
    run(&house, USERS).await;
    let quality = ask(&house, "/monitoring/profiles/quality?days=2").await.is(200);
    assert_eq!(quality["total_profiles"], 10);
    assert_eq!(
        quality["completeness"],
        json!({"with_name": 8, "with_full_name": 6, "without_name": 2, "name_percentage": 80.0, "full_name_percentage": 60.0})
    );
    let freshness = json!({"today": 3, "last_7_days": 0, "last_30_days": 3, "last_90_days": 0, "older": 4});
    assert_eq!(quality["freshness"], freshness);
    assert_eq!(quality["source_distribution"]["webhook"], json!({"count": 5, "percentage": 50.0}));
    let trend = quality["trend"].as_array().unwrap();
    let shown: Vec<_> = trend.iter().map(|day| (day["total_users"].as_i64(), day["new_users"].as_i64())).collect();
    assert_eq!(shown, [(Some(7), Some(0)), (Some(10), Some(3))]);
    assert_eq!(ask(&house, PATHS[1]).await.is(200)["trend"].as_array().unwrap().len(), 30);
    for days in ["0", "366", "-1", "1.5", "x", ""] {
        ask(&house, &format!("{}?days={days}", PATHS[1])).await.is_problem(422, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_say_what_became_of_events() {
    let house = House::new().await;
    let empty = ask(&house, PATHS[2]).await.is(200);
    assert_eq!(
        (&empty["total_events"], &empty["error_rate"], &empty["last_event_at"]),
        (&json!(0), &json!(0.0), &Value::Null)
    );
    run(&house, &events(4)).await;
    run(
        &house,
        "INSERT INTO tallies VALUES ('events.message_new', date_trunc('minute', now() - interval '30 hours'), 0, 50)",
    )
    .await;
    let stats = ask(&house, PATHS[2]).await.is(200);
    assert_eq!(
        (&stats["total_events"], &stats["successful_events"], &stats["failed_events"]),
        (&json!(40), &json!(36), &json!(4))
    );
    assert_eq!((&stats["error_rate"], &stats["average_processing_time_ms"]), (&json!(0.1), &json!(11.1)));
    assert_eq!(stats["events_by_type"], json!({"message_new": 26, "callback_query": 10}));
    assert_eq!((&stats["profiles_extracted"], &stats["profiles_stored"]), (&json!(35), &json!(35)));
    assert_eq!(stats["errors_by_type"], json!({"unknown": 4}));
    assert_eq!(stats["ignored_by_type"], json!({"foreign": 4}));
    assert!(stats["last_event_at"].is_string() && stats["period"]["resolution"] == "hour", "{stats}");

    let hours_ago = |hours: i64| (OffsetDateTime::now_utc() - time::Duration::hours(hours)).unix_timestamp();
    let text = |seconds: i64| {
        let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        time.format(&time::format_description::well_known::Rfc3339).unwrap()
    };
    let path = format!("{}?from={}&to={}", PATHS[2], text(hours_ago(40)), text(hours_ago(20)));
    assert_eq!(ask(&house, &path).await.is(200)["total_events"], 50);
    for (period, events) in [("hour", 40), ("day", 40), ("week", 90), ("month", 90)] {
        assert_eq!(ask(&house, &format!("{}?period={period}", PATHS[2])).await.is(200)["total_events"], events);
    }
    for wrong in [
        "from=2027-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "from=yesterday",
        "to=1",
        "since=2026-01-01T00:00:00Z",
        "period=year",
        "period=day&from=2026-01-01T00:00:00Z",
    ] {
        ask(&house, &format!("{}?{wrong}", PATHS[2])).await.is_problem(422, "invalid");
    }
}

/// What workers store is what the monitoring says, without anybody who counts.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_stores_is_counted() {
    let house = House::new().await;
    let event = |n: usize, names: Option<(&str, &str)>| {
        let names = names.map(|(first, last)| (first.to_owned(), last.to_owned()));
        let person = Person { user_id: format!("user-{n}"), names, phone: None };
        let at = OffsetDateTime::now_utc();
        let mut event = row("max", "client", "dialog", n, None);
        event.news = Some(Box::new(News { kind: "message_created".into(), at, person: Some(person) }));
        event.place.ms = i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap();
        event
    };
    persist(&house.store, &[event(1, Some(("Анна", "Ким"))), event(2, Some(("Анна", ""))), event(3, None)]).await;
    let coverage = ask(&house, PATHS[0]).await.is(200);
    let counts = ["total_users", "users_with_profiles", "users_with_full_names"].map(|name| coverage[name].as_i64());
    assert_eq!(counts, [Some(3), Some(2), Some(1)]);
    assert_eq!(coverage["profiles_by_source"], json!({"webhook": 2, "user_input": 0, "default": 1}));
    let quality = ask(&house, PATHS[1]).await.is(200);
    assert_eq!((&quality["freshness"]["today"], &quality["freshness"]["older"]), (&json!(3), &json!(0)));
    let stats = ask(&house, PATHS[2]).await.is(200);
    assert_eq!((&stats["events_by_type"], &stats["failed_events"]), (&json!({"message_created": 3}), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_off_there_is_no_monitoring_and_no_alert() {
    let settings = [("monitoring.enabled", "false"), ("monitoring.look_every", "100ms")];
    let house = House::with(&settings).await;
    run(&house, USERS).await;
    run(&house, &events(30)).await;
    for path in PATHS {
        let problem = ask(&house, path).await.is_problem(404, "not-found");
        assert!(problem["detail"].as_str().unwrap().contains("MONITORING_ENABLED"), "{problem}");
    }
    let api = weir_api::build(config(&settings), house.store.clone(), house.queue.clone(), None).unwrap();
    assert!(api.look_at_alerts().await.unwrap().is_empty());
}

/// The cache on the server at this URL.
fn cache(url: &str) -> ProfileCache {
    let config = ProfileCacheConfig { timeout: Duration::from_secs(1), ..ProfileCacheConfig::default() };
    ProfileCache::new(&SecretUrl::new(url.to_owned()), weir_core::queue::Roots::default(), config).expect("a cache")
}

/// Asks another API of the house, which has this cache or none.
async fn cache_health(house: &House, cache: Option<ProfileCache>) -> Value {
    let running = Running::start(house.store.clone(), house.queue.clone(), cache, &[]);
    let request = hyper::Request::get(format!("http://{}{}", running.address, PATHS[3]))
        .header("authorization", format!("Bearer {}", house.key(Role::Monitor)));
    crate::support::send(request.body(http_body_util::Full::default()).unwrap()).await.is(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_says_how_it_does_and_whether_it_is_there() {
    let house = House::new().await;
    run(
        &house,
        "INSERT INTO tallies SELECT what, date_trunc('minute', now() - interval '10 minutes'), 0, n
         FROM (VALUES ('cache.hit', 90), ('cache.miss', 10), ('cache.error', 2), ('cache.us', 50000)) AS t (what, n)",
    )
    .await;
    let none = cache_health(&house, None).await;
    assert_eq!((&none["status"], &none["memory"], &none["hits"]), (&json!("disabled"), &Value::Null, &json!(90)));

    let healthy = cache_health(&house, Some(cache(&house.redis.url()))).await;
    assert_eq!(
        (&healthy["status"], &healthy["cache_hit_rate"], &healthy["error_rate"]),
        (&json!("healthy"), &json!(0.9), &json!(0.0196))
    );
    assert_eq!((&healthy["total_operations"], &healthy["average_latency_ms"]), (&json!(102), &json!(0.5)));
    assert!(healthy["memory"]["used_bytes"].as_u64().unwrap() > 100_000 && healthy["ping_ms"].is_number(), "{healthy}");

    let closed = format!("redis://127.0.0.1:{}/0", weir_stack::free_port().unwrap());
    let away = cache_health(&house, Some(cache(&closed))).await;
    assert_eq!(
        (&away["status"], &away["memory"], &away["ping_ms"]),
        (&json!("unavailable"), &Value::Null, &Value::Null)
    );

    run(&house, "UPDATE tallies SET n = 20 WHERE what = 'cache.error'").await;
    assert_eq!(cache_health(&house, Some(cache(&house.redis.url()))).await["status"], "degraded");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_once_and_resolve_once_whoever_looks() {
    // Nobody else looks meanwhile.
    let settings = [("monitoring.look_every", "1h"), ("monitoring.coverage_threshold", "0.9")];
    let house = House::with(&[("monitoring.enabled", "false")]).await;
    let api = || weir_api::build(config(&settings), house.store.clone(), house.queue.clone(), None).unwrap();
    let (one, other) = (api(), api());
    assert!(one.look_at_alerts().await.unwrap().is_empty(), "nothing is bad where nothing is");
    run(&house, USERS).await;
    run(&house, "UPDATE tallies SET n = n * 10 WHERE what LIKE 'profiles%'").await;
    run(&house, &events(4)).await;
    let (first, second) = tokio::join!(one.look_at_alerts(), other.look_at_alerts());
    let mut fired = [names(&first.unwrap()), names(&second.unwrap())].concat();
    fired.sort();
    assert_eq!(fired, ["+profile_coverage", "+webhook_errors"]);
    for api in [&one, &other] {
        assert!(api.look_at_alerts().await.unwrap().is_empty());
    }

    // Not one that runs: it would look for itself.
    let listing = one.service();
    let list = async |query: &str| {
        let request = Request::get(format!("/monitoring/alerts{query}"))
            .header("authorization", format!("Bearer {}", house.key(Role::Monitor)));
        let request = request.body(Full::<Bytes>::default()).unwrap();
        Reply::of(listing.answer(([127, 0, 0, 1], 1).into(), request).await).await
    };
    let listed = list("").await.is(200);
    assert_eq!((&listed["firing"], listed["alerts"].as_array().unwrap().len()), (&json!(2), 2));
    let coverage =
        listed["alerts"].as_array().unwrap().iter().find(|alert| alert["name"] == "profile_coverage").unwrap();
    let seen = (&coverage["state"], &coverage["value"], &coverage["threshold"], &coverage["resolved_at"]);
    assert_eq!(seen, (&json!("firing"), &json!(0.8), &json!(0.9), &Value::Null));
    assert_eq!(coverage["message"], "80.0 % of users have a profile with a name; 90.0 % are wanted");

    run(&house, &events(0)).await;
    let (first, second) = tokio::join!(one.look_at_alerts(), other.look_at_alerts());
    assert_eq!([names(&first.unwrap()), names(&second.unwrap())].concat(), ["-webhook_errors"]);
    let resolved = list("?state=resolved").await.is(200);
    assert_eq!((&resolved["firing"], &resolved["alerts"][0]["name"]), (&json!(1), &json!("webhook_errors")));
    assert!(resolved["alerts"][0]["resolved_at"].is_string());
    assert_eq!(list("?state=firing&limit=1").await.is(200)["alerts"].as_array().unwrap().len(), 1);
    for wrong in ["?state=loud", "?limit=0", "?limit=501", "?name=x"] {
        list(wrong).await.is_problem(422, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apis_that_run_look_by_themselves_and_together_fire_once() {
    let settings = [("monitoring.look_every", "100ms")];
    let house = House::with(&settings).await;
    let _others: Vec<_> =
        (0..3).map(|_| Running::start(house.store.clone(), house.queue.clone(), None, &settings)).collect();
    run(&house, &events(10)).await;
    let firing = async || ask(&house, PATHS[4]).await.is(200)["firing"] == 1;
    eventually("it fires", PATIENCE, firing).await;
    run(&house, &events(0)).await;
    eventually("it is over", PATIENCE, async || !firing().await).await;
    assert_eq!(testing::number(&house.database, "SELECT count(*) FROM alerts").await.unwrap(), 1);
}
