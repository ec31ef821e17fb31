//! Requests that two readers could take for different things: the gateway alone, behind nginx and behind HAProxy.
//!
//! Each has a second, whole request in a place where a reader that is mistaken about the first one's end would find it.
//! That one must never be accepted.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::proxies::Proxy;
use crate::support::{House, Raw, SOON, UNLIMITED, WEBHOOK, message};

/// What the gateway makes of a request when nobody is in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// It is refused for its form, and the connection closed.
    Refused,
    /// It is one request, whatever its answer; the connection is closed.
    Last,
    /// It is one request.
    One,
}
use Read::{Last, One, Refused};

struct Case {
    what: String,
    id: String,
    bytes: Vec<u8>,
    read: Read,
}

/// Id of the hidden request.
const HIDDEN: &str = "hiddenXX";

/// The request that must not be seen. It ends its connection, so that all of them are at an end soon.
fn hidden() -> String {
    let body = message(HIDDEN).to_string();
    format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A body that would be accepted.
fn good() -> String {
    message("seen").to_string()
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n0\r\n\r\n", data.len())
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    /// The hidden request gets an id of the same length that names the case.
    fn add(&mut self, what: impl Into<String>, read: Read, text: impl AsRef<str>) {
        let id = format!("hidden{:02x}", self.0.len());
        assert_eq!(id.len(), HIDDEN.len());
        let bytes = text.as_ref().replace(HIDDEN, &id).into_bytes();
        self.0.push(Case { what: what.into(), id, bytes, read });
    }

    /// A POST with these header lines behind the usual ones.
    fn post(&mut self, what: impl Into<String>, read: Read, lines: &str, rest: &str) {
        let head = format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
        self.add(what, read, format!("{head}{lines}\r\n{rest}"));
    }

    fn lengths(&mut self) {
        let (hidden, good) = (hidden(), good());
        let (long, short) = (hidden.len(), good.len());
        let mut lengths = |what: &str, read, lines: &str| self.post(what, read, lines, &format!("{good}{hidden}"));
        lengths("two lengths", Refused, &format!("Content-Length: {short}\r\nContent-Length: {}\r\n", short + long));
        lengths("two lengths, the longer first", Refused, &format!("Content-Length: {long}\r\nContent-Length: 0\r\n"));
        lengths("a list of lengths", Refused, &format!("Content-Length: {short}, {}\r\n", short + long));
        lengths("a list of one length", Refused, &format!("Content-Length: {short}, {short}\r\n"));
        for odd in
            ["+5", "-5", "0x5", "5.0", "5e0", "5 5", "", "five", "5;", "٥", "18446744073709551621", "5\x0b", "5\0"]
        {
            lengths(&format!("length {odd:?}"), Refused, &format!("Content-Length: {odd}\r\n"));
        }
        lengths("space before a colon", Refused, &format!("Content-Length : {}\r\n", short + long));
        lengths("space in a name", Refused, &format!("Content Length: {short}\r\n"));
        lengths("a folded length", Refused, &format!("Content-Length:\r\n {short}\r\n"));
        lengths("a length behind a fold", Refused, &format!("X: y\r\n Content-Length: {short}\r\n"));
        self.post("one length twice", One, &format!("Content-Length: {short}\r\nContent-Length: {short}\r\n"), &good);
        self.post("a length with zeros", One, &format!("Content-Length: 000{short}\r\n"), &good);
        self.post(
            "the length named as of one hop",
            One,
            &format!("Connection: Content-Length\r\nContent-Length: {long}\r\n"),
            &hidden,
        );
        self.post("no length, and a body all the same", Last, "Connection: close\r\n", &hidden);
    }

    /// Each coding with the hidden request where a reader of the length would find it, and where one of the chunks would.
    fn codings(&mut self) {
        let hidden = hidden();
        let behind_chunks = format!("0\r\n\r\n{hidden}");
        let in_chunk = chunk(&hidden);
        let whole = format!("Content-Length: {}\r\n", behind_chunks.len());
        let small = format!("Content-Length: {}\r\n", in_chunk.find('\n').unwrap() + 1);
        let mut both = |what: &str, read, line: &str| {
            self.post(format!("{what}, CL.TE"), read, &format!("{whole}{line}\r\n"), &behind_chunks);
            self.post(format!("{what}, TE.CL"), read, &format!("{line}\r\n{small}"), &in_chunk);
        };
        both("chunked", Last, "Transfer-Encoding: chunked");
        both("CHUNKED", Last, "Transfer-Encoding: CHUNKED");
        both("tab before chunked", Last, "Transfer-Encoding:\tchunked");
        for odd in [
            "xchunked",
            "chunkedx",
            "identity",
            "chunked, identity",
            "identity, chunked",
            "chunked, chunked",
            "gzip, chunked",
            "\"chunked\"",
            "chunked;a=b",
            "chunked,",
            ",chunked",
            "",
            "x",
            "\x0bchunked",
            "chunked\0",
            "\x0cchunked",
        ] {
            both(&format!("coding {odd:?}"), Refused, &format!("Transfer-Encoding: {odd}"));
        }
        both("two codings, one of them odd", Refused, "Transfer-Encoding: chunked\r\nTransfer-Encoding: x");
        both("two codings, the odd one first", Refused, "Transfer-Encoding: x\r\nTransfer-Encoding: chunked");
        both("the coding twice", Refused, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked");
        both("space before the coding's colon", Refused, "Transfer-Encoding : chunked");
        both("space before the coding's name", Refused, "X: y\r\n Transfer-Encoding: chunked");
        both("tab before the coding's name", Refused, "X: y\r\n\tTransfer-Encoding: chunked");
        both("a folded coding", Refused, "Transfer-Encoding:\r\n chunked");
        both("a coding behind a bare CR", Refused, "X: y\rTransfer-Encoding: chunked");
        both("a coding behind a bare LF", Last, "X: y\nTransfer-Encoding: chunked");
        both("a coding with NUL in its name", Refused, "Transfer-\0Encoding: chunked");
        self.post("a coding that is none", One, &format!("Transfer_Encoding: chunked\r\n{whole}"), &behind_chunks);
        let old = format!("POST {WEBHOOK} HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\n");
        self.add("HTTP/1.0 with a coding", Refused, format!("{old}Transfer-Encoding: chunked\r\n\r\n{in_chunk}"));
        self.add(
            "HTTP/1.0 with both",
            Refused,
            format!("{old}Transfer-Encoding: chunked\r\n{whole}\r\n{behind_chunks}"),
        );
    }

    fn chunks(&mut self) {
        let (hidden, good) = (hidden(), good());
        let size = format!("{:x}", good.len());
        let mut chunks = |what: &str, read, rest: &str| self.post(what, read, "Transfer-Encoding: chunked\r\n", rest);
        chunks("a chunk's extension", One, &format!("{size};a=b\r\n{good}\r\n0\r\n\r\n"));
        chunks("a bare LF in an extension", Refused, &format!("{size};a\n{good}\r\n0\r\n\r\n{hidden}"));
        chunks("a bare LF behind a size", Refused, &format!("{size}\n{good}\r\n0\r\n\r\n{hidden}"));
        chunks("a bare CR behind a size", Refused, &format!("{size}\r{good}\r\n0\r\n\r\n{hidden}"));
        for odd in ["-1", "+5", "0x5", "", "x", "FFFFFFFFFFFFFFFFF", "1_0", "5,5", "\0"] {
            chunks(&format!("chunk size {odd:?}"), Refused, &format!("{odd}\r\n{good}\r\n0\r\n\r\n{hidden}"));
        }
        chunks("a huge chunk", Refused, &format!("FFFFFFFFFFFFFFFE\r\n{good}\r\n0\r\n\r\n{hidden}"));
        chunks("a chunk longer than its size", Refused, &format!("{size}\r\n{good}{hidden}\r\n0\r\n\r\n"));
        chunks("chunks without an end", Refused, &format!("{size}\r\n{good}\r\n"));
        chunks("a long extension", Refused, &format!("{size};{}\r\n{good}\r\n0\r\n\r\n{hidden}", "x".repeat(40_000)));
        let trailer = format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\nHost: y\r\n", hidden.len());
        chunks("framing in the trailer", One, &format!("{size}\r\n{good}\r\n0\r\n{trailer}\r\n"));
    }

    fn heads(&mut self) {
        let (hidden, good) = (hidden(), good());
        let rest = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{good}", good.len());
        let closing = format!("Content-Length: {}\r\n", hidden.len());
        self.add("no Host", Refused, format!("POST {WEBHOOK} HTTP/1.1\r\n{rest}{hidden}"));
        self.add("two Hosts", Refused, format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nHost: y\r\n{rest}{hidden}"));
        self.add("no Host in HTTP/1.0", Last, format!("POST {WEBHOOK} HTTP/1.0\r\n{rest}{hidden}"));
        self.add("an absolute URI", One, format!("POST http://other{WEBHOOK} HTTP/1.1\r\nHost: x\r\n{rest}"));
        self.add("an authority for a path", Refused, format!("POST x:80 HTTP/1.1\r\nHost: x\r\n{rest}{hidden}"));
        self.add("HTTP/0.9", Refused, format!("GET {WEBHOOK}\r\n\r\n{hidden}"));
        for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/11", "http/1.1", "HTTP/1.1 x"] {
            self.add(version, Refused, format!("POST {WEBHOOK} {version}\r\nHost: x\r\n{rest}{hidden}"));
        }
        for (what, line) in [
            ("a space in the path", "POST /a b HTTP/1.1"),
            ("NUL in the path", "POST /a\0 HTTP/1.1"),
            ("a method with a colon", "PO:ST / HTTP/1.1"),
            ("space before the method", " POST / HTTP/1.1"),
        ] {
            self.add(what, Refused, format!("{line}\r\nHost: x\r\n{rest}{hidden}"));
        }
        for (what, line) in [
            ("a line without a colon", "x"),
            ("a line without a name", ": x"),
            ("NUL in a value", "X: a\0b"),
            ("a bare CR in a value", "X: a\rb"),
            ("a name of two words", "X Y: z"),
        ] {
            self.add(what, Refused, format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\n{line}\r\n{rest}{hidden}"));
        }
        self.add("empty lines in front", One, format!("\r\n\r\nPOST {WEBHOOK} HTTP/1.1\r\nHost: x\r\n{rest}"));
        self.add("bare LFs", One, format!("POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\n{rest}").replace("\r\n", "\n"));
        self.add("a GET with a body", One, format!("GET {WEBHOOK} HTTP/1.1\r\nHost: x\r\n{closing}\r\n{hidden}"));
        self.add("TRACE", One, format!("TRACE {WEBHOOK} HTTP/1.1\r\nHost: x\r\n{closing}\r\n{hidden}"));
        self.add("CONNECT", Refused, format!("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n{hidden}"));
        self.post(
            "more behind the last request",
            Last,
            &format!("Connection: close\r\nContent-Length: {}\r\n", good.len()),
            &format!("{good}{hidden}"),
        );
        self.post("an expectation", One, &format!("Expect: 100-continue\r\n{closing}"), &hidden);
        self.post("another expectation", One, &format!("Expect: 200-maybe\r\n{closing}"), &hidden);
        self.post(
            "an expectation and chunks",
            One,
            "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
            &chunk(&hidden),
        );
        let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        self.post("an upgrade to HTTP/2", One, &format!("{upgrade}{closing}"), &hidden);
        self.post(
            "an upgrade to a web socket",
            One,
            &format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{closing}"),
            &hidden,
        );
    }
}

fn table() -> Vec<Case> {
    let mut table = Table::default();
    table.lengths();
    table.codings();
    table.chunks();
    table.heads();
    assert!(table.0.len() >= 40, "{}", table.0.len());
    table.0
}

/// The final statuses of what came over one connection.
fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.match_indices("HTTP/1.").filter_map(|(at, _)| answers[at..].get(9..12)?.parse().ok());
    lines.filter(|status| *status != 100).collect()
}

/// Sends the bytes and reads until the other side closes.
async fn answers(address: SocketAddr, bytes: &[u8]) -> String {
    let mut raw = Raw(TcpStream::connect(address).await.unwrap());
    // Who refuses early may close before it has read everything.
    drop(tokio::io::AsyncWriteExt::write_all(&mut raw.0, bytes).await);
    let reading = tokio::time::timeout(SOON / 2, raw.read_to_end());
    reading.await.unwrap_or_else(|_| panic!("still open after {:?}", String::from_utf8_lossy(bytes)))
}

/// Every connection is at its end within seconds.
async fn impatient() -> House {
    let timeouts = [("http.header_timeout", "1s"), ("http.idle_timeout", "2s"), ("http.body_timeout", "1s")];
    House::with(UNLIMITED, &timeouts).await
}

async fn ids(house: &House) -> Vec<String> {
    let id = |envelope: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(envelope).unwrap()["id"].as_str().unwrap().to_owned()
    };
    house.entries().await.iter().map(|entry| id(&entry.fields["e"])).collect()
}

/// Sends every case over a connection of its own; gives what was answered.
async fn all(address: SocketAddr) -> Vec<(Case, String)> {
    let mut tasks = JoinSet::new();
    for case in table() {
        tasks.spawn(async move {
            let answers = answers(address, &case.bytes).await;
            (case, answers)
        });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn a_hidden_request_that_is_no_longer_hidden_is_found() {
    let house = impatient().await;
    let body = good();
    let first = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answers = answers(house.gateway.address, format!("{first}{}", hidden()).as_bytes()).await;
    assert_eq!(statuses(&answers), [202, 202]);
    assert_eq!(ids(&house).await, ["seen", HIDDEN]);
}

#[tokio::test]
async fn alone_the_gateway_reads_one_request_or_none() {
    let house = impatient().await;
    let mut wrong = Vec::new();
    for (case, answers) in all(house.gateway.address).await {
        let found = statuses(&answers);
        let right = match case.read {
            Refused => found.is_empty() || matches!(found[..], [400..=499 | 501 | 505]),
            Last | One => found.len() == 1 && found[0] < 500,
        };
        if !right || answers.contains("101 Switching") {
            wrong.push(format!("{}, {:?}: {answers:?}", case.what, case.read));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(ids(&house).await, ["seen"], "what was seen has one id");
}

/// Nothing hidden comes through, and nobody else's request on the proxy's connections is harmed.
async fn behind(house: &House, proxy: &Proxy) {
    let all = tokio::spawn(all(proxy.address));
    let body = message("victim").to_string();
    let victim = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut victims = 0;
    while !all.is_finished() || victims < 20 {
        let answers = answers(proxy.address, victim.as_bytes()).await;
        assert!(matches!(statuses(&answers)[..], [200 | 202]), "{answers}");
        victims += 1;
    }
    let (cases, found) = (all.await.unwrap(), ids(house).await);
    // A proxy may forgive what the gateway does not, and then sees where the first request ends: it answers both.
    let is_wrong = |case: &Case, answers: &str| {
        found.contains(&case.id) && statuses(answers).len() != 2 || answers.contains("101 Switching")
    };
    let wrong: Vec<_> = cases
        .iter()
        .filter(|(case, answers)| is_wrong(case, answers))
        .map(|(case, answers)| (&case.what, answers))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(found.contains(&"victim".to_owned()), "{found:?}");
}

#[tokio::test]
async fn behind_nginx_nothing_hidden_comes_through() {
    let house = impatient().await;
    let proxy = Proxy::nginx(&house.gateway).await;
    behind(&house, &proxy).await;
}

#[tokio::test]
async fn behind_haproxy_nothing_hidden_comes_through() {
    let house = impatient().await;
    let proxy = Proxy::haproxy(&house.gateway).await;
    behind(&house, &proxy).await;
}
