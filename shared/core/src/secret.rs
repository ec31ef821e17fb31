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
        let parts = self.expose().split_once("://").filter(|(scheme, _)| is_scheme(scheme));
        let Some((scheme, rest)) = parts else { return f.write_str("***") };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, host) = authority.rsplit_once('@').map_or(("", authority), |(_, host)| ("***@", host));
        // An @ or a : behind the authority most likely belongs to a login with a / or a ? in it.
        if path.contains(['@', ':']) || !names_servers(host) {
            return write!(f, "{scheme}://***");
        }
        write!(f, "{scheme}://{login}{host}{}", path.split(['?', '#']).next().unwrap_or_default())
    }
}

/// Whether this is the name of a scheme. Anything else may be a login: a `://` can also stand far behind it.
fn is_scheme(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
}

/// Whether this is one server or several: a name or an address, with a port or without. Anything else may be a login
/// whose server was forgotten.
fn names_servers(hosts: &str) -> bool {
    hosts.split(',').all(|host| {
        let end = host.rfind(']').map_or(0, |end| end + 1);
        let (name, port) = match host[end..].find(':') {
            Some(colon) => (&host[..end + colon], &host[end + colon + 1..]),
            None => (host, ""),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-%[]:".contains(c);
        name.chars().all(plain) && port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            ("rediss-cluster://u:hunter2@a:7000,b:7001/", "rediss-cluster://***@a:7000,b:7001/"),
            ("redis+sentinel://a,b/mymaster?sentinel_password=hunter2", "redis+sentinel://a,b/mymaster"),
            ("postgres://weir:hunter2@[::1]:5432,db-2:5433/weir#x", "postgres://***@[::1]:5432,db-2:5433/weir"),
            ("postgres:///weir?host=/run/postgresql", "postgres:///weir"),
            // Passwords that should have been encoded, and logins without a server.
            ("redis://:hunter2/hunter2@cache/0", "redis://***"),
            ("redis://:hunter2@hunter2/hunter2@cache/0", "redis://***"),
            ("redis://:hunter2?hunter2@cache/0", "redis://***"),
            ("redis://:hunter2#hunter2@cache/0", "redis://***"),
            ("redis://:hunter2", "redis://***"),
            ("redis://weir:hunter2/0", "redis://***"),
            ("hunter2", "***"),
            ("postgres:/weir:hunter2@db/weir?next=redis://cache", "***"),
        ];
        for (url, shown) in cases {
            assert_eq!(SecretUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", SecretUrl::new(url)), shown);
        }
    }

    proptest! {
        #[test]
        fn no_password_is_printed_however_it_is_written(before in "[ -~]{0,4}", after in "[ -~]{0,4}", query in "(\\?[a-z@=]{0,9})?") {
            let url = format!("redis://:{before}hunter2-hunter2{after}@cache:6379/0{query}");
            prop_assert!(!SecretUrl::new(&url).to_string().contains("hunter2"), "{url}");
        }
    }
}
