//! How fast the monitoring and the search for profiles answer when there is much.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use weir_api::{ApiConfig, Auth};
use weir_core::shutdown::Shutdown;
use weir_store::{Store, StoreOptions, testing};

use super::searches::searches;
use super::{Scale, Turns, names};
use crate::report::Report;
use crate::stage::{self, PARTITIONS, Postgres, Redis};

pub(super) const ABOUT: &str = "Answers of the monitoring endpoints over one connection, with profiles that SQL made and counts \
                                of a year: days, hours and minutes as the workers' upkeep leaves them, and the last minutes \
                                in all shards. In front of the period that is asked for lies the rest of the year. Then pages \
                                of fifty profiles, found by what is given; their names are spread as Russia's are.";

/// What is asked, by the id of its figure.
const ENDPOINTS: [(&str, &str); 6] = [
    ("coverage", "/monitoring/profiles/coverage"),
    ("quality", "/monitoring/profiles/quality?days=365"),
    ("webhook_stats", "/monitoring/webhook/stats"),
    ("webhook_year", "/monitoring/webhook/stats?from=YEAR"),
    ("cache_health", "/monitoring/cache-health"),
    ("alerts", "/monitoring/alerts"),
];

/// Men and women, some of them with a full name; one of seven users has none, one of nine has told one.
const PROFILES: &str = "
    INSERT INTO profiles (user_id, max_first_name, max_last_name, user_provided_name, names_at, first_seen_at, updated_at, search)
    SELECT (100000000 + n)::text, first, last, told, at, at, at,
           coalesce(' ' || nullif(lower(concat_ws(' ', first, last, told)), '') || ' ', '')
    FROM (
        SELECT n, CASE WHEN n % 7 > 0 THEN first END AS first, CASE WHEN n % 7 > 1 THEN last END AS last,
               CASE WHEN n % 9 = 0 THEN first || ' ' || other END AS told,
               now() - interval '1 day' * (n % 365) - interval '1 second' * (n % 86400) AS at
        FROM generate_series(FIRST::bigint, LAST::bigint) AS n
        JOIN first_names AS f ON f.part = abs(hashint8extended(n, 1) % PARTS)
        JOIN last_names AS l ON l.part = abs(hashint8extended(n, 2) % PARTS)
        JOIN last_names AS o ON o.part = abs(hashint8extended(n, 3) % PARTS),
             LATERAL (SELECT CASE WHEN n % 2 = 0 THEN f.him ELSE f.her END, CASE WHEN n % 2 = 0 THEN l.him ELSE l.her END,
                             CASE WHEN n % 2 = 0 THEN o.him ELSE o.her END) AS who (first, last, other)
    ) AS made";

/// What the profiles are, by day.
const PROFILE_COUNTS: &str = "
    INSERT INTO tallies (what, at, shard, n)
    SELECT c.what, date_trunc('day', p.at, 'UTC'), 0, count(*)
    FROM (SELECT first_seen_at AS at, source, max_first_name IS NOT NULL OR user_provided_name IS NOT NULL AS named,
                 has_full_name FROM profiles) AS p,
         LATERAL (VALUES ('profiles', true), ('profiles.fresh', true), ('profiles.named', named),
                         ('profiles.full', has_full_name), ('profiles.source.' || source, true)) AS c (what, counts)
    WHERE c.counts GROUP BY 1, 2";

/// Every kind that there is, in every minute; and reads of the cache.
const EVENT_COUNTS: &str = "
    INSERT INTO tallies (what, at, shard, n)
    SELECT what, at, shard, 7
    FROM unnest(ARRAY['message_created', 'message_callback', 'message_edited', 'message_removed', 'comment_created',
                      'comment_edited', 'comment_removed', 'bot_added', 'bot_removed', 'user_added', 'user_removed',
                      'bot_started', 'bot_stopped', 'dialog_cleared', 'dialog_removed', 'dialog_muted', 'dialog_unmuted',
                      'chat_title_changed', 'bot_admin_permissions_changed', 'message_new', 'callback_query', 'ms']) AS kind,
         LATERAL (VALUES ('events.' || kind)) AS w (what),
         LATERAL (
             SELECT at, 0 AS shard
             FROM generate_series(date_trunc('day', now() - interval '365 days', 'UTC'), now() - interval '15 days', '1 day') AS at
             UNION ALL
             SELECT at, 0
             FROM generate_series(date_trunc('day', now() - interval '14 days', 'UTC'), now() - interval '8 hours', '1 hour') AS at
             UNION ALL
             SELECT at, 0
             FROM generate_series(date_trunc('minute', now() - interval '7 hours'), now() - interval '16 minutes', '1 minute') AS at
             UNION ALL
             SELECT at, shard
             FROM generate_series(date_trunc('minute', now() - interval '15 minutes'), now(), '1 minute') AS at,
                  generate_series(0, 15) AS shard
         ) AS times";

/// Failures of every minute, which stay by the minute for longer, and some that are rare; and reads of the cache.
const OTHER_COUNTS: &str = "
    INSERT INTO tallies (what, at, shard, n)
    SELECT what, at, shard, 1
    FROM (VALUES ('failed.unknown', 192, 1, 0), ('failed.foreign', 192, 1, 0), ('failed.malformed', 192, 30, 3),
                 ('failed.dead', 192, 30, 3), ('cache.hit', 7, 1, 0), ('cache.miss', 7, 1, 0), ('cache.us', 7, 1, 0))
             AS w (what, hours, minutes, shards),
         generate_series(date_trunc('minute', now() - interval '1 hour' * hours), now(), interval '1 minute' * minutes) AS at,
         generate_series(0, shards) AS shard";

/// Profiles that one statement makes.
const STEP: usize = 250_000;

pub(super) async fn measure(report: &mut Report, scale: &Scale) -> Result<()> {
    let (postgres, redis) = (Postgres::start().await?, Redis::on_disk().await?);
    let database = postgres.database().await?;
    make(report, &database, scale.profiles).await?;
    let queue = redis.queue(PARTITIONS).await?;
    let mut options = StoreOptions::new(database.clone().into());
    // One statement of the making may take longer than any of a request.
    options.statement_timeout = Duration::from_secs(10);
    let store = Store::connect(&options).await?;
    let api = weir_api::build(config(), store, queue, None)?;
    let address = api.addresses().first().copied().context("the API listens")?;
    let stop = Shutdown::new();
    let serving = tokio::spawn(api.run(stop.clone()));
    let mut turns = Turns::default();
    let asked = ask_all(report, scale, address, &mut turns).await;
    let found = if asked.is_ok() { search_all(report, scale, address, &mut turns).await } else { Ok(()) };
    stop.cancel();
    serving.await?;
    turns.write(report);
    asked.and(found)
}

fn config() -> ApiConfig {
    let mut config = ApiConfig::read(&mut stage::reader());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.auth = Auth::Development;
    config
}

async fn make(report: &Report, database: &str, profiles: usize) -> Result<()> {
    let search = "CREATE INDEX profiles_search_idx ON profiles USING gin (search gin_trgm_ops)";
    for sql in ["DROP INDEX profiles_search_idx", &names::tables()] {
        testing::execute(database, sql).await?;
    }
    for first in (0..profiles).step_by(STEP) {
        report.step(format_args!("{first} of {profiles} profiles"));
        let last = profiles.min(first + STEP) - 1;
        let sql = PROFILES.replace("FIRST", &first.to_string()).replace("LAST", &last.to_string());
        let sql = sql.replace("PARTS", &names::PARTS.to_string());
        testing::execute(database, &sql).await?;
    }
    report.step("indexes and counts");
    // As autovacuum leaves it.
    for sql in [names::DROP, PROFILE_COUNTS, EVENT_COUNTS, OTHER_COUNTS, search, "VACUUM (ANALYZE)", "CHECKPOINT"] {
        testing::execute(database, sql).await?;
    }
    Ok(())
}

async fn ask_all(report: &Report, scale: &Scale, address: SocketAddr, turns: &mut Turns) -> Result<()> {
    for round in 1..=scale.long_rounds {
        for (name, path) in ENDPOINTS {
            report.step(format_args!("turn {round}: {path}"));
            let paths = [path.replace("YEAR", &ago(364))];
            let times = ask_often(address, &paths, scale.requests).await?;
            note(turns, &format!("monitoring.{name}"), path, &times);
        }
    }
    Ok(())
}

async fn search_all(report: &Report, scale: &Scale, address: SocketAddr, turns: &mut Turns) -> Result<()> {
    let searches = searches(&ago(182), &middle(address).await?);
    for round in 1..=scale.long_rounds {
        for search in &searches {
            report.step(format_args!("turn {round}: {}", search.about));
            let times = ask_often(address, &search.paths, scale.requests / 4).await?;
            note(turns, &format!("search.{}", search.name), &format!("/profiles: {}", search.about), &times);
        }
    }
    Ok(())
}

/// A cursor in the middle of all profiles.
async fn middle(address: SocketAddr) -> Result<String> {
    let (mut sender, connection) = connect(address).await?;
    let page = ask(&mut sender, &format!("/profiles?updated_after={}", ago(182))).await?;
    drop(sender);
    connection.await??;
    let page: serde_json::Value = serde_json::from_slice(&page)?;
    Ok(page["next"].as_str().context("there is a page behind")?.to_owned())
}

fn note(turns: &mut Turns, id: &str, name: &str, times: &[Duration]) {
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    turns.push(format!("{id}.p99"), format!("{name}: p99"), "ms", at(0.99));
    turns.push(format!("{id}.p50"), format!("{name}: p50"), "ms", at(0.5));
}

/// So many days ago, in RFC 3339.
fn ago(days: u64) -> String {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    humantime::format_rfc3339_seconds(then).to_string()
}

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> Result<(Sender, JoinHandle<hyper::Result<()>>)> {
    let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    Ok((sender, tokio::spawn(connection)))
}

/// How long each request took, sorted. The paths take turns.
async fn ask_often(address: SocketAddr, paths: &[String], requests: usize) -> Result<Vec<Duration>> {
    let (mut sender, connection) = connect(address).await?;
    let mut times = Vec::with_capacity(requests);
    for path in paths.iter().cycle().take(requests) {
        let started = Instant::now();
        ask(&mut sender, path).await?;
        times.push(started.elapsed());
    }
    drop(sender);
    connection.await??;
    times.sort_unstable();
    Ok(times)
}

async fn ask(sender: &mut Sender, path: &str) -> Result<Bytes> {
    let request = Request::get(path).header("host", "localhost").body(Empty::new())?;
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
    Ok(body)
}
