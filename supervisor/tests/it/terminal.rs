//! Names and texts that would forge a line of a log, or drive the terminal of who reads it.

use std::fs;

use weir_core::message::Message;
use weir_stack::testing::eventually;
use weir_store::testing;

use crate::http::{body, request};
use crate::letters::{message, plant_messages};
use crate::support::{PATIENCE, Stack};

/// Two lines, a cleared screen, a separator that some take for the end of a line, text that runs backwards.
const HOSTILE: &str = "x\r\n{\"level\":\"ERROR\"}\u{1b}[2J\u{9b}2J\u{2028}\u{202e}\u{2066}";

/// What must not be in a log or on a terminal.
const DRIVES: [char; 6] = ['\u{1b}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}', '\r'];

/// A head with the hostile text, as far as HTTP lets it through, and a megabyte of it.
async fn send_hostile_requests(port: u16) {
    let header = HOSTILE.replace(|c: char| c.is_ascii_control(), "");
    let long = "x".repeat(1 << 20);
    for (path, value) in [("/api/v1/webhook", &header), (&*format!("/in/{header}"), &header), ("/", &long)] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nuser-agent: {value}\r\nx-weir-secret: {value}\r\n\r\n");
        drop(request_raw(port, head.as_bytes()).await);
    }
    let mut hostile: serde_json::Value = serde_json::from_str(&body("hostile", "client", HOSTILE)).expect("JSON");
    hostile[HOSTILE] = HOSTILE.into();
    assert_eq!(request(port, "POST", "/api/v1/webhook", &hostile.to_string()).await.expect("an answer").status, 202);
    for field in ["external_message_id", "external_client_id", "client_phone", "send_at"] {
        let mut wrong = hostile.clone();
        wrong[field] = HOSTILE.into();
        assert_eq!(request(port, "POST", "/api/v1/webhook", &wrong.to_string()).await.expect("an answer").status, 422);
    }
}

async fn request_raw(port: u16, bytes: &[u8]) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await.map(|_| ())
}

/// Entries that no gateway writes.
async fn add_hostile_entries(stack: &Stack) {
    let queue = stack.queue();
    for fields in [
        vec![("v", HOSTILE), ("e", "{}")],
        vec![("v", "1"), ("e", HOSTILE)],
        vec![("v", "1"), ("e", "{}"), ("o", HOSTILE), ("r", HOSTILE)],
        vec![(HOSTILE, HOSTILE)],
    ] {
        let mut add = redis::cmd("XADD");
        add.arg(&queue.keys(0).retry).arg("*").arg(fields);
        queue.command::<String>(&add).await.expect("an entry");
    }
    let mut add = redis::cmd("XADD");
    add.arg(&queue.keys(0).ingest).arg("*").arg("v").arg(HOSTILE.repeat(20_000)).arg("e").arg("{}");
    queue.command::<String>(&add).await.expect("an entry");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_forges_a_line_of_a_log() {
    for format in ["json", "pretty"] {
        let mut stack = Stack::new().await;
        stack.set("WEIR_LOG", "trace");
        stack.set("WEIR_LOG_FORMAT", format);
        let raise = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation USING MESSAGE = E'{}' || repeat('x', 100000); END $$",
            HOSTILE.replace('\r', "\\r").replace('\n', "\\n")
        );
        testing::execute(&stack.database, &raise).await.expect("a function");
        let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()";
        testing::execute(&stack.database, trigger).await.expect("a trigger");
        let queue = stack.prepared().await;
        let (_gateway, port) = stack.start_gateway().await;
        let _worker = stack.start_worker(&stack.database);
        send_hostile_requests(port).await;
        add_hostile_entries(&stack).await;
        eventually("all have their fate", PATIENCE, async || {
            queue.balance().await.is_ok_and(|balance| (balance.dead, balance.parked, balance.retried) == (3, 2, 1))
        })
        .await;
        let log = fs::read_to_string(stack.log()).expect("a log");
        assert!(log.contains("dead letter") && log.contains("parked") && log.contains("will be tried again"));
        for line in log.lines() {
            assert!(line.len() < 4000 && !line.contains(DRIVES), "{line:.500?}");
            let is_one = if format == "json" { line.starts_with("{\"timestamp\"") } else { line.starts_with("20") };
            assert!(is_one, "{line:.500?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_letter_drives_the_terminal_of_any_command() {
    let stack = Stack::new().await;
    let queue = stack.prepared().await;
    let hostile = Message {
        source: HOSTILE.into(),
        external_client_id: HOSTILE.into(),
        client_phone: HOSTILE.into(),
        message_text: HOSTILE.into(),
        ..message(HOSTILE)
    };
    plant_messages(&queue, &[hostile], |letter| {
        for text in [&mut letter.class, &mut letter.code, &mut letter.error, &mut letter.trace, &mut letter.replay] {
            *text = HOSTILE.into();
        }
        (letter.edited, letter.version) = (HOSTILE.into(), HOSTILE.into());
        for attempt in &mut letter.journey.log {
            (attempt.worker, attempt.class, attempt.error) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
        }
    })
    .await;
    for words in [
        &["dlq", "list"][..],
        &["dlq", "stats"],
        &["dlq", "show", HOSTILE],
        &["dlq", "show", HOSTILE, "--reveal"],
        &["dlq", "export", "-"],
        &["dlq", "replay", "--all", "--dry-run"],
        &["message", "show", HOSTILE, "--source", HOSTILE],
        &["message", "show", HOSTILE],
        &["status"],
        &["doctor"],
        &["fleet", "list"],
        &["fleet", "drain", HOSTILE],
        &["fleet", "scale", "2", "--host", HOSTILE],
        &["--set", HOSTILE, "status"],
    ] {
        for form in ["table", "json"] {
            let shown = stack.run(&[words, &["--output", form]].concat()).await.text();
            assert!(!shown.is_empty() && !shown.contains(DRIVES), "{words:?} {form}: {shown:?}");
        }
    }
}
