//! `weir psql` and `weir redis-cli`: the clients, connected to the stack. Passwords travel in the environment, which
//! only the user and root can read, and never among the arguments, which everybody can.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use percent_encoding::percent_decode_str;
use redis::{ConnectionAddr, ConnectionInfo};
use url::Url;
use weir_core::secret::SecretUrl;

use crate::Ending;
use crate::context::Context;

/// Open psql on the database, or run it with the arguments given
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir psql -c 'select count(*) from messages'")]
pub(crate) struct Psql {
    /// Arguments for psql
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Open redis-cli on the queue's Redis, or run it with the arguments given
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir redis-cli xinfo groups 'weir:{0}:ingest'")]
pub(crate) struct RedisCli {
    /// Arguments for redis-cli
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

impl Psql {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let mut command = Command::new("psql");
        for (name, value) in postgres_environment(&context.database_url()?)? {
            command.env(name, value);
        }
        command.args(self.args);
        become_program(command, "apt-get install postgresql-client")
    }
}

impl RedisCli {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let queue = context.queue()?;
        let primary = queue.link().primary().await.context("the primary cannot be found")?;
        let mut command = redis_command(&primary)?;
        // Goes where the keys are.
        command.args(queue.link().is_cluster().then_some("-c"));
        command.args(authority(context.settings.redis.ca.as_deref()));
        command.args(self.args);
        become_program(command, "apt-get install redis-tools")
    }
}

/// Whom redis-cli believes over TLS; elsewhere it ignores this.
fn authority(ca: Option<&Path>) -> Vec<&OsStr> {
    ca.map(|file| vec!["--cacert".as_ref(), file.as_os_str()]).unwrap_or_default()
}

/// Replaces this process; comes back only if it cannot.
fn become_program(mut command: Command, remedy: &str) -> Result<Ending> {
    let error = command.exec();
    let program = command.get_program().display().to_string();
    if error.kind() == ErrorKind::NotFound {
        bail!("{program} is not installed on this machine: {remedy} (Debian, Ubuntu), or put it on the PATH");
    }
    Err(error).with_context(|| format!("{program} cannot be started"))
}

/// Parts of the URL's query that libpq also reads from the environment.
const PARAMETERS: [(&str, &str); 13] = [
    ("host", "PGHOST"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("application_name", "PGAPPNAME"),
    ("options", "PGOPTIONS"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("channel_binding", "PGCHANNELBINDING"),
];

/// What libpq reads from the environment in place of a URL.
fn postgres_environment(url: &SecretUrl) -> Result<Vec<(&'static str, String)>> {
    let parsed = Url::parse(url.expose()).map_err(|error| {
        anyhow::anyhow!("{url} is no PostgreSQL URL ({error}); it looks like postgres://user@host:5432/name")
    })?;
    let host = parsed.host_str().map(|host| decode(host.trim_matches(['[', ']'])));
    let database = decode(parsed.path().trim_start_matches('/'));
    let mut pairs = vec![
        ("PGHOST", host.unwrap_or_default()),
        ("PGPORT", parsed.port().map(|port| port.to_string()).unwrap_or_default()),
        ("PGUSER", decode(parsed.username())),
        ("PGPASSWORD", decode(parsed.password().unwrap_or_default())),
        ("PGDATABASE", database),
    ];
    for (name, value) in parsed.query_pairs() {
        if let Some((_, variable)) = PARAMETERS.iter().find(|(parameter, _)| *parameter == name) {
            pairs.push((variable, value.into_owned()));
        }
    }
    pairs.retain(|(_, value)| !value.is_empty());
    Ok(pairs)
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn redis_command(info: &ConnectionInfo) -> Result<Command> {
    let mut command = Command::new("redis-cli");
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            command.arg("-h").arg(host).arg("-p").arg(port.to_string());
        }
        ConnectionAddr::TcpTls { host, port, insecure, .. } => {
            command.arg("-h").arg(host).arg("-p").arg(port.to_string()).args(["--tls", "--sni", host]);
            command.args(insecure.then_some("--insecure"));
        }
        ConnectionAddr::Unix(path) => {
            command.arg("-s").arg(path);
        }
        other => bail!("redis-cli does not know how to connect to {other}"),
    }
    let settings = info.redis_settings();
    command.arg("-n").arg(settings.db().to_string());
    if let Some(user) = settings.username() {
        command.arg("--user").arg(user);
    }
    if let Some(password) = settings.password() {
        command.env("REDISCLI_AUTH", password);
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(url: &str) -> Vec<(&'static str, String)> {
        postgres_environment(&SecretUrl::new(url)).unwrap()
    }

    #[test]
    fn a_database_url_becomes_what_libpq_reads() {
        let pairs = environment("postgres://weir:p%40ss@[::1]:5433/my%20db?sslmode=verify-full&statement_cache=5");
        let expected = [
            ("PGHOST", "::1"),
            ("PGPORT", "5433"),
            ("PGUSER", "weir"),
            ("PGPASSWORD", "p@ss"),
            ("PGDATABASE", "my db"),
            ("PGSSLMODE", "verify-full"),
        ];
        assert_eq!(pairs, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn a_socket_folder_in_the_query_is_the_host() {
        let pairs = environment("postgres:///weir?host=/run/postgresql");
        assert!(pairs.contains(&("PGHOST", "/run/postgresql".to_owned())), "{pairs:?}");
    }

    #[test]
    fn the_password_of_redis_is_no_argument() {
        let info = redis::IntoConnectionInfo::into_connection_info("rediss://ops:hunter2@cache:6390/3").unwrap();
        let command = redis_command(&info).unwrap();
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert_eq!(args.join(" "), "-h cache -p 6390 --tls --sni cache -n 3 --user ops");
        let secret = command.get_envs().find(|(name, _)| *name == "REDISCLI_AUTH").and_then(|(_, value)| value);
        assert_eq!(secret, Some("hunter2".as_ref()));
    }

    #[test]
    fn a_url_that_is_none_is_named_without_its_password() {
        let error = postgres_environment(&SecretUrl::new("postgres://u:hunter2@host:x/db")).unwrap_err().to_string();
        assert!(error.contains("no PostgreSQL URL") && !error.contains("hunter2"), "{error}");
    }
}
