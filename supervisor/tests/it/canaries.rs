//! Values that nobody must see, put into every input of a whole fleet that logs all it can. Then everything that comes
//! out is searched for them.
//!
//! What is shown on purpose, and therefore no canary: external message ids, the name of a source, the last four digits
//! of a phone, trace ids, the names of unknown fields (to their sender and in `dlq show`), and the client's external id
//! in `dlq show`. An export holds messages whole, in a file of its owner's; `stack.json` and `redis.conf` hold the
//! servers' passwords, as files of their owner's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_stack::free_port;
use weir_stack::testing::{Scratch, eventually, scratch};
use weir_store::testing;

use crate::http::accepts;
use crate::support::{Ended, PATIENCE, WEIR, clean};

/// The canaries, by the input that they are put into.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

impl Canaries {
    /// The value for an input: the same one each time, with nothing in it that any encoding would change.
    fn take(&mut self, input: &str) -> String {
        let next = self.0.len();
        self.0
            .entry(input.to_owned())
            .or_insert_with(|| format!("canary{next:03}x{:08x}", rand::random::<u32>()))
            .clone()
    }

    /// A phone. Its last four digits are shown on purpose.
    fn phone(&mut self, input: &str) -> String {
        let digits = format!("7{:03}9{:02}", rand::random_range(100..999), self.0.len());
        self.0.insert(input.to_owned(), digits.clone());
        format!("+{digits}1182")
    }

    /// A value that is made elsewhere.
    fn put(&mut self, input: &str, value: &str) {
        assert!(value.len() >= 8, "{input}: too short to be found by itself");
        self.0.insert(input.to_owned(), value.to_owned());
    }

    /// The inputs whose canaries are in a text.
    fn within(&self, text: &str) -> Vec<&str> {
        self.0.iter().filter(|(_, canary)| text.contains(canary.as_str())).map(|(input, _)| input.as_str()).collect()
    }
}

/// Everything that comes out of the fleet, by where.
#[derive(Default)]
struct Outputs(Vec<(String, String)>);

impl Outputs {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn show_none_of(&self, canaries: &Canaries) {
        let mut leaks = Vec::new();
        for (place, text) in &self.0 {
            for input in canaries.within(text) {
                let canary = &canaries.0[input];
                let line = text.lines().find(|line| line.contains(canary)).unwrap_or_default();
                leaks.push(format!("{input} is in {place}: {line:.500}"));
            }
        }
        assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    }
}

/// `weir up` with secrets in its settings and its environment.
struct Fleet {
    child: Child,
    data: Scratch,
    port: u16,
    ops: u16,
}

impl Fleet {
    async fn start(canaries: &mut Canaries) -> Self {
        let (data, port, ops) = (scratch(), free_port().expect("a port"), free_port().expect("a port"));
        let file = format!(
            "[gateway]\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
             [retry.constraint]\nattempts = 1\n[retry.data]\nattempts = 1\n[retry.internal]\nattempts = 1\n\
             [[source]]\nname = \"messenger\"\nper_client = \"off\"\n\
             [[source]]\nname = \"header\"\nsecret = \"{}\"\nprevious_secret = \"{}\"\n\
             [[source]]\nname = \"hmac\"\nproof = \"hmac-sha256\"\nsecret_file = \"hmac.secret\"\n\
             [[source]]\nname = \"slow\"\nper_client = \"1/s burst 1\"\n",
            canaries.take("a source's secret"),
            canaries.take("a source's previous secret"),
        );
        fs::write(data.path().join("weir.toml"), file).expect("settings");
        fs::write(data.path().join("hmac.secret"), canaries.take("a source's secret file")).expect("a secret");
        let log = fs::File::create(data.path().join("up.log")).expect("a log");
        let mut command = Command::new(WEIR);
        clean(&mut command).args(["up", "--workers", "2"]).current_dir(data.path());
        command.env("WEIR_LISTEN", format!("127.0.0.1:{port}")).env("WEIR_OPS_LISTEN", format!("127.0.0.1:{ops}"));
        command.env("WEIR_DATA", data.path().join("weir")).env("RUST_BACKTRACE", "full").env("WEIR_LOG", "trace");
        command.env("REDIS_ADDR", "127.0.0.1:1").env("REDIS_PASSWORD", canaries.take("the cache's password"));
        let child = command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("weir starts");
        let fleet = Self { child, data, port, ops };
        accepts(port).await;
        let stack = fleet.stack();
        for server in ["redis", "database"] {
            let url = url::Url::parse(stack[server]["url"].as_str().expect("a URL")).expect("a URL");
            canaries.put(&format!("the password of {server}"), url.password().expect("a password"));
        }
        fleet
    }

    fn stack(&self) -> Value {
        serde_json::from_slice(&fs::read(self.data.path().join("weir/stack.json")).expect("stack.json")).expect("JSON")
    }

    fn database(&self) -> String {
        self.stack()["database"]["url"].as_str().expect("a URL").to_owned()
    }

    fn queue(&self) -> Queue {
        Queue::new(&SecretUrl::new(self.stack()["redis"]["url"].as_str().expect("a URL")), 4).expect("a queue")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(WEIR);
        clean(&mut command).args(args).current_dir(self.data.path()).env("WEIR_DATA", self.data.path().join("weir"));
        command.env("WEIR_LOG", "trace").env("WEIR_LISTEN", format!("127.0.0.1:{}", self.port));
        command.env("WEIR_OPS_LISTEN", format!("127.0.0.1:{}", self.ops));
        command
    }

    async fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args)).await
    }

    /// Processes of the fleet, and their children.
    fn pids(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            next += 1;
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                found.extend(children.split(' ').filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        found
    }

    async fn stop(mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, weir_stack::Signal::TERM).expect("a signal");
        tokio::task::spawn_blocking(move || self.child.wait()).await.expect("no panic").expect("an end");
    }
}

/// Sends bytes and gives all that comes back.
async fn send(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    // A reset after the answer is as good as an end.
    drop(read);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}").into()
}

const WEBHOOK: &str = "/api/v1/webhook";

/// A message with a canary in every field that may hold one.
fn message(canaries: &mut Canaries, id: &str) -> Value {
    json!({
        "external_message_id": id,
        "external_client_id": canaries.take("external_client_id"),
        "client_phone": canaries.phone(&format!("client_phone of {id}")),
        "message_text": format!("text {} text", canaries.take("message_text")),
        "send_at": 1_640_995_200,
        "external_dialog_id": canaries.take("a dialog's id"),
        "author": { "name": canaries.take("a nested unknown field"), "phones": [canaries.take("a list")] },
        "note": canaries.take("an unknown field"),
    })
}

/// Headers that hold canaries.
fn headers(canaries: &mut Canaries) -> String {
    let mut lines = String::new();
    for (name, before) in [
        ("user-agent", ""),
        ("authorization", "Bearer "),
        ("cookie", "session="),
        ("referer", "http://x/"),
        ("x-api-key", ""),
        ("x-weir-secret", ""),
        ("x-signature", ""),
        ("tracestate", "a="),
        ("baggage", "user="),
        ("x-request-id", ""),
    ] {
        lines.push_str(&format!("{name}: {before}{}\r\n", canaries.take(&format!("header {name}"))));
    }
    lines + "x-forwarded-for: 1.2.3.4\r\n"
}

/// Every answer that a gateway gives, with canaries in what it is given.
async fn drive_gateway(fleet: &Fleet, canaries: &mut Canaries, outputs: &mut Outputs) {
    let more = headers(canaries);
    let query = format!("{WEBHOOK}?token={}", canaries.take("the query"));
    let good = message(canaries, "good").to_string();
    let other = json!({ "message_text": canaries.take("another text under the same id") });
    let mut conflict = message(canaries, "good");
    conflict["message_text"] = other["message_text"].clone();
    let phone = canaries.phone("a wrong phone");
    let faults = json!({
        "external_message_id": format!("a b {}", canaries.take("a wrong message id")),
        "external_client_id": format!("a b {}", canaries.take("a wrong client id")),
        "client_phone": format!("{phone}00000000"),
        "message_text": format!("\0{}", canaries.take("a wrong text")),
        "send_at": canaries.take("a wrong time"),
        "note": format!("\0{}", canaries.take("a wrong unknown field")),
    });
    let broken = format!("{{\"message_text\":\"{}\",", canaries.take("broken JSON"));
    let large = json!({ "message_text": canaries.take("too large a body").repeat(6000) }).to_string();
    let slow = message(canaries, "slow-1").to_string();
    let slower = message(canaries, "slow-2").to_string();
    let batch = format!("[{},7,{broken}\"a\":1}}]", message(canaries, "in-a-batch"));
    let unknown = format!("/in/{}", canaries.take("the path"));
    let method = format!("{} {WEBHOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", canaries.take("the method"));
    let head = format!("POST / HTTP/1.1\r\n{} {}\r\n\r\n", canaries.take("a broken head"), "\u{1b}");
    let host = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", canaries.take("the host"));
    let huge = format!("x-huge: {}\r\n", canaries.take("too large a head").repeat(20_000));
    let media = format!("content-type: text/{}\r\n", canaries.take("the media type"));
    let media =
        format!("POST {WEBHOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{media}content-length: 2\r\n\r\n{{}}");
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("a new message", post(&query, &more, &good), 202),
        ("a repeat", post(&query, &more, &good), 200),
        ("a conflict", post(WEBHOOK, &more, &conflict.to_string()), 409),
        ("faults", post(WEBHOOK, &more, &faults.to_string()), 422),
        ("broken JSON", post(WEBHOOK, &more, &broken), 400),
        ("too large", post(WEBHOOK, &more, &large), 413),
        ("a wrong secret", post("/in/header", &more, &good), 401),
        ("a wrong signature", post("/in/hmac", &more, &good), 401),
        ("an unknown source", post(&unknown, &more, &good), 404),
        ("a slow source", post("/in/slow", &more, &slow), 202),
        ("a limit", post("/in/slow", &more, &slower), 429),
        ("a batch", post(&format!("{WEBHOOK}/batch"), &more, &batch), 200),
        ("a method", method.into(), 405),
        ("a broken head", head.into(), 400),
        ("another host", host.into(), 404),
        ("a huge head", post(WEBHOOK, &huge, &good), 431),
        ("another media type", media.into(), 415),
    ];
    for (name, bytes, status) in cases {
        let answer = send(fleet.port, &bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer:.300}");
        outputs.add(format!("the answer to {name}"), answer);
    }
    outputs.add("the answer over HTTP/2", over_http2(fleet, canaries).await);
    outputs.add("the ops listener", send(fleet.ops, &post(&unknown, &more, &good)).await);
}

async fn over_http2(fleet: &Fleet, canaries: &mut Canaries) -> String {
    let stream = TcpStream::connect(("127.0.0.1", fleet.port)).await.expect("a connection");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("a handshake");
    tokio::spawn(connection);
    let request = hyper::Request::post(format!("http://x/in/hmac?{}", canaries.take("a query over HTTP/2")))
        .header("content-type", "application/json")
        .header("x-signature", canaries.take("a signature over HTTP/2"))
        .header("cookie", canaries.take("a cookie over HTTP/2"))
        .body(Full::new(Bytes::from(canaries.take("a body over HTTP/2"))));
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 401);
    let (head, body) = answer.into_parts();
    format!("{head:?}{:?}", body.collect().await.expect("a body").to_bytes())
}

/// Refusals of PostgreSQL, each of which quotes what it refuses.
const OBSTACLES: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
    IF NEW.external_message_id = 'too-long' THEN \
        RAISE EXCEPTION 'value \"%\" is too long: %', NEW.text, NEW.extra USING ERRCODE = '22001', DETAIL = NEW.text; \
    ELSIF NEW.external_message_id = 'no-number' THEN PERFORM NEW.text::integer; \
    ELSIF NEW.external_message_id = 'no-json' THEN PERFORM NEW.text::jsonb; \
    END IF; RETURN NEW; END $$; \
    CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse(); \
    ALTER TABLE messages ADD CONSTRAINT no_check CHECK (external_message_id <> 'check')";

/// Messages that die in every way, and entries that are no messages.
async fn drive_workers(fleet: &Fleet, canaries: &mut Canaries, outputs: &mut Outputs) {
    for statement in OBSTACLES.split_inclusive("$$; ") {
        for statement in if statement.contains("$$") { vec![statement] } else { statement.split("; ").collect() } {
            testing::execute(&fleet.database(), statement).await.expect("an obstacle");
        }
    }
    for id in ["too-long", "no-number", "no-json", "check"] {
        let answer = send(fleet.port, &post(WEBHOOK, "", &message(canaries, id).to_string())).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
    let queue = fleet.queue();
    let envelope = |canaries: &mut Canaries, id: &str, client: &str, text: &str| {
        let phone = canaries.phone(&format!("the phone of {id}"));
        json!({ "src": "messenger", "id": id, "client": client, "phone": phone, "text": text, "sent": 1_640_995_200 })
            .to_string()
    };
    let nul = format!("\0{}", canaries.take("a text with NUL"));
    let long: String = (0..3000).map(|_| format!("{:08x}", rand::random::<u32>())).collect();
    let long = format!("{}{long}", canaries.take("a client's id that no index holds"));
    let entries = [
        ("1", envelope(canaries, "with-nul", "c", &nul).into_bytes()),
        ("1", envelope(canaries, "long", &long, "x").into_bytes()),
        ("1", format!("{{\"src\":\"{}\",", canaries.take("a broken envelope")).into_bytes()),
        ("1", format!("{{\"src\":\"m\",\"sent\":\"{}\"}}", canaries.take("an envelope of other types")).into_bytes()),
        ("1", [canaries.take("bytes that are no text").as_bytes(), b"\xff\xfe"].concat()),
        ("99", format!("{{\"future\":\"{}\"}}", canaries.take("an envelope of another version")).into_bytes()),
    ];
    for (version, bytes) in entries {
        let mut add = redis::cmd("XADD");
        add.arg(&queue.keys(0).ingest).arg("*").arg("v").arg(version).arg("e").arg(bytes);
        queue.command::<String>(&add).await.expect("an entry");
    }
    let mut add = redis::cmd("XADD");
    add.arg(&queue.keys(1).ingest).arg("*").arg("strange").arg(canaries.take("a strange field of an entry"));
    queue.command::<String>(&add).await.expect("an entry");
    eventually("all have their fate", PATIENCE, async || {
        queue.balance().await.is_ok_and(|balance| (balance.dead, balance.parked) == (10, 1))
    })
    .await;
    pause_workers(fleet, canaries, outputs).await;
}

/// A unique index that nobody expects: its error tells the value, and stops the workers until it is gone.
async fn pause_workers(fleet: &Fleet, canaries: &mut Canaries, outputs: &mut Outputs) {
    let index = "CREATE UNIQUE INDEX surprise ON messages_before_2025 (text) WHERE external_message_id LIKE 'twin-%'";
    testing::execute(&fleet.database(), index).await.expect("an index");
    let mut twin = message(canaries, "twin");
    for id in ["twin-1", "twin-2"] {
        (twin["external_message_id"], twin["external_client_id"]) = (json!(id), json!(id));
        send(fleet.port, &post(WEBHOOK, "", &twin.to_string())).await;
    }
    eventually("a worker says what is wrong", PATIENCE, async || {
        send(fleet.ops, b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.contains("surprise")
    })
    .await;
    look(fleet, outputs, "while PostgreSQL refuses").await;
    testing::execute(&fleet.database(), "DROP INDEX surprise").await.expect("no index");
}

/// What operators and Prometheus see.
async fn look(fleet: &Fleet, outputs: &mut Outputs, when: &str) {
    for args in [
        &["status"][..],
        &["status", "--output", "json"],
        &["doctor"],
        &["doctor", "--output", "json"],
        &["fleet", "list"],
        &["fleet", "list", "--output", "json"],
    ] {
        outputs.add(format!("weir {} {when}", args.join(" ")), fleet.run(args).await.text());
    }
    let stack = fleet.stack();
    let roles =
        stack["processes"].as_array().expect("processes").iter().map(|role| role["ops"].as_str().expect("a URL"));
    let ports = roles.map(|url| url.rsplit_once(':').expect("a port").1.parse().expect("a port")).chain([fleet.ops]);
    for port in ports {
        for path in ["/metrics", "/health", "/ready"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let answer = send(port, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{path} {answer}");
            outputs.add(format!("{path} of port {port} {when}"), answer);
        }
    }
}

/// What operators see of dead letters and of messages.
async fn drive_commands(fleet: &Fleet, canaries: &mut Canaries, outputs: &mut Outputs) {
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["dlq", "list"],
        vec!["dlq", "list", "--output", "json"],
        vec!["dlq", "list", "--parked"],
        vec!["dlq", "stats"],
        vec!["dlq", "stats", "--output", "json"],
        vec!["dlq", "replay", "--all", "--dry-run"],
    ];
    for id in ["good", "slow-1", "in-a-batch", "check", "too-long", "with-nul", "nothing-known"] {
        commands.extend([vec!["message", "show", id], vec!["message", "show", id, "--output", "json"]]);
    }
    let letters = fleet.run(&["dlq", "list", "--limit", "100", "--output", "json"]).await.code(0).json();
    let places: Vec<_> =
        letters.as_array().expect("letters").iter().map(|l| l["place"].as_str().expect("a place")).collect();
    assert_eq!(places.len(), 10);
    for place in &places {
        commands.extend([vec!["dlq", "show", place], vec!["dlq", "show", place, "--output", "json"]]);
    }
    // The client's id is shown with a letter, as the ids of messages are.
    let client = canaries.take("external_client_id");
    let index = canaries.take("a client's id that no index holds");
    let phone = canaries.phone("a phone that an operator types");
    let text = canaries.take("a text that an operator types");
    let reason = canaries.take("the reason of an operator");
    let (phone, text) = (format!("client_phone={phone}"), format!("message_text={text}"));
    commands.push(vec!["dlq", "edit", "check", "--field", &phone, "--field", &text, "--reason", &reason]);
    commands.push(vec!["dlq", "replay", "--class", "constraint", "--reason", &reason, "--wait", "60s", "--yes"]);
    commands.push(vec!["dlq", "purge", "--class", "decode", "--reason", &reason, "--yes"]);
    commands.push(vec!["dlq", "export", "letters.ndjson"]);
    for words in commands {
        let shown = fleet.run(&words).await.text();
        assert!(!shown.is_empty(), "{words:?}");
        let shown = if words[1] == "show" { shown.replace(&client, "…").replace(&index, "…") } else { shown };
        outputs.add(format!("weir {}", words[..2].join(" ")), shown);
    }
    let export = fleet.data.path().join("letters.ndjson");
    assert!(
        fs::read_to_string(&export).expect("an export").contains(&canaries.take("message_text")),
        "the export is whole"
    );
    for file in [export, fleet.data.path().join("weir/stack.json"), fleet.data.path().join("weir/redis/redis.conf")] {
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for its owner alone", file.display());
    }
}

/// The arguments of everything that runs, the clients that operators open among them: everybody can read these.
async fn look_at_arguments(fleet: &Fleet, outputs: &mut Outputs) {
    let mut clients = Vec::new();
    for args in [&["psql", "-c", "SELECT pg_sleep(600)"][..], &["redis-cli", "blpop", "nothing", "600"]] {
        let mut command = fleet.command(args);
        let client =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a client");
        let cmdline = || fs::read(format!("/proc/{}/cmdline", client.id())).unwrap_or_default();
        let program = if args[0] == "psql" { &b"psql"[..] } else { b"redis-cli" };
        eventually("the client runs", PATIENCE, async || {
            let line = cmdline();
            !line.starts_with(WEIR.as_bytes()) && line.windows(program.len()).any(|window| window == program)
        })
        .await;
        outputs.add(args[0], String::from_utf8_lossy(&cmdline()));
        clients.push(client);
    }
    let pids = fleet.pids();
    assert!(pids.len() > 5, "the fleet and its servers: {pids:?}");
    for pid in pids {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        outputs.add(format!("the arguments of process {pid}"), String::from_utf8_lossy(&line));
    }
    for mut client in clients {
        client.kill().expect("a kill");
        client.wait().expect("an end");
    }
}

/// All logs below a folder.
fn logs(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            logs(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
}

async fn look_at_logs(fleet: &Fleet, outputs: &mut Outputs) {
    let directory =
        testing::texts(&fleet.database(), "SELECT current_setting('data_directory')").await.expect("a folder");
    let mut found = Vec::new();
    for folder in [fleet.data.path(), Path::new(&directory[0]).parent().expect("a folder")] {
        logs(folder, &mut found);
    }
    found.sort();
    found.dedup();
    let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy()).collect();
    for role in ["up", "gateway", "worker", "redis", "postgres"] {
        assert!(names.iter().any(|name| name.contains(role)), "a log of {role} in {names:?}");
    }
    for path in found {
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a log")).into_owned();
        if path.to_string_lossy().contains("gateway") {
            assert!(text.contains("TRACE") || text.contains("DEBUG"), "{} says all it can", path.display());
        }
        outputs.add(path.display().to_string(), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_personal_value_comes_out_of_a_whole_fleet() {
    let (mut canaries, mut outputs) = (Canaries::default(), Outputs::default());
    let fleet = Fleet::start(&mut canaries).await;
    drive_gateway(&fleet, &mut canaries, &mut outputs).await;
    drive_workers(&fleet, &mut canaries, &mut outputs).await;
    drive_commands(&fleet, &mut canaries, &mut outputs).await;
    look(&fleet, &mut outputs, "at last").await;
    look_at_arguments(&fleet, &mut outputs).await;
    look_at_logs(&fleet, &mut outputs).await;
    assert!(canaries.0.len() >= 50, "{} canaries", canaries.0.len());
    outputs.show_none_of(&canaries);
    fleet.stop().await;
}
