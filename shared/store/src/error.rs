//! A failure of the store, free of personal data.

use std::time::Duration;

use sqlx::migrate::MigrateError;

use crate::Class;
use crate::scrub::scrub;

/// PostgreSQL ended a statement: because of `statement_timeout`, or because somebody cancelled it.
const QUERY_CANCELED: &str = "57014";
const FOREIGN_KEY_VIOLATION: &str = "23503";
const UNIQUE_VIOLATION: &str = "23505";
/// A lock was not free within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// The server is a standby, or was told to take no writes.
const READ_ONLY: &str = "25006";

/// Why the store did not do what it was asked. Nothing was committed, unless the text says that it is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StoreError {
    /// Whose fault it is.
    pub class: Class,
    /// The server's code, if it was the server that refused.
    pub sqlstate: Option<String>,
    /// What happened, without any value of a row: may be logged and kept with a dead letter.
    pub text: String,
}

impl StoreError {
    /// Whether a statement was ended by its timeout. If it repeats while [`ping`](crate::Store::ping) succeeds, the
    /// batch may be to blame.
    pub fn is_timeout(&self) -> bool {
        self.sqlstate.as_deref() == Some(QUERY_CANCELED)
    }

    pub(crate) fn is_foreign_key(&self) -> bool {
        self.sqlstate.as_deref() == Some(FOREIGN_KEY_VIOLATION)
    }

    /// Somebody else has the key.
    pub(crate) fn is_taken(&self) -> bool {
        self.sqlstate.as_deref() == Some(UNIQUE_VIOLATION)
    }

    /// Somebody else held a lock for too long.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.sqlstate.as_deref() == Some(LOCK_NOT_AVAILABLE)
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.sqlstate.as_deref() == Some(READ_ONLY)
    }

    pub(crate) fn new(class: Class, text: impl Into<String>) -> Self {
        Self { class, sqlstate: None, text: text.into() }
    }

    /// A row that was there a statement ago is gone: somebody deleted it, and the next try will not find it.
    pub(crate) fn vanished(what: &str) -> Self {
        Self::new(Class::Dependency, format!("{what} was deleted while the batch was stored"))
    }

    pub(crate) fn no_answer(after: Duration) -> Self {
        Self::new(
            Class::Dependency,
            format!("no answer from postgresql within {after:?}; whether it did what it was asked is unknown"),
        )
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => Self::of_server(&*error),
            sqlx::Error::Migrate(error) => Self::from(*error),
            // The pool tries again by itself while the server is starting or has no connection left, and then says only
            // that it took too long.
            sqlx::Error::PoolTimedOut => Self::new(
                Class::Dependency,
                "no connection became free in time, or the server takes no more (max_connections, the limit of a role or \
                 a database, a start that takes long)",
            ),
            other => match way_out(&other) {
                Some(way_out) => {
                    Self::new(Class::Deployment, format!("PostgreSQL cannot be trusted: {other}; {way_out}"))
                }
                None => Self::new(class_of_client(&other), scrub("", &other.to_string())),
            },
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => Self::from(error),
            MigrateError::ExecuteMigration(error, version) => {
                let error = Self::from(error);
                Self { text: format!("migration {version}: {}", error.text), ..error }
            }
            other => Self::new(Class::Deployment, other.to_string()),
        }
    }
}

impl StoreError {
    fn of_server(error: &dyn sqlx::error::DatabaseError) -> Self {
        let sqlstate = error.code().unwrap_or_default().into_owned();
        Self {
            class: Class::of_sqlstate(&sqlstate, error.message()),
            text: scrub(&sqlstate, error.message()),
            sqlstate: Some(sqlstate),
        }
    }
}

/// What to do about a server that we do not believe, or that does not believe us: no waiting cures it.
fn way_out(error: &sqlx::Error) -> Option<&'static str> {
    use rustls::{CertificateError as C, Error as E};
    match error {
        sqlx::Error::Tls(_) => Some("set ssl = on at the server, or another sslmode in the URL"),
        sqlx::Error::Io(error) => match error.get_ref()?.downcast_ref()? {
            E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
                Some("use a host name in the URL that the server's certificate holds")
            }
            E::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => Some("the server needs a new certificate"),
            E::InvalidCertificate(_) => Some("name the file with its authority's certificate: sslrootcert in the URL"),
            E::AlertReceived(_) => {
                Some("see the server's log for what it misses: sslcert and sslkey in the URL, maybe")
            }
            _ => None,
        },
        _ => None,
    }
}

/// Judges what went wrong on our side of the wire. An answer that we cannot read means another schema than ours.
fn class_of_client(error: &sqlx::Error) -> Class {
    use sqlx::Error as E;
    match error {
        E::Io(_) | E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::BeginFailed => {
            Class::Dependency
        }
        E::Encode(_) => Class::Batch,
        _ => Class::Deployment,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error as IoError, ErrorKind};

    use rustls::CertificateError;

    use super::*;

    fn handshake(error: rustls::Error) -> sqlx::Error {
        sqlx::Error::Io(IoError::new(ErrorKind::InvalidData, error))
    }

    #[test]
    fn failures_on_our_side_of_the_wire_have_a_class() {
        let reset = IoError::from(ErrorKind::ConnectionReset);
        for (error, class) in [
            (sqlx::Error::Io(reset), Class::Dependency),
            (sqlx::Error::Tls("server does not support TLS".into()), Class::Deployment),
            (handshake(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), Class::Deployment),
            (handshake(rustls::Error::DecryptError), Class::Dependency),
            (sqlx::Error::PoolTimedOut, Class::Dependency),
            (sqlx::Error::PoolClosed, Class::Dependency),
            (sqlx::Error::Protocol("unexpected message".into()), Class::Dependency),
            (sqlx::Error::Encode("too long".into()), Class::Batch),
            (sqlx::Error::Configuration("bad url".into()), Class::Deployment),
            (sqlx::Error::ColumnNotFound("phone".into()), Class::Deployment),
            (sqlx::Error::from(MigrateError::VersionMissing(7)), Class::Deployment),
        ] {
            let text = error.to_string();
            assert_eq!(StoreError::from(error).class, class, "{text}");
        }
    }

    #[test]
    fn only_an_ended_statement_is_a_timeout() {
        let ended = StoreError { sqlstate: Some("57014".into()), ..StoreError::vanished("it") };
        assert!(ended.is_timeout());
        assert!(!StoreError::from(sqlx::Error::PoolTimedOut).is_timeout());
    }
}
