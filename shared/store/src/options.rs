//! How to reach PostgreSQL.

use std::io::ErrorKind;
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use url::Url;

use crate::{Class, StoreError};

/// A session that holds a transaction open and says nothing is ended by the server after this long: the locks of a
/// worker that is frozen, or whose machine vanished, must not hold up who takes over. A batch is never silent for more
/// than milliseconds.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// A connection that idled longer than this is asked whether it lives before it is used.
const ASK_AFTER_IDLE: Duration = Duration::from_secs(5);

/// Where PostgreSQL is and how long to wait for it.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `postgres://user:password@host/database`. A secret, because of the password.
    pub url: SecretString,
    /// Connections per process. Each batch in flight needs one. Default 8.
    pub max_connections: u32,
    /// How long to wait for a free or new connection. Default 5 s.
    pub acquire_timeout: Duration,
    /// The server ends a statement that takes longer; see [`StoreError::is_timeout`]. Default 10 s.
    pub statement_timeout: Duration,
    /// The server ends a wait for a lock that takes longer. Default 5 s.
    pub lock_timeout: Duration,
    /// What `pg_stat_activity` shows. Default `weir`.
    pub application_name: String,
}

impl StoreOptions {
    /// The defaults, for the database at `url`.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            max_connections: 8,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            application_name: "weir".to_owned(),
        }
    }

    pub(crate) fn pool(&self) -> PgPoolOptions {
        let limit = self.acquire_timeout;
        PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.acquire_timeout)
            // A round trip per batch; a connection that was just used has been asked when it came back.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > ASK_AFTER_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            // The pool asks too, but without a limit: a connection that a dead network swallowed would keep its place.
            .after_release(move |connection, _| {
                Box::pin(async move {
                    let answer = tokio::time::timeout(limit, connection.ping()).await;
                    answer.map_err(|_| sqlx::Error::Io(ErrorKind::TimedOut.into()))??;
                    Ok(true)
                })
            })
    }

    pub(crate) fn connection(&self) -> Result<PgConnectOptions, StoreError> {
        Ok(self.plain()?.options([
            ("statement_timeout", self.statement_timeout.as_millis()),
            ("lock_timeout", self.lock_timeout.as_millis()),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION.as_millis()),
        ]))
    }

    /// For migrations: a rewrite of a table takes the time that it takes.
    pub(crate) fn plain(&self) -> Result<PgConnectOptions, StoreError> {
        let url = self.url.expose_secret();
        check_authority(url)?;
        Ok(PgConnectOptions::from_str(url)?
            .application_name(&self.application_name)
            // Statements are written here and known; a log of them would only be a way for data to leak.
            .disable_statement_logging())
    }
}

/// Each connection reads the file of `sslrootcert` anew, and would not name it. PEM may stand there in place of a file.
fn check_authority(url: &str) -> Result<(), StoreError> {
    let Ok(url) = Url::parse(url) else { return Ok(()) };
    let mut parameters = url.query_pairs();
    let Some((_, file)) = parameters.find(|(name, _)| ["sslrootcert", "ssl-root-cert", "ssl-ca"].contains(&&**name))
    else {
        return Ok(());
    };
    let reason = match std::fs::read(&*file) {
        _ if file.contains("-----BEGIN") => return Ok(()),
        Ok(text) => match CertificateDer::pem_slice_iter(&text).next() {
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => format!("its PEM is broken ({error})"),
            None => "it holds no certificate".to_owned(),
        },
        Err(error) => format!("it cannot be read ({error})"),
    };
    let text = format!("sslrootcert = {file}: {reason}; give the authority's certificate in PEM");
    Err(StoreError::new(Class::Deployment, text))
}
