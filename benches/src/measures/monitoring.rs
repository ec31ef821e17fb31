//! How fast the monitoring answers when there is much.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use weir_api::{ApiConfig, Auth};
use weir_core::shutdown::Shutdown;
use weir_store::{Store, StoreOptions, testing};

use super::{Scale, Turns};
use crate::report::Report;
use crate::stage::{self, PARTITIONS, Postgres, Redis};

pub(super) const ABOUT: &str = "Answers of the monitoring endpoints over one connection, with profiles that SQL made and counts \
                                of a year: days, hours and minutes as the workers' upkeep leaves them, and the last minutes \
                                in all shards. In front of the period that is asked for lies the rest of the year.";

/// What is asked, by the id of its figure.
const ENDPOINTS: [(&str, &str); 6] = [
    ("coverage", "/monitoring/profiles/coverage"),
    ("quality", "/monitoring/profiles/quality?days=365"),
    ("webhook_stats", "/monitoring/webhook/stats"),
    ("webhook_year", "/monitoring/webhook/stats?from=YEAR"),
    ("cache_health", "/monitoring/cache-health"),
    ("alerts", "/monitoring/alerts"),
];

/// Names of many lengths, some of them full; one of seven users has none, one of nine has told one.
const PROFILES: &str = "
    INSERT INTO profiles (user_id, max_first_name, max_last_name, user_provided_name, names_at, first_seen_at, updated_at, search)
    SELECT (100000000 + n)::text, first, last, told, at, at, at, lower(concat_ws(' ', first, last, told))
    FROM (
        SELECT n, CASE WHEN n % 7 > 0 THEN 'Имя' || md5(n::text) END AS first,
               CASE WHEN n % 7 > 1 THEN 'Фамилия' || n % 50000 END AS last,
               CASE WHEN n % 9 = 0 THEN 'Сам ' || n % 1000 END AS told,
               now() - interval '1 day' * (n % 365) - interval '1 second' * (n % 86400) AS at
        FROM generate_series(FIRST::bigint, LAST::bigint) AS n
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
    stop.cancel();
    serving.await?;
    turns.write(report);
    asked
}

fn config() -> ApiConfig {
    let mut config = ApiConfig::read(&mut stage::reader());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.auth = Auth::Development;
    config
}

async fn make(report: &Report, database: &str, profiles: usize) -> Result<()> {
    let search = "CREATE INDEX profiles_search_idx ON profiles USING gin (search gin_trgm_ops)";
    testing::execute(database, "DROP INDEX profiles_search_idx").await?;
    for first in (0..profiles).step_by(STEP) {
        report.step(format_args!("{first} of {profiles} profiles"));
        let last = profiles.min(first + STEP) - 1;
        let sql = PROFILES.replace("FIRST", &first.to_string()).replace("LAST", &last.to_string());
        testing::execute(database, &sql).await?;
    }
    report.step("indexes and counts");
    for sql in [PROFILE_COUNTS, EVENT_COUNTS, OTHER_COUNTS, search, "ANALYZE", "CHECKPOINT"] {
        testing::execute(database, sql).await?;
    }
    Ok(())
}

async fn ask_all(report: &Report, scale: &Scale, address: SocketAddr, turns: &mut Turns) -> Result<()> {
    for round in 1..=scale.long_rounds {
        for (name, path) in ENDPOINTS {
            report.step(format_args!("turn {round}: {path}"));
            let times = ask_often(address, &path.replace("YEAR", &year_ago()), scale.requests).await?;
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            turns.push(format!("monitoring.{name}.p99"), format!("{path}: p99"), "ms", at(0.99));
            turns.push(format!("monitoring.{name}.p50"), format!("{path}: p50"), "ms", at(0.5));
        }
    }
    Ok(())
}

/// In RFC 3339.
fn year_ago() -> String {
    let then = SystemTime::now() - Duration::from_secs(364 * 24 * 3600);
    humantime::format_rfc3339_seconds(then).to_string()
}

/// How long each request took, sorted.
async fn ask_often(address: SocketAddr, path: &str, requests: usize) -> Result<Vec<Duration>> {
    let (mut sender, connection) =
        handshake::<_, Empty<Bytes>>(TokioIo::new(TcpStream::connect(address).await?)).await?;
    let connection = tokio::spawn(connection);
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        let started = Instant::now();
        ask(&mut sender, path).await?;
        times.push(started.elapsed());
    }
    drop(sender);
    connection.await??;
    times.sort_unstable();
    Ok(times)
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Result<()> {
    let request = Request::get(path).header("host", "localhost").body(Empty::new())?;
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
    Ok(())
}
