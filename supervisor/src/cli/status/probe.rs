//! Short questions to the parts of a running system.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use weir_store::Store;

use crate::context::Context;
use crate::http::Target;
use crate::stack_file::{Role, StackFile};
use crate::supervise::scrape;

/// How long PostgreSQL may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(3);

/// The path that says whether a message could be accepted now.
const INGEST: &str = "/api/v1/webhook";

/// A gateway as it answered.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Gateway {
    /// Where messages go, or the process' name where that is not known.
    pub(crate) address: String,
    pub(crate) ready: bool,
    pub(crate) reasons: Vec<String>,
}

/// A connected store, or why there is none, soon.
pub(crate) async fn store(context: &Context) -> Result<Store> {
    let connecting = tokio::time::timeout(PATIENCE, context.store()).await;
    connecting.with_context(|| format!("PostgreSQL does not answer within {} s", PATIENCE.as_secs()))?
}

/// Every gateway that we know of: those of `weir up`, else the one that the settings describe.
pub(crate) async fn gateways(context: &Context, stack: Option<&StackFile>) -> Vec<Gateway> {
    let mut found = Vec::new();
    let certificate = context.certificate(stack);
    match stack {
        Some(stack) if stack.processes.iter().any(|role| role.role == "gateway") => {
            // Those that come or go while a gateway is replaced are nobody's trouble.
            let passing = |role: &Role| role.state == "starting" || role.state == "stopping";
            for role in stack.processes.iter().filter(|role| role.role == "gateway" && !passing(role)) {
                found.push(process(role, stack, certificate.as_deref()).await);
            }
        }
        Some(stack) => {
            for address in &stack.gateway {
                found.push(ingest(address, certificate.as_deref()).await);
            }
        }
        None => {
            for address in context.settings.gateway.listen.iter().take(1) {
                let url = format!("{}://{}", context.scheme(), reachable(*address));
                found.push(ingest(&url, certificate.as_deref()).await);
            }
        }
    }
    found
}

/// Whether the `weir up` that wrote the file still runs.
pub(crate) fn is_running(stack: &StackFile) -> bool {
    Path::new("/proc").join(stack.pid.to_string()).exists()
}

/// An address that listens everywhere is asked here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A process with an ops listener knows best; its answer holds all reasons.
async fn process(role: &Role, stack: &StackFile, certificate: Option<&Path>) -> Gateway {
    #[derive(Deserialize)]
    struct Ready {
        ready: bool,
        #[serde(default)]
        reasons: Vec<String>,
    }
    let addresses = &stack.gateway;
    let address = addresses.first().unwrap_or(&role.name).clone();
    let Some(ops) = &role.ops else {
        return match addresses.first() {
            Some(address) => ingest(address, certificate).await,
            None => Gateway { address, ready: false, reasons: vec![format!("it is {}", role.state)] },
        };
    };
    match scrape::get(ops, "/ready").await {
        Ok((_, text)) => match serde_json::from_str::<Ready>(&text) {
            Ok(Ready { ready, reasons }) => Gateway { address, ready, reasons },
            Err(_) => Gateway { address, ready: false, reasons: vec![format!("{ops} is no ops listener")] },
        },
        Err(error) => {
            Gateway { address, ready: false, reasons: vec![format!("it is {}: {ops}: {error:#}", role.state)] }
        }
    }
}

async fn ingest(address: &str, certificate: Option<&Path>) -> Gateway {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Problem {
        detail: String,
    }
    let asked = async { scrape::ask(Target::parse(address, certificate)?, INGEST).await };
    let (ready, reasons) = match asked.await {
        Ok((200, _)) => (true, Vec::new()),
        Ok((status, text)) => {
            let problem: Problem = serde_json::from_str(&text).unwrap_or_default();
            (false, vec![format!("status {status} {}", problem.detail).trim_end().to_owned()])
        }
        Err(error) => (false, vec![format!("it does not answer: {error:#}")]),
    };
    Gateway { address: address.to_owned(), ready, reasons }
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn a_gateway_that_listens_everywhere_is_asked_here() {
        let asked = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(asked("[::]:80"), "[::1]:80");
        assert_eq!(asked("10.0.0.7:80"), "10.0.0.7:80");
    }
}
