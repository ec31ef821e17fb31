//! What MAX is told, and what becomes of what it sends.

use hyper::Method;
use serde_json::{Value, json};
use weir_core::queue::tally::Tallies;
use weir_stack::testing::eventually;

use crate::support::{House, Reply, SOON, UNLIMITED};

const PATH: &str = "/webhook/max";
const SECRET: &str = "a-good_Secret";

/// A message, as MAX writes one: ids are numbers of more than 53 bits.
fn created(mid: &str, text: &str) -> Value {
    json!({
        "message": {
            "recipient": {"chat_id": 182, "chat_type": "dialog", "user_id": 99},
            "timestamp": 1_775_000_000_000_u64,
            "body": {"mid": mid, "seq": 116_328_147_937_082_782_u64, "text": text},
            "sender": {"user_id": 9_007_199_254_740_993_u64, "first_name": "Анна", "last_name": "Ким", "is_bot": false}
        },
        "timestamp": 1_775_000_001_000_u64,
        "update_type": "message_created"
    })
}

async fn post(house: &House, body: &Value) -> Reply {
    house.gateway.client.post(PATH, body).await
}

async fn send(house: &House, headers: &[(&str, &str)], body: &str) -> Reply {
    house.gateway.client.send(Method::POST, PATH, headers, body.to_owned()).await
}

fn ignored(reply: &Reply) -> String {
    assert_eq!((reply.status, reply.text("status").as_str()), (200, "ignored"), "{reply:?}");
    reply.text("reason")
}

/// All that was counted for a reason.
fn of(tallies: &Tallies, reason: &str) -> u64 {
    tallies.iter().filter(|((counted, _), _)| counted == reason).map(|(_, n)| n).sum()
}

async fn counted(house: &House, reason: &str, n: u64) {
    eventually(reason, SOON, async || house.queue.tallies(0).await.is_ok_and(|tallies| of(&tallies, reason) == n))
        .await;
}

#[tokio::test]
async fn an_update_is_answered_with_exactly_200_and_is_in_the_stream() {
    let house = House::new().await;
    let reply = post(&house, &created("mid.1", "Привет")).await;
    assert_eq!((reply.status, reply.text("status").as_str()), (200, "accepted"));
    let entries = house.entries().await;
    assert_eq!((entries.len(), reply.text("message_id")), (1, format!("0-{}", entries[0].id)));
    assert_eq!(entries[0].fields["v"], b"2");
    let envelope: Value = serde_json::from_slice(&entries[0].fields["e"]).unwrap();
    assert_eq!((&envelope["src"], &envelope["id"]), (&json!("max"), &json!("mc:mid.1")));
    assert_eq!(envelope["user"]["id"], json!("9007199254740993"), "to the last digit");
}

#[tokio::test]
async fn a_repeat_is_told_the_first_id_and_another_content_is_ignored() {
    let house = House::new().await;
    let first = post(&house, &created("mid.1", "a")).await.text("message_id");
    let again = post(&house, &created("mid.1", "a")).await;
    assert_eq!((again.status, again.text("status"), again.text("message_id")), (200, "duplicate".into(), first));
    assert_eq!(ignored(&post(&house, &created("mid.1", "b")).await), "conflict");
    assert_eq!(house.entries().await.len(), 1);
}

#[tokio::test]
async fn what_is_no_event_is_answered_with_200_counted_and_not_kept() {
    let house = House::new().await;
    for (body, reason) in [
        ("", "malformed"),
        ("{", "malformed"),
        ("[]", "malformed"),
        ("\u{feff}{}", "malformed"),
        (r#"{"update_type":"poll_answered","timestamp":1}"#, "unknown"),
        (r#"{"type":"message_new","group_id":1,"object":{}}"#, "foreign"),
        (r#"{"update_id":1}"#, "foreign"),
    ] {
        assert_eq!(ignored(&send(&house, &[], body).await), reason, "{body}");
    }
    for (reason, n) in [("malformed", 4), ("unknown", 1), ("foreign", 2)] {
        counted(&house, reason, n).await;
    }
    assert_eq!(house.entries().await.len(), 0);
}

#[tokio::test]
async fn the_documents_format_is_taken_and_each_post_is_another_one() {
    let house = House::new().await;
    let body = r#"{"type":"message_new","message":{"from":{"user_id":"test","first_name":"Test"}}}"#;
    for n in 1..=2 {
        assert_eq!(send(&house, &[], body).await.text("status"), "accepted");
        assert_eq!(house.entries().await.len(), n);
    }
    let press = r#"{"type":"callback_query","callback_query":{"user":{"user_id":"12345","first_name":"Иван"}}}"#;
    assert_eq!(send(&house, &[("content-type", "text/plain")], press).await.text("status"), "accepted");
}

#[tokio::test]
async fn a_page_of_updates_is_taken_together() {
    let house = House::new().await;
    let page = json!({"updates": [created("a", "1"), created("b", "2"), {"update_type": "x"}, created("a", "1")], "marker": 5});
    let reply = post(&house, &page).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json(), json!({"status": "accepted", "accepted": 2, "duplicates": 1, "ignored": 1}));
    assert_eq!(house.entries().await.len(), 2);
}

#[tokio::test]
async fn who_does_not_know_the_secret_is_refused_before_anything_else() {
    let house = House::with(UNLIMITED, &[("max.secret", SECRET)]).await;
    let body = created("a", "1").to_string();
    for headers in [&[][..], &[("x-max-bot-api-secret", "another")], &[("x-max-bot-api-secret", "")]] {
        let reply = send(&house, headers, &body).await;
        assert_eq!((reply.status, reply.problem().as_str()), (401, "unauthorized"));
    }
    let reply = send(&house, &[("X-Max-Bot-Api-Secret", SECRET)], &body).await;
    assert_eq!((reply.status, house.entries().await.len()), (200, 1));
}

#[tokio::test]
async fn a_source_that_is_switched_off_answers_as_if_it_were_on_and_keeps_nothing() {
    let house = House::with(UNLIMITED, &[("max.secret", SECRET), ("max.enabled", "false")]).await;
    let body = created("a", "1").to_string();
    assert_eq!(send(&house, &[], &body).await.status, 401);
    for _ in 0..3 {
        assert_eq!(ignored(&send(&house, &[("x-max-bot-api-secret", SECRET)], &body).await), "disabled");
    }
    counted(&house, "disabled", 3).await;
    assert_eq!(house.entries().await.len(), 0);
}

#[tokio::test]
async fn a_body_of_up_to_a_mebibyte_is_taken() {
    let house = House::new().await;
    let text = |bytes: usize| "x".repeat(bytes - created("big", "").to_string().len());
    assert_eq!(post(&house, &created("big", &text(1 << 20))).await.status, 200);
    let reply = post(&house, &created("big", &text((1 << 20) + 1))).await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "too_large".replace('_', "-").as_str()));
}

#[tokio::test]
async fn max_has_no_limit_but_those_that_are_configured() {
    let house =
        House::with(UNLIMITED, &[("limit.per_address", "1/s burst 1"), ("gateway.trusted_proxies", "127.0.0.9")]).await;
    for n in 0..300 {
        assert_eq!(post(&house, &created(&format!("m{n}"), "x")).await.status, 200);
    }
    let house = House::with(UNLIMITED, &[("max.per_client", "1/s burst 2")]).await;
    let statuses: Vec<u16> = futures(&house, 5).await.into_iter().filter(|status| *status != 200).collect();
    assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 429), "{statuses:?}");
}

async fn futures(house: &House, n: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for n in 0..n {
        statuses.push(post(house, &created(&format!("m{n}"), "x")).await.status);
    }
    statuses
}

#[tokio::test]
async fn what_could_not_be_made_safe_is_answered_with_503_and_comes_again() {
    let house = House::with_proxy(&[("gateway.batch_timeout", "500ms"), ("gateway.replica_timeout", "100ms")]).await;
    house.gateway.ready().await;
    house.proxy().stall(true);
    let reply = post(&house, &created("a", "1")).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    house.proxy().stall(false);
    eventually("it is taken", SOON, async || post(&house, &created("a", "1")).await.status == 200).await;
    assert_eq!(house.entries().await.len(), 1);
}

#[tokio::test]
async fn counts_wait_for_redis() {
    let house = House::with_proxy(&[]).await;
    house.gateway.ready().await;
    house.proxy().cut();
    house.proxy().refuse(true);
    assert_eq!(ignored(&send(&house, &[], "{").await), "malformed");
    house.proxy().refuse(false);
    counted(&house, "malformed", 1).await;
}

#[tokio::test]
async fn every_mistake_of_the_settings_is_named() {
    for (setting, value, words) in [
        ("max.secret", "abc", "MAX takes 5 to 256"),
        ("max.secret", "with space", "MAX takes 5 to 256"),
        ("max.previous_secret", "good-one", "max.secret is not"),
        ("max.enabled", "perhaps", "max.enabled"),
    ] {
        let error = crate::support::read_config(UNLIMITED, &[(setting, value)]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = crate::support::read_config("[[source]]\nname = \"max\"\n", &[]).unwrap_err().to_string();
    assert!(error.contains("cannot be called max"), "{error}");
}
