//! Whatever the gateway says yes to, PostgreSQL holds.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use weir_core::queue::letters::Shelf;
use weir_store::testing;

use crate::http::request;
use crate::support::Stack;

/// What stands between the quotes of a JSON string: text, escapes of every kind, among them what is no character.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zа-я0-9 ]{0,6}",
        2 => "[^\\x00-\\x1f\"\\\\]{0,4}",
        2 => (0_u32..0x1_0000).prop_map(|code| format!("\\u{code:04x}")),
        1 => prop::sample::select(vec![
            "\\ud83d\\ude00", "\\ud800", "\\udc00", "\\u0000", "\\u0001", "\\n", "\\\"", "\\\\", "\\/", "\u{ffff}", "\u{2028}",
            "\u{202e}", "\u{7f}", "\u{10ffff}", "\u{feff}",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![-400_i64..400, -30_000_i64..30_000, any::<i64>()];
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("JSON has no such number", |number| number.is_finite()).prop_map(|n| format!("{n:?}")),
        ("-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?", exponent)
            .prop_map(|(digits, exponent)| format!("{digits}e{exponent}")),
        "-?[1-9][0-9]{300,420}",
        "0\\.[0-9]{900,1100}",
        prop::sample::select(vec![
            "-0",
            "-0.0",
            "0e0",
            "1E+5",
            "9007199254740993",
            "1e400",
            "1e-20000",
            "0e99999999999"
        ])
        .prop_map(str::to_owned),
    ]
}

/// JSON of any shape. Names come twice at times.
fn json() -> impl Strategy<Value = String> {
    let literal = prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned);
    let deep = (1_usize..140).prop_map(|levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    let leaf = prop_oneof![1 => literal, 4 => number(), 4 => string(), 1 => deep];
    leaf.prop_recursive(6, 24, 5, |inner| {
        let name = prop_oneof!["\"[ab]\"".prop_map(|name| name), string()];
        let member = (name, inner.clone()).prop_map(|(name, value)| format!("{name} : {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// A message with unknown fields, and sometimes a text of any kind.
fn body(number: usize) -> impl Strategy<Value = String> {
    let name = prop_oneof!["\"x[a-z]{0,8}\"".prop_map(|name| name), string()];
    let extra = prop::collection::vec((name, json()), 0..4);
    (extra, prop_oneof![2 => Just("\"text\"".to_owned()), 1 => string()]).prop_map(move |(extra, text)| {
        let extra: String = extra.into_iter().map(|(name, value)| format!("{name}:{value},")).collect();
        format!(
            "{{{extra}\"external_message_id\":\"m{number}\",\"external_client_id\":\"c{number}\",\
             \"client_phone\":\"+79194961182\",\"message_text\":{text},\"send_at\":1640995200}}"
        )
    })
}

/// A thousand bodies, other ones each time.
fn bodies() -> Vec<String> {
    let mut runner = TestRunner::default();
    (0..1000).map(|number| body(number).new_tree(&mut runner).expect("a body").current()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_stored_whatever_its_unknown_fields_are() {
    let mut stack = Stack::new().await;
    let address = stack.gateway(&[]).await;
    let bodies = bodies();
    let mut accepted = 0;
    for chunk in bodies.chunks(500) {
        let batch = format!("[{}]", chunk.join(","));
        let answer = request(address.port(), "POST", "/api/v1/webhook/batch", &batch).await.expect("an answer");
        // An escape that is no character within a name breaks the message alone.
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let codes: Vec<_> = answer.body["results"].as_array().expect("results").iter().map(|a| &a["code"]).collect();
        assert!(codes.iter().all(|code| [202, 400, 422].contains(&code.as_u64().expect("a code"))), "{codes:?}");
        accepted += codes.iter().filter(|code| **code == &Value::from(202)).count();
    }
    assert!(accepted > 100 && accepted < bodies.len(), "{accepted} accepted: the bodies are too bad or too good");
    stack.worker(&[]).await;
    let balance = stack.drained().await;
    let queue = stack.queue();
    for partition in 0..queue.partitions() {
        let letters = queue.letters(partition, Shelf::Dead, "-", 10).await.expect("letters");
        assert!(letters.is_empty(), "{}: {}", letters[0].error, String::from_utf8_lossy(&letters[0].envelope));
    }
    assert_eq!((balance.stored, balance.dead), (accepted as u64, 0));
    assert_eq!(stack.rows().await, accepted as i64);
    compare(&stack, &bodies).await;
}

/// Every row holds what a parser makes of its body.
async fn compare(stack: &Stack, bodies: &[String]) {
    let sql = "SELECT jsonb_build_object('id', external_message_id, 'text', text, 'extra', extra)::text FROM messages";
    for row in testing::texts(&stack.database, sql).await.expect("rows") {
        let row: Value = serde_json::from_str(&row).expect("a row");
        let number: usize = row["id"].as_str().and_then(|id| id[1..].parse().ok()).expect("a number");
        let mut sent: Value = serde_json::from_str(&bodies[number]).expect("what was accepted is JSON");
        let sent = sent.as_object_mut().expect("an object");
        assert_eq!(row["text"], sent["message_text"], "{}", bodies[number]);
        for known in ["external_message_id", "external_client_id", "client_phone", "message_text", "send_at"] {
            sent.remove(known);
        }
        let extra = row["extra"].as_object().cloned().unwrap_or_default();
        assert!(same(&Value::Object(extra), &Value::Object(sent.clone())), "{row} came from {}", bodies[number]);
    }
}

/// Equal but for the last bit of a number: PostgreSQL writes it differently, and the parser rounds.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => {
            let (one, two) = (one.as_f64().expect("a number"), two.as_f64().expect("a number"));
            (one - two).abs() <= one.abs() * 1e-14
        }
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len() && one.iter().all(|(name, one)| two.get(name).is_some_and(|two| same(one, two)))
        }
        _ => one == two,
    }
}
