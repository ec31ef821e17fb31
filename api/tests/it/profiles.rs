//! Profiles over HTTP, with their cache in every state.

use std::net::Ipv4Addr;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use weir_stack::FaultProxy;
use weir_stack::testing::eventually;
use weir_store::{Cause, ProfileChange, Role};

use crate::support::{House, PATIENCE, Reply, Running, cache_at};

/// What an event tells of somebody.
pub(crate) fn person(id: &str, first: &str, last: &str) -> ProfileChange {
    ProfileChange {
        max_first_name: Some(Some(first.into())),
        max_last_name: Some(Some(last.into())),
        ..ProfileChange::new(id, Cause::Webhook, "1-2-3")
    }
}

impl House {
    /// Knows of somebody as workers do, who write the cache a moment later.
    pub(crate) async fn know(&self, id: &str, first: &str, last: &str) {
        self.store.change_profiles(&[person(id, first, last)]).await.expect("a profile");
    }

    pub(crate) async fn send(&self, role: Role, method: Method, path: &str, body: &Value) -> Reply {
        self.call(method, path, Some(self.key(role)), Some(body)).await
    }

    /// A command at the cache.
    pub(crate) async fn at_redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.queue.command(&command).await.expect("Redis")
    }

    async fn cached(&self, id: &str) -> Option<String> {
        self.at_redis(&["GET", &format!("profile:user:{id}")]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_answered_field_for_field() {
    let house = House::new().await;
    house.know("12345", "Иван", "Петров").await;
    let mut profile = house.get("/profiles/12345").await.is(200);
    let updated = profile["last_updated"].take();
    let form = updated.as_str().unwrap().len() == 27 && updated.as_str().unwrap().ends_with('Z');
    assert!(form, "{updated}");
    let expected = json!({
        "user_id": "12345", "display_name": "Иван Петров", "max_first_name": "Иван", "max_last_name": "Петров",
        "user_provided_name": "", "has_full_name": true, "source": "webhook", "last_updated": null
    });
    assert_eq!(profile, expected);
    house.know("7", "", "").await;
    let nameless = house.get("/profiles/7").await.is(200);
    assert_eq!((&nameless["display_name"], &nameless["source"]), (&"Неизвестно".into(), &"default".into()));
    house.get("/profiles/nobody").await.is_problem(404, "not-found");
    for id in ["a%20b", "a:b", "%D1%8F", "bulk-get"] {
        assert!([405, 422].contains(&house.get(&format!("/profiles/{id}")).await.status), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_was_read_is_in_the_cache_as_documented_and_is_read_from_there() {
    let house = House::new().await;
    house.know("12345", "Иван", "Петров").await;
    assert_eq!(house.cached("12345").await, None);
    let profile = house.get("/profiles/12345").await.is(200);
    let cached: Value = serde_json::from_str(&house.cached("12345").await.expect("a value")).unwrap();
    let fields: Vec<_> = cached.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected =
        ["user_id", "max_first_name", "max_last_name", "user_provided_name", "last_updated", "source"].to_vec();
    expected.sort_unstable();
    assert_eq!(fields, expected);
    assert!(fields.iter().all(|field| cached[*field] == profile[*field]), "{cached} {profile}");

    // Nobody asks PostgreSQL now.
    let other = house.cached("12345").await.unwrap().replace("Петров", "Иванов");
    let () = house.at_redis(&["SET", "profile:user:12345", &other]).await;
    assert_eq!(house.get("/profiles/12345").await.is(200)["display_name"], "Иван Иванов");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_value_is_replaced_or_taken_out() {
    let house = House::new().await;
    house.know("1", "Иван", "").await;
    for broken in ["{", "null", r#"{"user_id":"2"}"#, "\u{0}"] {
        for id in ["1", "nobody"] {
            let () = house.at_redis(&["SET", &format!("profile:user:{id}"), broken]).await;
        }
        assert_eq!(house.get("/profiles/1").await.is(200)["display_name"], "Иван", "{broken}");
        assert!(house.cached("1").await.unwrap().contains("Иван"));
        house.get("/profiles/nobody").await.is_problem(404, "not-found");
        assert_eq!(house.cached("nobody").await, None);
    }
    let _: i64 = house.at_redis(&["DEL", "profile:user:1"]).await;
    let _: i64 = house.at_redis(&["RPUSH", "profile:user:1", "a list"]).await;
    house.get("/profiles/1").await.is(200);
    assert!(house.cached("1").await.unwrap().contains("Иван"));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cache_is_stalled_or_gone_profiles_come_from_postgresql() {
    let house = House::new().await;
    house.know("1", "Иван", "").await;
    let proxy = FaultProxy::start((Ipv4Addr::LOCALHOST, house.redis.port()).into()).await;
    let url = house.redis.url().replace(&house.redis.port().to_string(), &proxy.addr().port().to_string());
    let cache = cache_at(&url, |config| config.timeout = Duration::from_millis(200));
    let api = Running::start(house.store.clone(), house.queue.clone(), Some(cache), &[]);
    let house = house.with_api(api);
    house.get("/profiles/1").await.is(200);
    proxy.stall(true);
    assert_eq!(house.get("/profiles/1").await.is(200)["display_name"], "Иван");
    let name = json!({"name": "Аня"});
    let changed = house.send(Role::Write, Method::POST, "/profiles/1/name", &name).await.is(200);
    assert_eq!(changed["display_name"], "Аня");
    assert_eq!(house.get("/profiles/1").await.is(200)["display_name"], "Аня");
    proxy.stall(false);
    proxy.refuse(true);
    proxy.cut();
    assert_eq!(house.get("/profiles/1").await.is(200)["display_name"], "Аня");
    proxy.refuse(false);
    // What could not be written is not there for long.
    eventually("the cache has the new name, or none", PATIENCE, async || {
        house.cached("1").await.is_none_or(|value| value.contains("Аня"))
    })
    .await;
    assert_eq!(house.get("/profiles/1").await.is(200)["display_name"], "Аня");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_switched_off_is_not_read() {
    let house = House::new().await;
    house.know("1", "Иван", "").await;
    house.get("/profiles/1").await.is(200);
    let other = house.cached("1").await.unwrap().replace("Иван", "Пётр");
    let () = house.at_redis(&["SET", "profile:user:1", &other]).await;
    let cache = cache_at(&house.redis.url(), |config| config.enabled = false);
    let api = Running::start(house.store.clone(), house.queue.clone(), Some(cache), &[]);
    let house = house.with_api(api);
    assert_eq!(house.get("/profiles/1").await.is(200)["display_name"], "Иван");
    house.send(Role::Write, Method::POST, "/profiles/1/name", &json!({"name": "Аня"})).await.is(200);
    assert_eq!(house.cached("1").await, None, "nothing stale is left for when it is switched on again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_of_a_put_stays_and_null_or_empty_takes_away() {
    let house = House::new().await;
    house.know("1", "Иван", "Петров").await;
    for (body, display, source) in [
        (json!({"user_provided_name": " Аня Ким "}), "Аня Ким", "user_input"),
        (json!({"max_first_name": "Пётр"}), "Аня Ким", "user_input"),
        (json!({"user_provided_name": null}), "Пётр Петров", "webhook"),
        (json!({"max_last_name": ""}), "Пётр", "webhook"),
        (json!({"max_first_name": "  "}), "Неизвестно", "default"),
    ] {
        let profile = house.send(Role::Admin, Method::PUT, "/profiles/1", &body).await.is(200);
        assert_eq!((&profile["display_name"], &profile["source"]), (&display.into(), &source.into()), "{body}");
        assert_eq!(house.get("/profiles/1").await.is(200), profile);
    }
    let fresh = house.send(Role::Admin, Method::PUT, "/profiles/new", &json!({"max_first_name": "A"})).await.is(200);
    assert_eq!(fresh["user_id"], "new");
    for (body, field) in [
        (json!({}), "body"),
        (json!({"display_name": "x"}), "display_name"),
        (json!({"max_first_name": 7}), "max_first_name"),
        (json!({"max_last_name": "a\u{0}b"}), "max_last_name"),
        (json!({"user_provided_name": "я".repeat(257)}), "user_provided_name"),
    ] {
        let problem = house.send(Role::Admin, Method::PUT, "/profiles/1", &body).await.is_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_name_counts_and_no_event_touches_it() {
    let house = House::new().await;
    house.know("1", "Иван", "Петров").await;
    let given = house.send(Role::Write, Method::POST, "/profiles/1/name", &json!({"name": "Ваня"})).await.is(200);
    assert_eq!((&given["display_name"], &given["has_full_name"]), (&"Ваня".into(), &true.into()));
    house.know("1", "Пётр", "").await;
    let after = house.store.find_profile("1").await.unwrap().unwrap();
    assert_eq!((after.names.display_name().as_str(), after.names.max_first_name.as_deref()), ("Ваня", Some("Пётр")));
    for body in [json!({"name": ""}), json!({"name": "  "}), json!({"name": null}), json!({})] {
        house.send(Role::Write, Method::POST, "/profiles/1/name", &body).await.is_problem(422, "invalid");
    }
    let collides = house.send(Role::Write, Method::POST, "/profiles/stats/name", &json!({"name": "x"})).await;
    assert_eq!(collides.is_problem(422, "invalid")["errors"][0]["field"], "user_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_tells_who_changed_what_and_no_phone() {
    let house = House::new().await;
    let phone = ProfileChange { phone: Some("+79194961182".into()), ..person("1", "Иван", "") };
    house.store.change_profiles(&[phone]).await.unwrap();
    house.send(Role::Write, Method::POST, "/profiles/1/name", &json!({"name": "Аня"})).await.is(200);
    house.send(Role::Admin, Method::PUT, "/profiles/1", &json!({"user_provided_name": null})).await.is(200);
    let reply = house.get("/profiles/1/history").await;
    assert!(!String::from_utf8_lossy(&reply.body).contains("9194961182"));
    let history = reply.is(200);
    let told: Vec<_> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["cause"].as_str().unwrap(), it["actor"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("manual", "admin of a test"), ("user_input", "write of a test"), ("webhook", "1-2-3")]);
    assert_eq!((&history["items"][2]["old"], &history["next"]), (&Value::Null, &Value::Null));
    assert_eq!(history["items"][0]["old"]["user_provided_name"], "Аня");

    let first = house.get("/profiles/1/history?limit=2").await.is(200);
    let rest = house.get(&format!("/profiles/1/history?cursor={}", first["next"].as_str().unwrap())).await.is(200);
    assert_eq!(rest["items"], json!([history["items"][2]]));
    house.know("quiet", "", "").await;
    assert_eq!(house.get("/profiles/quiet/history").await.is(200)["items"], json!([]));
    house.get("/profiles/nobody/history").await.is_problem(404, "not-found");
    house.get("/profiles/1/history?cursor=x").await.is_problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_profiles_are_read_and_changed_at_once_each_with_a_result() {
    let house = House::new().await;
    house.know("1", "Иван", "").await;
    let wanted = json!({"user_ids": ["1", 2, "a b", "1"]});
    let results = house.post("/profiles/bulk-get", &wanted).await.is(200);
    let told: Vec<_> = results["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["user_id"].as_str().unwrap(), it["status"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("1", "found"), ("2", "not_found"), ("a b", "invalid"), ("1", "found")]);
    assert_eq!(results["results"][3]["profile"]["display_name"], "Иван");

    let items = json!({"profiles": [
        {"user_id": 1, "user_provided_name": "Аня"}, {"user_id": "2", "max_first_name": "Пётр"},
        {"user_id": "stats", "max_first_name": "A"}, {"user_id": "3"}, {"user_id": "4", "max_last_name": "\u{1}"},
    ]});
    let results = house.send(Role::Admin, Method::PUT, "/profiles/bulk", &items).await.is(200);
    let told: Vec<_> = results["results"].as_array().unwrap().iter().map(|it| it["status"].as_str().unwrap()).collect();
    assert_eq!(told, ["updated", "updated", "invalid", "invalid", "invalid"]);
    assert_eq!(results["results"][4]["errors"][0]["field"], "max_last_name");
    assert_eq!(house.get("/profiles/1").await.is(200), results["results"][0]["profile"]);
    house.get("/profiles/3").await.is_problem(404, "not-found");

    let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    assert_eq!(
        house.post("/profiles/bulk-get", &json!({"user_ids": many})).await.is(200)["results"].as_array().unwrap().len(),
        1000
    );
    let too_many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    for ids in [json!([]), json!(too_many)] {
        house.post("/profiles/bulk-get", &json!({"user_ids": ids})).await.is_problem(422, "invalid");
    }
    let shapeless = json!({"profiles": [{"user_id": "1"}, {"user_id": true}]});
    let problem = house.send(Role::Admin, Method::PUT, "/profiles/bulk", &shapeless).await.is_problem(422, "invalid");
    assert_eq!(problem["errors"][0]["field"], "profiles[1].user_id", "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_searched_page_by_page() {
    let house = House::new().await;
    for (id, first, last) in [("1", "Иван", "Петров"), ("2", "Анна", "Петрова"), ("3", "Анна", "Ли")]
    {
        house.know(id, first, last).await;
    }
    house.send(Role::Write, Method::POST, "/profiles/2/name", &json!({"name": "Аня"})).await.is(200);
    let found = async |query: &str| {
        let page = house.get(&format!("/profiles?{query}")).await.is(200);
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["user_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(found("").await, ["1", "3", "2"]);
    assert_eq!(found("query=%D0%BF%D0%B5%D1%82%D1%80%D0%BE%D0%B2").await, ["1", "2"]);
    assert_eq!(found("query=3").await, ["3"]);
    assert_eq!(found("source=user_input").await, ["2"]);
    let (mut query, mut seen) = ("limit=1".to_owned(), Vec::new());
    loop {
        let page = house.get(&format!("/profiles?{query}")).await.is(200);
        seen.push(page["items"][0].clone());
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=1&cursor={next}");
    }
    assert_eq!(seen.iter().map(|it| it["user_id"].as_str().unwrap()).collect::<Vec<_>>(), ["1", "3", "2"]);
    let since = seen[1]["last_updated"].as_str().unwrap();
    assert_eq!(found(&format!("updated_after={since}")).await, ["2"]);
    for wrong in ["limit=0", "limit=501", "source=manual", "updated_after=soon", "cursor=!", "unknown=1", "query=%00"] {
        house.get(&format!("/profiles?{wrong}")).await.is_problem(422, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_of_all_profiles_add_up() {
    let house = House::new().await;
    for (id, first, last) in [("1", "Иван", "Петров"), ("2", "Анна", ""), ("3", "", "")] {
        house.know(id, first, last).await;
    }
    let stats = house.get("/profiles/stats").await.is(200);
    assert_eq!(
        (&stats["total_profiles"], &stats["profiles_with_name"], &stats["profiles_with_full_name"]),
        (&3.into(), &2.into(), &1.into())
    );
    assert_eq!(stats["profiles_by_source"], json!({"user_input": 0, "webhook": 2, "default": 1}));
    assert_eq!(stats["completeness"]["none"], 1);
    let fresh = stats["freshness"].as_object().unwrap();
    assert_eq!(fresh.values().map(|n| n.as_i64().unwrap()).sum::<i64>(), 3, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_of_the_cache_got_is_counted() {
    let house = House::new().await;
    house.know("1", "Иван", "").await;
    house.get("/profiles/1").await.is(200);
    house.get("/profiles/1").await.is(200);
    let count = async |what: &str| {
        let sql = format!("SELECT coalesce(sum(n), 0)::bigint FROM tallies WHERE what = '{what}'");
        weir_store::testing::number(&house.database, &sql).await.unwrap()
    };
    eventually("the counts are written", PATIENCE, async || count("cache.hit").await == 1).await;
    assert_eq!((count("cache.miss").await, count("cache.error").await), (1, 0));
    assert!(count("cache.us").await > 0);
}
