//! What the customer's documents show of requests and answers, field for field, against everything that runs.

use serde_json::{Value, json};
use weir_stack::testing::{Scratch, eventually, scratch};

use crate::http::{Answer, request_with};
use crate::support::PATIENCE;
use crate::up::{Up, run, stack};

/// What a shell makes of `-H "Authorization: Bearer $JWT_TOKEN"` where nothing set the variable.
const NO_TOKEN: &str = "Authorization: Bearer \r\n";

const PERSON: &str = r#"{"user_id":"12345","first_name":"Иван","last_name":"Петров"}"#;

async fn ask(up: &Up, method: &str, path: &str, body: &str) -> Answer {
    request_with(up.port, method, path, NO_TOKEN, body).await.expect("an answer")
}

/// Posts an event, which is answered with 200 whatever it is.
async fn post(up: &Up, event: &str) {
    assert_eq!(ask(up, "POST", "/webhook/max", event).await.status, 200, "{event}");
}

/// Waits for an answer of which this holds, and gives it.
async fn until(up: &Up, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let found = std::sync::Mutex::default();
    eventually(path, PATIENCE, async || {
        let answer = ask(up, "GET", path, "").await;
        let holds = answer.status == 200 && holds(&answer.body);
        *found.lock().expect("no panic") = answer.body;
        holds
    })
    .await;
    found.into_inner().expect("no panic")
}

/// Every member of the example is in the answer, of the same type; a time is a time. More members are welcome.
#[track_caller]
fn has_the_form_of(answer: &Value, example: &Value) {
    match (answer, example) {
        (Value::Object(answer), Value::Object(example)) => {
            for (name, part) in example {
                has_the_form_of(answer.get(name).unwrap_or_else(|| panic!("no {name} in {answer:?}")), part);
            }
        }
        (Value::String(text), Value::String(example)) if example.ends_with('Z') => {
            let format = &time::format_description::well_known::Rfc3339;
            assert!(text.ends_with('Z') && time::OffsetDateTime::parse(text, format).is_ok(), "{text}");
        }
        _ => assert_eq!(std::mem::discriminant(answer), std::mem::discriminant(example), "{answer} and {example}"),
    }
}

/// The same without what is another one every time.
fn but(mut answer: Value, names: &[&str]) -> Value {
    names.iter().for_each(|name| drop(answer.as_object_mut().expect("an object").remove(*name)));
    answer
}

/// What the cache holds, as `GET` of redis-cli shows it.
async fn cached(data: &Scratch, key: &str) -> Option<Value> {
    let url = stack(data)["redis"]["url"].as_str().expect("a URL").to_owned();
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let text: Option<String> = redis::cmd("GET").arg(key).query_async(&mut redis).await.unwrap();
    text.map(|text| serde_json::from_str(&text).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_integration_document_holds() {
    let data = scratch();
    let up = Up::start(&data, &[]).await;

    post(&up, &format!(r#"{{"type":"message_new","message":{{"from":{PERSON},"text":"Hello"}}}}"#)).await;
    let profile = until(&up, "/profiles/12345", |_| true).await;
    has_the_form_of(&profile, &json!({"last_updated": "2024-01-15T10:30:00Z"}));
    let shown = json!({
        "user_id": "12345", "max_first_name": "Иван", "max_last_name": "Петров", "user_provided_name": "",
        "display_name": "Иван Петров", "source": "webhook", "has_full_name": true,
    });
    assert_eq!(but(profile.clone(), &["last_updated"]), shown);

    eventually("it is in the cache", PATIENCE, async || cached(&data, "profile:user:12345").await.is_some()).await;
    let cached = cached(&data, "profile:user:12345").await.expect("it was there");
    assert_eq!(cached, but(profile, &["display_name", "has_full_name"]));

    let employee =
        ask(&up, "POST", "/employees", r#"{"phone":"+1234567890","max_id":"12345","university_id":1}"#).await;
    let made = json!({"id": 123, "profile_last_updated": "2024-01-15T10:30:00Z"});
    assert_eq!(employee.status, 201);
    has_the_form_of(&employee.body, &made);
    for (name, value) in
        [("first_name", "Иван"), ("last_name", "Петров"), ("max_id", "12345"), ("profile_source", "webhook")]
    {
        assert_eq!(employee.body[name], value);
    }

    let named = ask(&up, "POST", "/profiles/12345/name", r#"{"name":"Иван Петрович"}"#).await;
    assert_eq!((named.status, &named.body["user_provided_name"]), (200, &"Иван Петрович".into()));
    assert_eq!((&named.body["source"], &named.body["display_name"]), (&"user_input".into(), &"Иван Петрович".into()));
    let employee =
        ask(&up, "POST", "/employees", r#"{"phone":"+1234567890","max_id":"12345","university_id":1}"#).await;
    assert_eq!(
        (&employee.body["first_name"], &employee.body["last_name"], &employee.body["profile_source"]),
        (&"Иван Петрович".into(), &"".into(), &"user_input".into())
    );
    let put = r#"{"max_first_name":"Иван","max_last_name":"Петров","user_provided_name":"Иван П."}"#;
    let put = ask(&up, "PUT", "/profiles/12345", put).await;
    assert_eq!((put.status, &put.body["display_name"]), (200, &"Иван П.".into()));

    post(&up, &format!(r#"{{"type":"callback_query","callback_query":{{"user":{PERSON},"data":"button_data"}}}}"#))
        .await;
    let stats = until(&up, "/monitoring/webhook/stats?period=day", |stats| stats["successful_events"] == 2).await;
    has_the_form_of(
        &stats,
        &json!({
            "total_events": 5000, "successful_events": 4800, "failed_events": 200,
            "events_by_type": {"message_new": 4000, "callback_query": 1000},
            "profiles_extracted": 3000, "profiles_stored": 2900, "average_processing_time_ms": 150.5,
            "period": {"from": "2024-01-15T00:00:00Z", "to": "2024-01-16T00:00:00Z"},
        }),
    );
    assert_eq!(stats["events_by_type"], json!({"message_new": 1, "callback_query": 1}));
    assert_eq!((&stats["profiles_extracted"], &stats["profiles_stored"]), (&json!(2), &json!(2)));

    let coverage = until(&up, "/monitoring/profiles/coverage", |_| true).await;
    has_the_form_of(&coverage, &json!({"last_updated": "2024-01-15T10:30:00Z"}));
    let counted = json!({
        "total_users": 1, "users_with_profiles": 1, "users_with_full_names": 1,
        "coverage_percentage": 100.0, "full_name_percentage": 100.0,
        "profiles_by_source": {"webhook": 0, "user_input": 1, "default": 0},
    });
    assert_eq!(but(coverage, &["last_updated"]), counted);
    up.stop(&data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_the_migration_guide_work_as_they_are_printed() {
    let data = scratch();
    let up = Up::start(&data, &[]).await;
    assert_eq!(ask(&up, "HEAD", "/webhook/max", "").await.status, 200);
    post(&up, r#"{"type":"message_new","message":{"from":{"user_id":"test","first_name":"Test"}}}"#).await;
    eventually("it is in the cache", PATIENCE, async || cached(&data, "profile:user:test").await.is_some()).await;

    for (body, expected) in [
        (
            r#"{"phone":"+1234567890","first_name":"Test","last_name":"User","university_id":1}"#,
            ["Test", "User", "manual"],
        ),
        (r#"{"phone":"+1234567890","max_id":"test_user","university_id":1}"#, ["Неизвестно", "Неизвестно", "default"]),
        (r#"{"phone":"+1234567890","max_id":"test","university_id":1}"#, ["Test", "", "webhook"]),
    ] {
        let made = ask(&up, "POST", "/employees", body).await;
        assert_eq!(made.status, 201, "{body}");
        let found = ["first_name", "last_name", "profile_source"].map(|name| made.body[name].as_str().unwrap_or("-"));
        assert_eq!(found, expected, "{body}");
    }
    // In MAX's own format, where the message is known by an id of its own.
    post(
        &up,
        r#"{"message":{"recipient":{"chat_id":7,"chat_type":"dialog","user_id":1},"timestamp":1775025603399,
            "body":{"mid":"mid.7","seq":1,"text":"hi"},"sender":{"user_id":7,"first_name":"Anna","is_bot":false}},
            "timestamp":1775025604499,"update_type":"message_created"}"#,
    )
    .await;
    eventually("its journey is shown", PATIENCE, async || {
        let shown = run(&data, &["message", "show", "mid.7", "--output", "json"]).await;
        shown.json()["row"].is_object()
    })
    .await;
    for path in ["profiles/coverage", "profiles/quality", "webhook/stats", "cache-health"] {
        assert_eq!(ask(&up, "GET", &format!("/monitoring/{path}"), "").await.status, 200, "{path}");
    }
    let cache = until(&up, "/monitoring/cache-health", |_| true).await;
    has_the_form_of(
        &cache,
        &json!({"redis_connected": true, "cache_hit_rate": 0.5, "total_operations": 1, "failed_operations": 0, "last_error": null}),
    );
    up.stop(&data).await;
}
