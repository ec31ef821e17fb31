//! JSON that no program of good will sends: each piece gets an answer that names what is wrong, or is accepted whole.

use hyper::Method;
use serde_json::Value;

use crate::support::{House, Reply, UNLIMITED, WEBHOOK, message};

const JSON: (&str, &str) = ("content-type", "application/json");

const SAMPLE: [(&str, &str); 5] = [
    ("external_message_id", "\"id\""),
    ("external_client_id", "\"client\""),
    ("client_phone", "\"+79194961182\""),
    ("message_text", "\"text\""),
    ("send_at", "1640995200"),
];

/// The sample with one field written differently, or one field more. `value` and `name` are JSON without their quotes.
fn body(name: &str, value: &str) -> String {
    let others = SAMPLE.iter().filter(|(known, _)| *known != name).copied();
    let members: Vec<_> = others.chain([(name, value)]).map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// The same under an id of its own.
fn body_with_id(id: &str, name: &str, value: &str) -> String {
    body(name, value).replace("\"id\"", &format!("\"{id}\""))
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

async fn post(house: &House, body: impl Into<Vec<u8>>) -> Reply {
    house.gateway.client.send(Method::POST, WEBHOOK, &[JSON], body.into()).await
}

/// The fields that an answer names, with what is wrong.
fn faults(answer: &Value) -> Vec<(String, String)> {
    let text = |fault: &Value, name: &str| fault[name].as_str().unwrap().to_owned();
    let errors = answer["errors"].as_array().into_iter().flatten();
    errors.map(|fault| (text(fault, "field"), text(fault, "code"))).collect()
}

/// Values of an unknown field that are refused, and the code of the fault.
fn refused_values() -> Vec<(String, &'static str)> {
    let mut cases: Vec<(String, &str)> = [
        (r#""\u0000""#, "nul"),
        (r#"{"a\u0000":1}"#, "nul"),
        (r#"{"a":"\u0000","a":1}"#, "nul"),
        (r#"[[{"a":["\u0000"]}]]"#, "nul"),
        (r#""\ud800""#, "unicode"),
        (r#""\ude04\ud83d""#, "unicode"),
        (r#"{"a":"\udfff"}"#, "unicode"),
        (r#"{"a":1,"a":1}"#, "duplicate"),
        (r#"{"b":[{"a":1,"\u0061":2}]}"#, "duplicate"),
        ("1e400", "number"),
        ("-1e400", "number"),
        ("1e-20000", "number"),
        ("0e99999999999", "number"),
    ]
    .map(|(value, code)| (value.to_owned(), code))
    .into();
    cases.push(("7".repeat(400), "number"));
    cases.push((format!("1.{}", "0".repeat(20_000)), "number"));
    cases.extend([101, 127, 128, 129, 20_000].map(|levels| (nested(levels), "depth")));
    cases
}

/// Values of an unknown field that are kept.
fn kept_values() -> Vec<String> {
    let mut values: Vec<String> = [
        "-0",
        "-0.0",
        "9007199254740993",
        "1E308",
        "5e-324",
        "1.50",
        "18446744073709551616",
        r#""\ud83d\ude04""#,
        r#""\u0001\u001f\u007f\u0085\u2028\u202e\ufeff\uffff""#,
        "\"\u{7f}\u{85}\u{2028}\u{202e}\u{feff}\u{ffff}\"",
        r#"{"":{"":[]}}"#,
        "null",
    ]
    .map(str::to_owned)
    .into();
    values.push(nested(100));
    values.push(format!("\"{}\"", "x".repeat(60_000)));
    values
}

#[tokio::test]
async fn an_unknown_field_that_could_not_be_stored_is_named() {
    let house = House::new().await;
    for (value, code) in refused_values() {
        let reply = post(&house, body("x", &value)).await;
        assert_eq!((reply.status, reply.problem().as_str()), (422, "invalid"), "{value:.60}");
        assert_eq!(faults(&reply.json()), [("x".to_owned(), code.to_owned())], "{value:.60}");
    }
    for (name, shown) in [("a\\u0000b", "a\\0b"), ("\\u202e\\u001b", "\\u{202e}\\u{1b}")] {
        let reply = post(&house, body(name, "\"\\u0000\"")).await;
        assert_eq!(faults(&reply.json()), [(shown.to_owned(), "nul".to_owned())], "{name}");
    }
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn an_unknown_field_that_can_be_stored_is_kept_as_it_was_written() {
    let house = House::new().await;
    for (number, value) in kept_values().iter().enumerate() {
        post(&house, body_with_id(&number.to_string(), "x", value)).await.accepted();
        let entries = house.entries().await;
        let envelope = String::from_utf8(entries[number].fields["e"].clone()).unwrap();
        assert!(envelope.contains(&format!("\"extra\":{{\"x\":{value}}}")), "{envelope:.300}");
    }
}

#[tokio::test]
async fn a_known_field_with_a_strange_value_is_named() {
    let house = House::new().await;
    let (deep, long) = (nested(20_000), format!("\"{}\"", "я".repeat(20_000)));
    for (field, value, code) in [
        ("external_message_id", "\"\\u0000\"", "characters"),
        ("external_message_id", "\"\u{2028}\"", "characters"),
        ("external_message_id", "\"a\\r\\nb\"", "characters"),
        ("external_message_id", "\"\\ud800\"", "unicode"),
        ("external_message_id", "\"\u{ff11}\"", "characters"),
        ("external_client_id", "\"\u{1b}[2J\"", ""),
        ("external_client_id", "\"\\u001b[2J\"", "characters"),
        ("client_phone", "\"+7919496118\\u0000\"", "phone"),
        ("client_phone", "\"\\ude04\\ud83d\"", "unicode"),
        ("message_text", "\"\\u0000\"", "nul"),
        ("message_text", "\"\\ud800x\"", "unicode"),
        ("message_text", deep.as_str(), "type"),
        ("message_text", long.as_str(), "length"),
        ("send_at", "1e400", "type"),
        ("send_at", "-0", "range"),
        ("send_at", "9223372036854775807", "range"),
        ("send_at", "-9223372036854775808", "range"),
        ("send_at", "9223372036854775808", "type"),
        ("send_at", "1640995200e0", "type"),
        ("send_at", "\"\u{661}\u{662}\u{663}\"", "type"),
        ("send_at", "null", "type"),
        ("send_at", deep.as_str(), "type"),
    ] {
        let reply = post(&house, body(field, value)).await;
        if code.is_empty() {
            assert_eq!((reply.status, reply.problem().as_str()), (400, "not-json"), "{value:.60}");
            continue;
        }
        assert_eq!((reply.status, reply.problem().as_str()), (422, "invalid"), "{field} {value:.60}");
        assert_eq!(faults(&reply.json()), [(field.to_owned(), code.to_owned())], "{field} {value:.60}");
    }
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn a_name_that_comes_twice_is_a_fault_even_with_the_same_value() {
    let house = House::new().await;
    for (name, value) in SAMPLE.iter().chain(&[("x", "1"), ("x", "{}")]) {
        for other in [value, "\"other\"", "null"] {
            let twice = body(name, value).replacen('{', &format!("{{\"{name}\":{other},"), 1);
            let reply = post(&house, twice.clone()).await;
            assert_eq!(reply.status, 422, "{twice}");
            let expected = ((*name).to_owned(), "duplicate".to_owned());
            assert!(faults(&reply.json()).contains(&expected), "{twice} {reply:?}");
        }
    }
    let escaped = body("x", "1").replacen('{', "{\"\\u0065xternal_message_id\":\"other\",", 1);
    assert_eq!(post(&house, escaped).await.status, 422);
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn bytes_that_are_no_json_object_get_the_place_where_they_break() {
    let house = House::new().await;
    let sample = body("x", "1").into_bytes();
    let around = |before: &[u8], after: &[u8]| [before, &sample, after].concat();
    let within = |bytes: &[u8]| {
        let (head, tail) = sample.split_at(sample.len() - 1);
        [head, b",\"y\":\"", bytes, b"\"", tail].concat()
    };
    let named = |bytes: &[u8]| [b"{\"", bytes, b"\":1,", &sample[1..]].concat();
    let cases: Vec<Vec<u8>> = vec![
        vec![],
        b" \t\r\n ".into(),
        b"\xef\xbb\xbf".into(),
        around(b"\xef\xbb\xbf", b""),
        around(b"", b"}"),
        around(b"", b"\0"),
        around(b"\0", b""),
        around(b"", b"{}"),
        around(b"[", b""),
        around(b"[", b"]"),
        b"null".into(),
        b"\"text\"".into(),
        b"17".into(),
        b"NaN".into(),
        b"{'a':1}".into(),
        b"{\"a\":01}".into(),
        b"{\"a\":+1}".into(),
        b"{\"a\":.5}".into(),
        b"{\"a\":1,}".into(),
        b"{\"a\":tru".into(),
        b"{\"a\":\"\\x41\"}".into(),
        b"{\"a\":\"\\u00\"}".into(),
        "[".repeat(60_000).into(),
        "{\"a\":".repeat(10_000).into(),
        nested(100_000 / 4).into(),
        within(b"\xc0\x80"),
        within(b"\xe0\x80\xaf"),
        within(b"\xed\xa0\x80"),
        within(b"\xf4\x90\x80\x80"),
        within(b"\xe2\x82"),
        within(b"\xff"),
        within(b"\n"),
        within(b"\0"),
        within(b"\x1b[2J"),
        named(b"\xc0\x80"),
        named(b"\\ud800"),
        named(b"\\udc00\\ud800"),
        named(b"\t"),
    ];
    for bytes in cases {
        let reply = post(&house, bytes.clone()).await;
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(80).collect();
        assert_eq!((reply.status, reply.problem().as_str()), (400, "not-json"), "{shown:?}");
        assert!(reply.text("detail").starts_with("the body is no JSON object"), "{reply:?}");
    }
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn in_a_batch_each_message_answers_for_itself() {
    let house = House::new().await;
    let (refused, kept) = (refused_values(), kept_values());
    let mut items: Vec<String> = refused.iter().map(|(value, _)| body_with_id("refused", "x", value)).collect();
    items.extend(["null", "[]", "\"text\"", "17", &nested(20_000)].map(str::to_owned));
    items.extend(kept.iter().enumerate().map(|(number, value)| body_with_id(&format!("kept-{number}"), "x", value)));
    let batch = format!("[{}]", items.join(","));
    let reply = house.gateway.client.send(Method::POST, &format!("{WEBHOOK}/batch"), &[JSON], batch).await;
    let answers = reply.json()["results"].as_array().unwrap().clone();
    let codes: Vec<_> = answers.iter().map(|answer| answer["code"].as_u64().unwrap()).collect();
    let expected = [vec![422; refused.len()], vec![400; 5], vec![202; kept.len()]].concat();
    assert_eq!(codes, expected);
    for (answer, (value, code)) in answers.iter().zip(&refused) {
        assert_eq!(faults(&answer["problem"]), [("x".to_owned(), (*code).to_owned())], "{value:.60}");
    }
    assert_eq!(house.entries().await.len(), kept.len());
}

#[tokio::test]
async fn a_batch_that_is_broken_anywhere_is_refused_whole() {
    let house = House::new().await;
    let good = body("x", "1").into_bytes();
    let long = format!("\"{}\"", "x".repeat(1 << 20)).into_bytes();
    for bytes in [
        b"[".repeat(1 << 20),
        [b"[", &good[..], b",\xff]"].concat(),
        [b"[", &good[..], b",{\"a\":\"\xc0\x80\"}]"].concat(),
        [b"[", &good[..], b"]]"].concat(),
        [b"\xef\xbb\xbf[", &good[..], b"]"].concat(),
        [b"{\"0\":", &good[..], b"}"].concat(),
        long,
    ] {
        let reply = house.gateway.client.send(Method::POST, &format!("{WEBHOOK}/batch"), &[JSON], bytes).await;
        assert_eq!((reply.status, reply.problem().as_str()), (400, "not-json"));
        assert!(reply.text("detail").starts_with("the body is no JSON array"), "{reply:?}");
    }
    assert!(house.entries().await.is_empty());
}

#[tokio::test]
async fn a_megabyte_in_one_string_is_too_large_alone_and_within_a_batch() {
    let house = House::new().await;
    let large = body("x", &format!("\"{}\"", "x".repeat(1 << 20)));
    assert_eq!(post(&house, large.clone()).await.status, 413);
    let batch = format!("[{large},{}]", body("x", "1"));
    let reply = house.gateway.client.send(Method::POST, &format!("{WEBHOOK}/batch"), &[JSON], batch).await;
    let codes: Vec<_> =
        reply.json()["results"].as_array().unwrap().iter().map(|a| a["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [413, 202]);
}

#[tokio::test]
async fn strange_characters_in_path_query_and_headers_do_no_harm() {
    let house = House::with(&format!("{UNLIMITED}[[source]]\nname = \"tg\"\nsecret = \"s3cret-s3cret\"\n"), &[]).await;
    let sample = message("a").to_string();
    let request = |path: &str, headers: &str| {
        let fixed = format!("host: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", sample.len());
        [format!("POST {path} HTTP/1.1\r\n{fixed}connection: close\r\n").into_bytes(), headers.into(), b"\r\n".into()]
            .concat()
    };
    let long = "x".repeat(10_000);
    let cases: Vec<(Vec<u8>, &[u16])> = vec![
        (request("/in/messenger%00", ""), &[404]),
        (request("/in/%6dessenger", ""), &[404]),
        (request("/in/%ed%a0%80", ""), &[404]),
        (request("/in/%c0%80?%00=%ff", ""), &[404]),
        (request("/in/../in/messenger", ""), &[404]),
        (request("/in/messenger/", ""), &[404]),
        (request(&format!("/in/{long}"), ""), &[414]),
        (request("/in/\u{2028}", ""), &[404]),
        (request(&format!("{WEBHOOK}?a=%00&b=%ff&c=%1b[2J"), ""), &[202, 200]),
        (request(&format!("{WEBHOOK}?{long}"), ""), &[414]),
        (request(WEBHOOK, "traceparent: \u{202e}\u{ffff}\r\n"), &[202, 200]),
        (request(WEBHOOK, &format!("traceparent: 00-{long}\r\n")), &[202, 200]),
        (request(WEBHOOK, "user-agent: \u{1b}[2J\r\n"), &[400]),
        (request(WEBHOOK, "user-agent: a\0b\r\n"), &[400]),
        (request(WEBHOOK, &format!("user-agent: {}\r\n", "x".repeat(1 << 20))), &[431]),
        (request(WEBHOOK, "x-forwarded-for: \u{2028}, 1.2.3\r\n"), &[202, 200]),
        (request(WEBHOOK, "content-type: application/json\u{202e}\r\n"), &[202, 200]),
        (request("/in/tg", "x-weir-secret: \u{ff}\u{2028}\r\n"), &[401]),
        (request("/in/tg", &format!("x-weir-secret: {long}\r\n")), &[401]),
        (request("/in/tg", "x-weir-secret: s3cret-s3cret\r\nx-weir-secret: s3cret-s3cret\r\n"), &[401]),
    ];
    for (head, expected) in cases {
        let mut raw = house.gateway.connect().await;
        raw.write_some(&[&head, sample.as_bytes()].concat()).await;
        let answer = raw.read_to_end().await;
        let status: u16 = answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default();
        assert!(expected.contains(&status), "{:.200} -> {answer:.300}", String::from_utf8_lossy(&head));
    }
    assert_eq!(house.entries().await.len(), 1);
}
