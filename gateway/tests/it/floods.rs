//! HTTP/2 clients that send frames for their own sake: each is cut off, others are served meanwhile, memory stays.

use std::process::Command;

use tokio::io::AsyncWriteExt as _;
use weir_stack::testing::scratch;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    frame, post, post_block, setting,
};
use crate::proxies::program;
use crate::support::{House, UNLIMITED, message};

const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A house whose deadlines end no connection while a test lasts.
async fn patient() -> House {
    let names = ["http.header_timeout", "http.idle_timeout", "http.body_timeout", "http.write_timeout"];
    let flags: Vec<_> = names.iter().map(|name| (*name, "1h")).chain([("http.body_rate", "0")]).collect();
    House::with(UNLIMITED, &flags).await
}

/// Floods with the same bytes until the connection is ended, while somebody else sends messages.
async fn is_ended(house: &House, beginning: &[u8], bytes: &[u8]) {
    let client = Http2::connect(&house.gateway, &[&setting(4, 65_535), beginning].concat()).await;
    let flood = tokio::spawn({
        let bytes = bytes.to_vec();
        async move { client.flood(&bytes).await }
    });
    let mut answered = 0;
    while !flood.is_finished() || answered < 3 {
        let reply = house.post(&message("other")).await;
        assert!([200, 202].contains(&reply.status), "{reply:?}");
        answered += 1;
    }
    flood.await.unwrap();
}

/// A million and more small frames at once would be some ten megabytes; streams by the thousand would be more.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_for_their_own_sake_end_the_connection() {
    is_ended(&patient().await, &[], &frame(PING, 0, 0, &[7; 8]).repeat(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_for_their_own_sake_end_the_connection() {
    let house = patient().await;
    is_ended(&house, &[], &frame(SETTINGS, 0, 0, &[]).repeat(100)).await;
    is_ended(&house, &[], &[setting(4, 1), setting(4, 65_535)].concat().repeat(50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priorities_empty_data_and_windows_for_their_own_sake_end_the_connection() {
    let house = patient().await;
    let open = frame(HEADERS, END_HEADERS, 1, &post_block(&[]));
    is_ended(&house, &[], &frame(2, 0, 3, &[0, 0, 0, 0, 1]).repeat(100)).await;
    is_ended(&house, &open, &frame(DATA, 0, 1, &[]).repeat(100)).await;
    is_ended(&house, &open, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).repeat(100)).await;
    is_ended(&house, &[], &frame(99, 0, 0, &[1; 50]).repeat(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let house = House::new().await;
    let mut client = Http2::connect(&house.gateway, &setting(4, 65_535)).await;
    let before = resident();
    let flooding = async {
        for stream in (1..2_000_000).step_by(2) {
            let open = frame(HEADERS, END_HEADERS, stream, &post_block(&[]));
            if client.0.write_all(&[open, frame(RST_STREAM, 0, stream, &CANCEL)].concat()).await.is_err() {
                return stream;
            }
        }
        u32::MAX
    };
    let last = tokio::time::timeout(crate::support::SOON * 3, flooding).await.expect("it is ended");
    assert!(last < 100_000, "{last}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 256, "{grown} MB");
    house.post(&message("other")).await.accepted();
    assert_eq!(house.entries().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_goes_on_for_ever_ends_the_connection() {
    let house = House::new().await;
    let open = frame(HEADERS, 0, 1, &post_block(&[]));
    let filler = [&[0][..], &[1, b'x', 100], &[b'y'; 100]].concat();
    is_ended(&house, &open, &frame(CONTINUATION, 0, 1, &filler).repeat(20)).await;
    is_ended(&house, &open, &frame(CONTINUATION, 0, 1, &[]).repeat(100)).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let house = House::new().await;
    let value = "y".repeat(120);
    let names: Vec<_> = (0..200).map(|n| format!("x-{n}")).collect();
    let more: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let block = post_block(&more);
    assert!(block.len() > 16 << 10);
    let (first, rest) = block.split_at(16_000);
    let large = [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)].concat();
    let mut client = Http2::connect(&house.gateway, &setting(4, 65_535)).await;
    client.write(large).await;
    client.until("431", |frame| frame.stream == 1 && (frame.has_status(431) || frame.kind == RST_STREAM)).await;
    client.write(post(3, &message("a").to_string())).await;
    client.until("202", |frame| frame.stream == 3 && frame.has_status(202)).await;
}

#[tokio::test]
async fn more_streams_than_are_allowed_are_refused_one_by_one() {
    let house = House::new().await;
    let mut client = Http2::connect(&house.gateway, &setting(4, 65_535)).await;
    let open = |stream: u32| frame(HEADERS, END_HEADERS, stream, &post_block(&[]));
    client.write((0..300).map(|n| open(2 * n + 1)).collect::<Vec<_>>().concat()).await;
    let refused = client.until("a refusal", |frame| frame.kind == RST_STREAM).await;
    assert_eq!((refused.stream, &refused.payload[..]), (2 * 256 + 1, &[0, 0, 0, 7][..]), "REFUSED_STREAM");
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_connection() {
    let house = House::new().await;
    let block = post_block(&[]);
    let post = post(1, &message("a").to_string());
    let whole = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    for (what, bytes) in [
        ("an even stream", whole(2)),
        ("stream 0", whole(0)),
        ("an older stream", [whole(5), whole(3)].concat()),
        ("data of no stream", frame(DATA, 0, 0, b"x")),
        ("data of an idle stream", frame(DATA, 0, 7, b"x")),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 7, &CANCEL)),
        ("a ping of the wrong length", frame(PING, 0, 0, &[1; 7])),
        ("settings of the wrong length", frame(SETTINGS, 0, 0, &[1; 7])),
        ("a window beyond its end", setting(4, u32::MAX)),
        ("a continuation of nothing", frame(CONTINUATION, 0, 1, b"x")),
        ("something within a head", [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, &[1; 8])].concat()),
        ("a head that cannot be decoded", frame(HEADERS, END_HEADERS, 1, &[0xff; 40])),
        ("a frame that is too long", frame(DATA, 0, 1, &vec![0; 20_000])),
        ("a promise", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        (
            "a window that overflows",
            [post.clone(), frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]).repeat(2)].concat(),
        ),
    ] {
        let beginning = [setting(4, 65_535), bytes].concat();
        let seen = Http2::connect(&house.gateway, &beginning).await.rest().await;
        assert!(seen.iter().any(|frame| frame.kind == GOAWAY), "{what}: {seen:?}");
    }
    house.post(&message("a")).await;
}

#[tokio::test]
async fn framing_of_http1_within_http2_is_refused() {
    let house = House::new().await;
    let length = message("a").to_string().len().to_string();
    for header in [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("upgrade", "h2c"),
        ("content-length", "3"),
        ("content-length", "-1"),
        ("Content-Length", length.as_str()),
        ("x\r\ny", "z"),
        ("x", "a\r\nb: c"),
    ] {
        let mut client = Http2::connect(&house.gateway, &setting(4, 65_535)).await;
        let head = frame(HEADERS, END_HEADERS, 1, &post_block(&[header]));
        client.write([head, frame(DATA, END_STREAM, 1, message("a").to_string().as_bytes())].concat()).await;
        let ended =
            client.until("a refusal", |frame| matches!(frame.kind, RST_STREAM | GOAWAY) || frame.has_status(400)).await;
        assert!(house.entries().await.is_empty(), "{header:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_client_with_many_streams_meets_no_error() {
    let house = House::new().await;
    let folder = scratch();
    let body = folder.path().join("body.json");
    std::fs::write(&body, message("one").to_string()).unwrap();
    let mut command = Command::new(program("h2load", "nghttp2-client"));
    command.args(["-n", "4000", "-c", "10", "-m", "50", "-H", "content-type: application/json", "-d"]).arg(&body);
    command.arg(format!("http://{}{}", house.gateway.address, crate::support::WEBHOOK));
    let mut command = tokio::process::Command::from(command);
    let ended = tokio::time::timeout(crate::support::SOON * 3, command.kill_on_drop(true).output()).await;
    let text = String::from_utf8(ended.expect("h2load ends").unwrap().stdout).unwrap();
    assert!(text.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
    assert!(text.contains("4000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{text}");
}
