//! Settings of the API.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use weir_core::config::{ByteSize, Reader, Setting, from_str};

use crate::employees::EmployeesConfig;
use crate::monitoring::MonitoringConfig;

/// Settings of one API process.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Its name in metrics. Default `api`.
    pub name: String,
    /// Addresses to listen on. Without any it is reached through the gateway of the same process alone (`weir up`).
    /// Default 127.0.0.1:8097.
    pub listen: Vec<SocketAddr>,
    /// Whether everybody needs a key. Default `keys`.
    pub auth: Auth,
    /// Largest body of a request, and message of a call over gRPC. Default 1 MiB: a thousand items at once.
    pub body_limit: u64,
    /// Time for a whole request, its body included. Longer than PostgreSQL has for a statement. Default 15 s.
    pub timeout: Duration,
    /// How long a connection may be without the whole head of a request, and one of gRPC without a call: slow clients and idle
    /// connections. Longer than load balancers keep theirs. Default 75 s.
    pub idle_timeout: Duration,
    /// Open connections at most, and as many over gRPC; more wait. Default 1000.
    pub connections: usize,
    /// How long requests under way may take after the signal to stop. Default 10 s.
    pub drain: Duration,
    /// What is watched.
    pub monitoring: MonitoringConfig,
    /// Addresses at which profiles are answered over gRPC; none switches it off. Default 127.0.0.1:9095. `grpc.listen`.
    pub grpc: Vec<SocketAddr>,
    /// Whether those of them that are taken are waited for, and are no reason not to start: the process that this one is to
    /// replace may still have them. No setting; default false.
    pub grpc_waits: bool,
    /// A connection of gRPC that is silent for so long is asked whether anybody is there, and has as long to answer: watchers
    /// may say nothing for hours. No setting: NATs and balancers forget nothing so soon. Default 30 s.
    pub grpc_alive: Duration,
    /// Names of employees from profiles.
    pub employees: EmployeesConfig,
}

/// Who needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Everybody.
    Keys,
    /// Everybody but people on this machine, who need none as long as no proxy and no foreign web page speaks for them.
    Development,
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "keys",
            Self::Development => "development",
        })
    }
}

impl FromStr for Auth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keys" => Ok(Self::Keys),
            "development" => Ok(Self::Development),
            _ => Err("is neither keys nor development".into()),
        }
    }
}

impl Setting for Auth {
    fn read(text: &str) -> Result<Self, String> {
        from_str(text)
    }
}

impl ApiConfig {
    /// Reads the settings `api.*`, `monitoring.*`, `grpc.*` and `employees.*`.
    pub fn read(reader: &mut Reader) -> Self {
        let config = Self {
            name: reader.get("api.name", &[], "api".to_owned()),
            listen: reader.get("api.listen", &[], vec![([127, 0, 0, 1], 8097).into()]),
            auth: reader.get("api.auth", &[], Auth::Keys),
            body_limit: reader.get("api.body_limit", &[], ByteSize(1 << 20)).0,
            timeout: reader.get("api.timeout", &[], Duration::from_secs(15)),
            idle_timeout: reader.get("api.idle_timeout", &[], Duration::from_secs(75)),
            connections: reader.get("api.connections", &[], 1000),
            drain: reader.get("api.drain", &[], Duration::from_secs(10)),
            monitoring: MonitoringConfig::read(reader),
            grpc_waits: false,
            grpc_alive: Duration::from_secs(30),
            grpc: reader.get("grpc.listen", &[], vec![([127, 0, 0, 1], 9095).into()]),
            employees: EmployeesConfig::read(reader),
        };
        let zero = [
            ("api.body_limit", config.body_limit == 0),
            ("api.timeout", config.timeout.is_zero()),
            ("api.idle_timeout", config.idle_timeout.is_zero()),
            ("api.connections", config.connections == 0),
        ];
        for (key, _) in zero.into_iter().filter(|(_, is_zero)| *is_zero) {
            reader.mistake(format!("{key}: must be above 0"));
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(flags: &[(&str, &str)]) -> (ApiConfig, Result<(), String>) {
        let flags: BTreeMap<_, _> = flags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let mut reader = Reader::new(flags, BTreeMap::new(), "no-such-file".as_ref(), false);
        let config = ApiConfig::read(&mut reader);
        (config, reader.finish().map_err(|error| error.to_string()))
    }

    #[test]
    fn without_any_setting_everybody_needs_a_key_and_nobody_else_can_connect() {
        let (config, mistakes) = read(&[]);
        mistakes.unwrap();
        assert_eq!((config.auth, config.listen), (Auth::Keys, vec![([127, 0, 0, 1], 8097).into()]));
    }

    #[test]
    fn every_mistake_is_named() {
        let flags = [("api.auth", "none"), ("api.timeout", "0s"), ("api.body_limit", "0"), ("api.connections", "0")];
        let text = read(&flags).1.unwrap_err();
        for (key, _) in flags {
            assert!(text.contains(key), "{key} in {text}");
        }
    }
}
