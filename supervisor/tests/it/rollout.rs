//! The way of `docs/ROLLOUT.md` under traffic: nothing that is accepted on it is lost.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weir_stack::free_port;
use weir_stack::testing::{Scratch, eventually, scratch};
use weir_store::testing;

use crate::http::request;
use crate::ledger::Ledger;
use crate::support::{Ended, PATIENCE, clean};
use crate::up::{Up, number, run, stack};

/// Users who write, over and over.
const USERS: usize = 40;

/// The settings of the customer, in `.env` as they keep them.
struct Settings<'a> {
    data: &'a Scratch,
    lines: BTreeMap<&'static str, &'static str>,
}

impl Settings<'_> {
    fn set(&mut self, settings: &[(&'static str, &'static str)]) {
        self.lines.extend(settings.iter().copied());
        let text: String = self.lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::write(self.data.path().join(".env"), text).expect(".env");
    }

    /// Has everything that runs take them over.
    async fn take_over(&mut self, settings: &[(&'static str, &'static str)]) {
        self.set(settings);
        run(self.data, &["fleet", "restart", "--yes"]).await.code(0);
    }
}

/// MAX, which posts new messages of some users and knows which were taken.
struct Max {
    /// Ids of messages whose events were taken.
    accepted: Arc<Mutex<BTreeSet<String>>>,
    /// Answers that MAX takes for failures. A connection that was closed is one.
    failed: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Max {
    fn start(port: u16) -> Self {
        let (accepted, failed, stop) = (Arc::default(), Arc::default(), Arc::default());
        let task = tokio::spawn(post_all(port, Arc::clone(&accepted), Arc::clone(&failed), Arc::clone(&stop)));
        Self { accepted, failed, stop, task }
    }

    fn taken(&self) -> usize {
        self.accepted.lock().expect("no panic").len()
    }

    /// Waits until some more were taken.
    async fn flows(&self) {
        let before = self.taken();
        eventually("events are taken", PATIENCE, async || self.taken() > before + USERS).await;
    }

    /// Ends; gives the messages whose events were taken.
    async fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no panic");
        let failed = self.failed.lock().expect("no panic").clone();
        assert!(failed.is_empty(), "MAX would have to come again: {:?}", &failed[..failed.len().min(5)]);
        std::mem::take(&mut *self.accepted.lock().expect("no panic"))
    }
}

async fn post_all(
    port: u16,
    accepted: Arc<Mutex<BTreeSet<String>>>,
    failed: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
) {
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for n in 0.. {
        pace.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mid = format!("mid.{n:032x}");
        match request(port, "POST", "/webhook/max", &event(n, &mid)).await {
            // What is not taken while webhooks are off is no loss.
            Ok(answer) if answer.status == 200 && answer.body["status"] == "ignored" => {}
            Ok(answer) if answer.status == 200 => drop(accepted.lock().expect("no panic").insert(mid)),
            other => failed.lock().expect("no panic").push(format!("{other:?}")),
        }
    }
}

fn event(n: usize, mid: &str) -> String {
    let (user, at) = (1000 + n % USERS, 1_782_864_000_000_u64 + n as u64);
    json!({
        "message": {
            "recipient": {"chat_id": user, "chat_type": "dialog", "user_id": 1},
            "timestamp": at,
            "body": {"mid": mid, "seq": 116_327_994_376_978_687_u64, "text": "Здравствуйте"},
            "sender": {"user_id": user, "first_name": "Анна", "last_name": format!("Ким {user}"), "is_bot": false,
                       "last_activity_time": at, "name": "Анна"},
        },
        "timestamp": at, "update_type": "message_created",
    })
    .to_string()
}

async fn get(up: &Up, path: &str) -> (u16, Value) {
    let answer = request(up.port, "GET", path, "").await.expect("an answer");
    (answer.status, answer.body)
}

/// The users whose new employees get their names from profiles.
async fn helped(up: &Up) -> BTreeSet<usize> {
    let mut helped = BTreeSet::new();
    for user in 1000..1000 + USERS {
        let employee = json!({"phone": "+1234567890", "max_id": user.to_string(), "university_id": 1}).to_string();
        let answer = request(up.port, "POST", "/employees", &employee).await.expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        if answer.body["profile_source"] == "webhook" {
            assert_eq!(
                (&answer.body["first_name"], &answer.body["last_name"]),
                (&"Анна".into(), &format!("Ким {user}").into())
            );
            helped.insert(user);
        } else {
            assert_eq!(answer.body["profile_source"], "default", "{answer:?}");
        }
    }
    helped
}

/// Migrations from this one on.
async fn from(data: &Scratch, first: i64) -> usize {
    let sql = format!("SELECT count(*) FROM _sqlx_migrations WHERE version >= {first}");
    usize::try_from(number(data, &sql).await).expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phases_of_the_rollout_and_the_way_back_lose_nothing_that_was_accepted() {
    let data = scratch();
    let mut settings = Settings { data: &data, lines: BTreeMap::new() };
    settings.set(&[("WEBHOOK_ENABLED", "false"), ("EMPLOYEE_SERVICE_PROFILE_ENABLED", "false")]);
    let up = Up::start(&data, &[]).await;
    let (mut messenger, max) = (Ledger::start(up.port, 2), Max::start(up.port));

    // 1. Deployed, and MAX is not listened to yet.
    let disabled = async || get(&up, "/monitoring/webhook/stats").await.1["ignored_by_type"]["disabled"].as_i64();
    eventually("what comes is counted", PATIENCE, async || disabled().await.is_some_and(|n| n > 10)).await;
    assert_eq!((max.taken(), number(&data, "SELECT count(*) FROM profiles").await), (0, 0));
    assert_eq!(helped(&up).await.len(), 0);

    // 2. Switched on: profiles fill.
    settings.take_over(&[("WEBHOOK_ENABLED", "true")]).await;
    max.flows().await;
    let known = async || get(&up, "/monitoring/profiles/coverage").await.1["users_with_profiles"] == USERS;
    eventually("all users are known by name", PATIENCE, known).await;

    // 3. A quarter of the users, then all.
    settings
        .take_over(&[("EMPLOYEE_SERVICE_PROFILE_ENABLED", "true"), ("PROFILE_INTEGRATION_ROLLOUT_PERCENTAGE", "25")])
        .await;
    let quarter = helped(&up).await;
    assert!((1..USERS).contains(&quarter.len()), "{quarter:?}");
    assert_eq!(helped(&up).await, quarter, "always the same ones");
    settings.take_over(&[("PROFILE_INTEGRATION_ROLLOUT_PERCENTAGE", "100")]).await;
    assert_eq!(helped(&up).await.len(), USERS);

    // 4. Each part off again.
    settings
        .take_over(&[
            ("EMPLOYEE_SERVICE_PROFILE_ENABLED", "false"),
            ("PROFILE_CACHE_ENABLED", "false"),
            ("MONITORING_ENABLED", "false"),
        ])
        .await;
    assert_eq!(helped(&up).await.len(), 0);
    assert_eq!(get(&up, "/monitoring/webhook/stats").await.0, 404);
    let (status, profile) = get(&up, "/profiles/1000").await;
    assert_eq!((status, &profile["max_first_name"]), (200, &"Анна".into()));
    max.flows().await;
    settings.take_over(&[("WEBHOOK_ENABLED", "false")]).await;
    let taken = max.taken();

    // The schema down below the columns of employees, and up again.
    let steps = from(&data, 15).await.to_string();
    run(&data, &["migrate", "down", "--steps", &steps, "--yes"]).await.code(0);
    let so_far = messenger.accepted();
    eventually("the messenger notices nothing", PATIENCE, async || messenger.accepted() > so_far + 50).await;
    let employees = number(&data, "SELECT count(*) FROM employees").await;
    run(&data, &["migrate", "up"]).await.code(0);
    let manual = "SELECT count(*) FROM employees WHERE profile_source = 'manual'";
    assert_eq!(number(&data, manual).await, employees, "those who were there are as if somebody wrote them");
    assert_eq!(max.taken(), taken, "what comes while webhooks are off is not taken");

    messenger.stop().await;
    judge(&data, &messenger, max.stop().await).await;
    up.stop(&data).await;
}

/// Everything that was accepted is a row, once, and nothing is on its way.
async fn judge(data: &Scratch, messenger: &Ledger, max: BTreeSet<String>) {
    eventually("everything is settled", PATIENCE, async || {
        let status = run(data, &["status", "--output", "json"]).await.json();
        status["balance"]["in_flight"] == 0
    })
    .await;
    let status = run(data, &["status", "--output", "json"]).await.json();
    assert_eq!((&status["balance"]["drift"], &status["balance"]["dead"]), (&json!(0), &json!(0)), "{status}");
    let url = stack(data)["database"]["url"].as_str().expect("a URL").to_owned();
    let of = |source: &str| {
        format!(
            "SELECT m.external_message_id FROM messages m JOIN dialogs d ON d.id = m.dialog_id
             JOIN clients c ON c.id = d.client_id WHERE c.source = '{source}'"
        )
    };
    let rows = testing::texts(&url, &of("messenger")).await.expect("rows");
    let unique: HashSet<&String> = rows.iter().collect();
    assert_eq!(unique.len(), rows.len(), "an id is there twice");
    assert_eq!(messenger.lost(&unique), Vec::<String>::new());
    let rows = testing::texts(&url, &of("max")).await.expect("rows");
    assert_eq!(rows.len(), max.len(), "as many rows as events that were taken");
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), max);
}

/// What `make test-webhook` and the like do.
async fn tries(data: &Scratch, port: u16, what: &str) -> Ended {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/try.sh");
    let mut command = Command::new(script);
    clean(&mut command).arg(what).current_dir(data.path()).env("WEIR_URL", format!("http://localhost:{port}"));
    Ended::of(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checks_of_make_pass_against_what_runs_and_fail_where_nothing_does() {
    let data = scratch();
    // A quoted value and a comment, as people write them; the script runs nothing of it.
    fs::write(data.path().join(".env"), "# of MAX\nWEBHOOK_SECRET=\"try-me-once\"\n").expect(".env");
    let up = Up::start(&data, &[]).await;
    for what in ["health", "webhook", "profiles", "compatibility", "performance"] {
        tries(&data, up.port, what).await.code(0).says(&["ok   "]);
    }
    tries(&data, up.port, "webhook").await.says(&["ok   a wrong secret is refused"]);
    let nobody = free_port().expect("a port");
    tries(&data, nobody, "health").await.code(1).says(&["does not answer", "make up"]);
    up.stop(&data).await;
}
