use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request};
use weir_api::ApiKey;
use weir_stack::testing::eventually;
use weir_store::{Role, testing};

use crate::support::{House, PATIENCE, new_key, send};

const PATH: &str = "/api/v1/search";

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_is_told_how_to_become_somebody() {
    let house = House::new().await;
    let answer = house.call(Method::GET, PATH, None, None).await;
    let problem = answer.is_problem(401, "unauthorized");
    assert!(problem["detail"].as_str().unwrap().contains("weir key create"), "{problem}");
    assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"weir\"");
    for header in ["Basic d2VpcjpzZWNyZXQ=", "Bearer", "bearer", "weir_x"] {
        let request = Request::get(house.url(PATH)).header(AUTHORIZATION, header);
        send(request.body(Full::<Bytes>::default()).unwrap()).await.is_problem(401, "unauthorized");
    }
    let key = house.key(Role::Read);
    let twice = Request::get(house.url(PATH)).header(AUTHORIZATION, format!("Bearer {key}"));
    let twice = twice.header(AUTHORIZATION, format!("Bearer {key}"));
    send(twice.body(Full::<Bytes>::default()).unwrap()).await.is_problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_cut_or_altered_costs_no_look_up() {
    let house = House::new().await;
    let key = house.key(Role::Admin).to_owned();
    // Whoever asked the database would now be told that it is away.
    testing::execute(&house.database, "ALTER TABLE api_keys RENAME TO elsewhere").await.unwrap();
    for wrong in [&key[..50], &format!("{key}0"), &key.replace("weir_", "weir-"), &format!("{}x", &key[..50])] {
        if wrong != key {
            house.call(Method::GET, PATH, Some(wrong), None).await.is_problem(401, "unauthorized");
        }
    }
    let unknown = ApiKey::random();
    house.call(Method::GET, PATH, Some(unknown.expose()), None).await.is_problem(500, "internal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nobody_made_and_one_with_a_known_prefix_are_refused_alike() {
    let house = House::new().await;
    let known = new_key(&house.store, Role::Admin).await;
    let forged = ApiKey::random();
    let sql = format!("UPDATE api_keys SET prefix = '{}' WHERE prefix = '{}'", forged.prefix(), known.prefix());
    testing::execute(&house.database, &sql).await.unwrap();
    let forged = house.call(Method::GET, PATH, Some(forged.expose()), None).await;
    let unknown = house.call(Method::GET, PATH, Some(ApiKey::random().expose()), None).await;
    assert_eq!((forged.status, &forged.body), (401, &unknown.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_within_five_seconds() {
    let house = House::new().await;
    let key = new_key(&house.store, Role::Read).await;
    house.call(Method::GET, PATH, Some(key.expose()), None).await.is(200);
    assert!(house.store.revoke_key(key.prefix()).await.unwrap().is_some());
    let revoked = Instant::now();
    let mut last = revoked;
    eventually("it is refused", PATIENCE, async || {
        let asked = Instant::now();
        let refused = house.call(Method::GET, PATH, Some(key.expose()), None).await.status == 401;
        if !refused {
            last = asked;
        }
        refused
    })
    .await;
    // From when the last request was sent that was let through: whatever the machine does meanwhile counts for nobody.
    assert!(last - revoked < Duration::from_secs(5), "{:?}", last - revoked);
    assert!(house.store.revoke_key(key.prefix()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_works_at_once_even_if_it_was_tried_before() {
    let house = House::new().await;
    let key = ApiKey::random();
    house.store.add_key("new", Role::Read, key.prefix(), &key.hash()).await.unwrap();
    house.call(Method::GET, PATH, Some(key.expose()), None).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_key_is_believed_the_database_is_not_asked() {
    let house = House::new().await;
    let key = house.key(Role::Read);
    house.call(Method::GET, PATH, Some(key), None).await.is(200);
    let looks =
        "SELECT coalesce(sum(idx_scan + seq_scan), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'api_keys'";
    let asked = Instant::now();
    for _ in 0..50 {
        house.call(Method::GET, "/api/v1/clients/%00", Some(key), None).await.is_problem(422, "invalid");
    }
    // Statistics come late, never too high; a slow machine has had to ask again.
    let allowed = 10 + i64::try_from(asked.elapsed().as_secs()).unwrap();
    let found = testing::number(&house.database, looks).await.unwrap();
    assert!(found <= allowed, "{found} looks, {allowed} allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_use_of_a_key_is_noted() {
    let house = House::new().await;
    let used = async |key: &ApiKey| {
        let keys = house.store.list_keys().await.unwrap();
        keys.into_iter().find(|listed| listed.prefix == key.prefix()).unwrap().last_used_at
    };
    let key = new_key(&house.store, Role::Monitor).await;
    assert!(used(&key).await.is_none());
    // Also where the role was too weak: the key was shown.
    house.call(Method::GET, PATH, Some(key.expose()), None).await.is_problem(403, "forbidden");
    eventually("it is noted", PATIENCE, async || used(&key).await.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_the_database_can_be_used_as_a_key() {
    let house = House::new().await;
    let rows = testing::texts(&house.database, "SELECT row_to_json(k)::text FROM api_keys k").await.unwrap();
    assert_eq!(rows.len(), Role::ALL.len());
    for role in Role::ALL {
        let key = house.key(role);
        // Behind the prefix by which it is found stands what is secret.
        assert!(rows.iter().all(|row| !row.contains(&key[13..])), "{role}");
    }
    for word in rows.iter().flat_map(|row| row.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')) {
        assert!(ApiKey::parse(word).is_none(), "{word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_development_somebody_at_the_machine_needs_no_key_and_others_do() {
    let house = House::with(&[("api.auth", "development")]).await;
    let get = async |headers: &[(&str, &str)]| {
        let mut request = Request::get(house.url(PATH));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request.body(Full::<Bytes>::default()).unwrap()).await.status
    };
    assert_eq!(get(&[]).await, 200);
    for by_others in
        [("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=127.0.0.1"), ("origin", "https://evil.example")]
    {
        assert_eq!(get(&[by_others]).await, 401, "{by_others:?}");
    }
    // A key that is shown counts, and a wrong one is not overlooked.
    assert_eq!(get(&[("authorization", "Bearer weir_wrong")]).await, 401);
    let monitor = format!("Bearer {}", house.key(Role::Monitor));
    assert_eq!(get(&[("authorization", &monitor)]).await, 403);
}
