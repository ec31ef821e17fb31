//! Which source a path belongs to.

use std::sync::Arc;

use crate::config::{GatewayConfig, MESSENGER, SourceConfig};
use crate::limit::Limiter;
use crate::verify::Verifier;

/// A configured source, ready to judge requests.
pub(crate) struct Source {
    pub(crate) name: String,
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
        Self(config.sources.iter().map(|source| Arc::new(Source::new(source))).collect())
    }

    /// Finds `/api/v1/webhook`, `/in/{source}` and either with `/batch` behind it.
    pub(crate) fn route(&self, path: &str) -> Option<Route> {
        let (path, batch) = match path.strip_suffix("/batch") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let name = if path == "/api/v1/webhook" { MESSENGER } else { path.strip_prefix("/in/")? };
        let source = self.0.iter().find(|source| source.name == name)?;
        Some(Route { source: source.clone(), batch })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().map(AsRef::as_ref)
    }
}

impl Source {
    fn new(config: &SourceConfig) -> Self {
        Self {
            name: config.name.clone(),
            verifier: Verifier::new(&config.proof),
            limiter: Limiter::new(config.rate, config.per_client),
        }
    }
}
