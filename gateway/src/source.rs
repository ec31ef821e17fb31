//! Which source a path belongs to.

use std::sync::Arc;

use crate::config::{GatewayConfig, Kind, MAX, MESSENGER, Proof, SourceConfig};
use crate::limit::Limiter;
use crate::verify::Verifier;

/// A configured source, ready to judge requests.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) enabled: bool,
    pub(crate) body_limit: u64,
    pub(crate) verifier: Verifier,
    pub(crate) limiter: Limiter,
}

/// Where a path leads.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) source: Arc<Source>,
    /// The path takes an array of messages.
    pub(crate) batch: bool,
}

/// All sources.
pub(crate) struct Sources(Vec<Arc<Source>>);

impl Sources {
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        for source in &config.sources {
            tracing::info!(source = source.name, enabled = source.enabled, "source");
            if source.kind == Kind::Max && source.enabled && matches!(source.proof, Proof::None) {
                tracing::warn!(
                    "anybody may send to /webhook/max: set max.secret (WEBHOOK_SECRET) to the secret of the subscription"
                );
            }
        }
        Self(config.sources.iter().map(|source| Arc::new(Source::new(source))).collect())
    }

    /// Finds `/api/v1/webhook`, `/in/{source}` and either with `/batch` behind it; and `/webhook/max`, whose updates come
    /// together in a form of their own.
    pub(crate) fn route(&self, path: &str) -> Option<Route> {
        if path == "/webhook/max" {
            return self.named(MAX).map(|source| Route { source, batch: false });
        }
        let (path, batch) = match path.strip_suffix("/batch") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let name = if path == "/api/v1/webhook" { MESSENGER } else { path.strip_prefix("/in/")? };
        let source = self.named(name).filter(|source| !batch || source.kind == Kind::Messenger)?;
        Some(Route { source, batch })
    }

    fn named(&self, name: &str) -> Option<Arc<Source>> {
        self.0.iter().find(|source| source.name == name).cloned()
    }
}

impl Source {
    fn new(config: &SourceConfig) -> Self {
        Self {
            name: config.name.clone(),
            kind: config.kind,
            enabled: config.enabled,
            body_limit: config.body_limit,
            verifier: Verifier::new(&config.proof),
            limiter: Limiter::new(config.rate, config.per_client),
        }
    }
}
