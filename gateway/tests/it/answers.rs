//! Every answer that one request can get while all is well.

use hyper::Method;
use serde_json::json;

use crate::support::{House, UNLIMITED, WEBHOOK, head, message, message_with};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_new_message_is_accepted_and_is_in_the_stream_under_its_id() {
    let house = House::new().await;
    let reply = house.post(&message("a")).await;
    let id = reply.accepted();
    assert_eq!(reply.text("durability"), "disk");
    assert_eq!(reply.header("content-type"), "application/json");
    let entries = house.entries().await;
    assert_eq!((entries.len(), id), (1, format!("0-{}", entries[0].id)));
    let envelope: serde_json::Value = serde_json::from_slice(&entries[0].fields["e"]).unwrap();
    assert_eq!(envelope["src"], "messenger");
    assert_eq!((&envelope["id"], &envelope["text"]), (&json!("a"), &json!("Привет!")));
}

#[tokio::test]
async fn a_duplicate_is_answered_with_the_first_id() {
    let house = House::new().await;
    let first = house.post(&message("a")).await.accepted();
    let again = house.post(&message("a")).await;
    assert_eq!(again.duplicate(), first);
    assert!(again.json().get("durability").is_none());
    // Serialised anew, with another phone notation and an unknown field: still the same message.
    let body = r#"{"x":1,"send_at":1640995200,"message_text":"\u041f\u0440\u0438\u0432\u0435\u0442!",
        "client_phone":"+7 (919) 496-11-82","external_client_id":"fedcba0987654321abcdef1234567890",
        "external_message_id":"a"}"#;
    let again = house.gateway.client.send(Method::POST, WEBHOOK, &[JSON], body).await;
    assert_eq!(again.duplicate(), first);
    assert_eq!(house.entries().await.len(), 1);
}

#[tokio::test]
async fn the_same_id_with_other_content_is_a_conflict() {
    let house = House::new().await;
    let first = house.post(&message("a")).await.accepted();
    for (field, value) in [
        ("external_client_id", json!("other")),
        ("client_phone", json!("+79194961183")),
        ("message_text", json!("Привет?")),
        ("send_at", json!(1_640_995_201)),
    ] {
        let reply = house.post(&message_with("a", field, value)).await;
        assert_eq!((reply.status, reply.problem().as_str()), (409, "conflict"));
        assert_eq!(reply.text("message_id"), first);
    }
    assert_eq!(house.entries().await.len(), 1);
}

#[tokio::test]
async fn the_same_id_of_another_source_is_another_message() {
    let file = format!("{UNLIMITED}[[source]]\nname = \"other\"\n");
    let house = House::with(&file, &[]).await;
    house.post(&message("a")).await.accepted();
    house.gateway.client.post("/in/other", &message("a")).await.accepted();
    house.gateway.client.post("/in/messenger", &message("a")).await.duplicate();
}

#[tokio::test]
async fn two_gateways_know_each_others_messages() {
    let house = House::new().await;
    let other = crate::support::Gateway::start(&house.redis.url(), 1, UNLIMITED, &[]);
    other.ready().await;
    let first = house.post(&message("a")).await.accepted();
    assert_eq!(other.post(&message("a")).await.duplicate(), first);
    assert_eq!(other.post(&message_with("a", "message_text", "x")).await.status, 409);
}

#[tokio::test]
async fn bytes_that_are_no_json_object_are_refused() {
    let house = House::new().await;
    for body in ["", "null", "[]", "7", "{", "{\"a\":}"] {
        let reply = house.gateway.client.send(Method::POST, WEBHOOK, &[JSON], body).await;
        assert_eq!((reply.status, reply.problem().as_str()), (400, "not-json"), "{body}");
    }
}

#[tokio::test]
async fn all_faults_of_a_message_are_named_at_once() {
    let house = House::new().await;
    let body = json!({ "external_message_id": "a b", "client_phone": "8919", "message_text": "", "send_at": "soon" });
    let reply = house.post(&body).await;
    assert_eq!((reply.status, reply.problem().as_str()), (422, "invalid"));
    let faults = reply.json()["errors"].as_array().unwrap().clone();
    let named: Vec<_> = faults.iter().map(|fault| (fault["field"].as_str(), fault["code"].as_str())).collect();
    let expected = [
        ("external_message_id", "characters"),
        ("external_client_id", "missing"),
        ("client_phone", "phone"),
        ("message_text", "length"),
        ("send_at", "type"),
    ];
    assert_eq!(named, expected.map(|(field, code)| (Some(field), Some(code))));
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_declared_or_not() {
    let house = House::new().await;
    let large = message_with("a", "x", "y".repeat(70_000)).to_string();
    let reply = house.gateway.client.send(Method::POST, WEBHOOK, &[JSON], large.clone()).await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "too-large"));

    let mut raw = house.gateway.connect().await;
    raw.write(head("transfer-encoding: chunked\r\n")).await;
    for chunk in large.as_bytes().chunks(10_000) {
        raw.write(format!("{:x}\r\n", chunk.len())).await;
        raw.write(chunk).await;
        raw.write("\r\n").await;
    }
    raw.write("0\r\n\r\n").await;
    assert!(raw.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 413"));

    // Just below it fits.
    let fits = message_with("b", "x", "y".repeat(65_000));
    house.post(&fits).await.accepted();
}

#[tokio::test]
async fn a_refused_body_is_read_so_that_the_answer_arrives_and_the_connection_lives() {
    let house = House::new().await;
    let body = "x".repeat(3 << 20);
    let mut raw = house.gateway.connect().await;
    for _ in 0..2 {
        raw.write(head(&format!("content-length: {}\r\n", body.len()))).await;
        raw.write(&body).await;
        let answer = raw.read_until("too-large").await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_nobody_would_read_costs_the_connection() {
    let house = House::new().await;
    let mut raw = house.gateway.connect().await;
    raw.write(head("content-length: 99999999999\r\n")).await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("connection: close"), "{answer}");

    // Who asks first is told no, and sends nothing.
    let mut raw = house.gateway.connect().await;
    raw.write(head("content-length: 100000\r\nexpect: 100-continue\r\n")).await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn only_plain_json_is_taken() {
    let house = House::new().await;
    let body = message("a").to_string();
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[JSON, ("content-encoding", "gzip")],
    ] {
        let reply = house.gateway.client.send(Method::POST, WEBHOOK, headers, body.clone()).await;
        assert_eq!(reply.status, 415, "{headers:?}");
        assert!(["media-type", "encoding"].contains(&reply.problem().as_str()));
    }
    for kind in ["application/json; charset=utf-8", "APPLICATION/JSON"] {
        let reply = house.gateway.client.send(Method::POST, WEBHOOK, &[("content-type", kind)], body.clone()).await;
        assert!([202, 200].contains(&reply.status), "{kind}");
    }
}

#[tokio::test]
async fn get_and_head_say_whether_a_message_could_be_accepted() {
    let house = House::new().await;
    for path in [WEBHOOK, "/in/messenger", "/in/messenger/batch"] {
        let reply = house.gateway.client.send(Method::GET, path, &[], "").await;
        assert_eq!(
            (reply.status, reply.text("status"), reply.text("durability")),
            (200, "ready".into(), "disk".into())
        );
        let reply = house.gateway.client.send(Method::HEAD, path, &[], "").await;
        assert_eq!((reply.status, reply.bytes.len()), (200, 0));
    }
    house.set("appendfsync", "everysec").await;
    house.gateway.waits_for("appendfsync is everysec").await;
    house.gateway.client.send(Method::GET, WEBHOOK, &[], "").await.is_unavailable("not-ready");
    assert_eq!(house.gateway.client.send(Method::HEAD, WEBHOOK, &[], "").await.status, 503);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_so() {
    let house = House::new().await;
    for path in ["/", "/api/v1", "/api/v1/webhook/", "/in/", "/in/nobody", "/in/nobody/batch", "/batch", "/metrics"] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let reply = house.gateway.client.send(method, path, &[JSON], "{}").await;
            assert_eq!((reply.status, reply.problem().as_str()), (404, "not-found"), "{path}");
        }
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let reply = house.gateway.client.send(method, WEBHOOK, &[JSON], "{}").await;
        assert_eq!((reply.status, reply.problem().as_str()), (405, "method"));
        assert_eq!(reply.header("allow"), "GET, HEAD, POST");
    }
    house.gateway.client.post(&format!("{WEBHOOK}?x=1"), &message("a")).await.accepted();
}

#[tokio::test]
async fn a_trace_is_continued_into_the_stream() {
    let house = House::new().await;
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let client = &house.gateway.client;
    client.send(Method::POST, WEBHOOK, &[JSON, trace], message("a").to_string()).await.accepted();
    client.send(Method::POST, WEBHOOK, &[JSON, ("traceparent", "rubbish")], message("b").to_string()).await.accepted();
    let traces: Vec<String> = house
        .entries()
        .await
        .iter()
        .map(|entry| serde_json::from_slice::<serde_json::Value>(&entry.fields["e"]).unwrap()["trace"].to_string())
        .collect();
    assert!(traces[0].contains("-4bf92f3577b34da6a3ce929d0e0e4736-") && !traces[0].contains("00f067aa0ba902b7"));
    assert!(traces[1].starts_with("\"00-") && !traces[1].contains("4bf92f35"), "{traces:?}");
}
