//! Things that must not be printed.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A URL that may carry a password; it prints as `scheme://***@host/path`.
#[derive(Clone)]
pub struct SecretUrl(SecretString);

impl SecretUrl {
    /// Wraps a URL; nothing is checked.
    pub fn new(url: impl Into<String>) -> Self {
        Self(SecretString::from(url.into()))
    }

    /// Whether it asks for TLS, as `rediss://` does.
    pub fn is_tls(&self) -> bool {
        self.expose().split_once("://").is_some_and(|(scheme, _)| scheme.starts_with("rediss"))
    }

    /// The URL with its password, for the client that connects.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.expose();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        // A password may hold anything, also where it ought to be percent-encoded. Queries can have one too.
        let (place, query) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
        match (place.rsplit_once('@'), query.contains('@')) {
            (Some((_, host)), _) => write!(f, "{scheme}://***@{host}"),
            (None, false) => write!(f, "{scheme}://{place}"),
            (None, true) => write!(f, "{scheme}://***"),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_without_its_password() {
        let cases = [
            ("redis://:hunter2@127.0.0.1:6379/0", "redis://***@127.0.0.1:6379/0"),
            ("postgres://weir:p@ss@db/weir?password=hunter2", "postgres://***@db/weir"),
            ("redis://127.0.0.1/", "redis://127.0.0.1/"),
            (
                "redis+sentinel://u:hunter2@a:26379,b:26379/mymaster/0?sentinel_password=hunter2",
                "redis+sentinel://***@a:26379,b:26379/mymaster/0",
            ),
            ("redis+sentinel://a,b/mymaster?sentinel_password=hunter2", "redis+sentinel://a,b/mymaster"),
            ("redis://:hun/ter2@host/0", "redis://***@host/0"),
            ("redis://:hun?ter2@host/0", "redis://***"),
        ];
        for (url, shown) in cases {
            assert_eq!(SecretUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", SecretUrl::new(url)), shown);
        }
    }
}
