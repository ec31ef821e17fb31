//! What every command starts from: the settings, and the servers that they or a running `weir up` name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use weir_api::ApiConfig;
use weir_core::config::{DatabaseConfig, Reader, RedisConfig};
use weir_core::profile_cache::{ProfileCache, ProfileCacheConfig};
use weir_core::queue::{Queue, Roots};
use weir_core::secret::SecretUrl;
use weir_core::telemetry::LogConfig;
use weir_gateway::GatewayConfig;
use weir_store::{Store, StoreOptions};
use weir_worker::WorkerConfig;

use crate::cli::{Global, Output};
use crate::stack_file::StackFile;

/// All settings, read at once whatever the command, so that a mistake shows with every command.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) log: LogConfig,
    pub(crate) redis: RedisConfig,
    pub(crate) database: DatabaseConfig,
    pub(crate) gateway: GatewayConfig,
    pub(crate) worker: WorkerConfig,
    pub(crate) cache: ProfileCacheConfig,
    pub(crate) api: ApiConfig,
    /// Whether `api.auth` was set, and is not merely the default.
    pub(crate) auth_is_set: bool,
    /// Where `/metrics` and the probes are; none when switched off with `ops.enabled = false`. Default 127.0.0.1:9090.
    pub(crate) ops: Option<SocketAddr>,
}

/// A command's surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    /// Data folder of `weir up`.
    pub(crate) data: PathBuf,
    /// Global flags as they were given, for processes that we start.
    pub(crate) global: Global,
}

impl Context {
    /// Reads the settings.
    pub(crate) fn new(global: &Global) -> Result<Self> {
        let mut flags = BTreeMap::new();
        for pair in &global.set {
            let Some((key, value)) = pair.split_once('=') else { bail!("--set {pair}: write KEY=VALUE") };
            flags.insert(key.trim().to_owned(), value.to_owned());
        }
        let env = Reader::environment()?;
        let named = global.config.clone().or_else(|| env.get("WEIR_CONFIG").map(PathBuf::from));
        let file = named.clone().unwrap_or_else(|| "weir.toml".into());
        let mut reader = Reader::new(flags, env, &file, named.is_some());
        let settings = Settings::read(&mut reader);
        reader.finish()?;
        Ok(Self { settings, output: global.output, data: global.data.clone(), global: global.clone() })
    }

    /// The URL of the queue's Redis: as configured, else the one that `weir up` started, else the cache's.
    pub(crate) fn redis_url(&self) -> Result<SecretUrl> {
        let config = &self.settings.redis;
        match (&config.url, StackFile::read(&self.data)?, &config.cache) {
            (Some(url), _, _) => Ok(url.clone()),
            (None, Some(stack), _) => Ok(SecretUrl::new(stack.redis.url)),
            (None, None, Some(url)) => Ok(url.clone()),
            (None, None, None) => Err(self.no_servers("WEIR_REDIS_URL")),
        }
    }

    /// The URL of the database: as configured, else the one that `weir up` started.
    pub(crate) fn database_url(&self) -> Result<SecretUrl> {
        match (&self.settings.database.url, StackFile::read(&self.data)?) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(stack)) => Ok(SecretUrl::new(stack.database.url)),
            (None, None) => Err(self.no_servers("WEIR_DATABASE_URL")),
        }
    }

    /// What gateways of these settings speak.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.settings.gateway.tls.is_some() { "https" } else { "http" }
    }

    /// The file with the certificate of the gateways: as configured, else of those that `weir up` started.
    pub(crate) fn certificate(&self, stack: Option<&StackFile>) -> Option<PathBuf> {
        let configured = self.settings.gateway.tls.as_ref().map(|files| files.certificate.clone());
        configured.or_else(|| stack?.certificate.clone())
    }

    fn no_servers(&self, variable: &str) -> anyhow::Error {
        let path = StackFile::path(&self.data);
        anyhow!("no servers are known: start them with `weir up` (it writes {}), or set {variable}", path.display())
    }

    /// The queue. Nothing is connected yet.
    pub(crate) fn queue(&self) -> Result<Queue> {
        self.queue_at(&self.redis_url()?)
    }

    /// The queue of the server at this URL.
    pub(crate) fn queue_at(&self, url: &SecretUrl) -> Result<Queue> {
        let config = &self.settings.redis;
        let roots = config.ca.as_deref().map(Roots::read).transpose()?.unwrap_or_default();
        Ok(Queue::with_roots(url, config.partitions, roots)?)
    }

    /// The cache of profiles: on its own server, else beside the queue. None if that is a Redis Cluster.
    pub(crate) fn profile_cache(&self) -> Result<Option<ProfileCache>> {
        let Settings { redis, cache, .. } = &self.settings;
        let url = redis.cache.clone().map_or_else(|| self.redis_url(), Ok)?;
        if self.queue_at(&url)?.link().is_cluster() {
            tracing::warn!(
                "profiles are not cached: the queue is on a Redis Cluster; name a server with WEIR_CACHE_URL"
            );
            return Ok(None);
        }
        let roots = redis.ca.as_deref().map(Roots::read).transpose()?.unwrap_or_default();
        Ok(Some(ProfileCache::new(&url, roots, cache.clone())?))
    }

    /// The store, connected.
    pub(crate) async fn store(&self) -> Result<Store> {
        let options = store_options(&self.settings.database, &self.database_url()?);
        Store::connect(&options).await.context("PostgreSQL cannot be used")
    }
}

/// The store's options for a database at `url`.
pub(crate) fn store_options(config: &DatabaseConfig, url: &SecretUrl) -> StoreOptions {
    StoreOptions {
        max_connections: config.connections,
        statement_timeout: config.statement_timeout,
        ..StoreOptions::new(url.expose().to_owned().into())
    }
}

impl Settings {
    fn read(reader: &mut Reader) -> Self {
        let database = DatabaseConfig::read(reader);
        let ops = reader.get("ops.listen", &[], SocketAddr::from(([127, 0, 0, 1], 9090)));
        let enabled = reader.get("ops.enabled", &[], true);
        Self {
            log: LogConfig::read(reader),
            redis: RedisConfig::read(reader),
            gateway: GatewayConfig::read(reader),
            worker: WorkerConfig::read(reader, database.clone()),
            cache: ProfileCacheConfig::read(reader),
            api: ApiConfig::read(reader),
            auth_is_set: reader.optional::<String>("api.auth", &[]).is_some(),
            database,
            ops: enabled.then_some(ops),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_shows_a_secret() {
        const SECRET: &str = "hunter2-hunter2";
        let names = ["WEIR_REDIS_URL", "WEIR_CACHE_URL", "WEIR_DATABASE_URL", "REDIS_PASSWORD"];
        let value = |name: &str| match name {
            "REDIS_PASSWORD" => SECRET.to_owned(),
            _ => format!("postgres://weir:{SECRET}@db/weir?password={SECRET}"),
        };
        let env = names.iter().map(|name| ((*name).to_owned(), value(name))).collect();
        let mut reader = Reader::new(BTreeMap::new(), env, "no-such-file".as_ref(), false);
        let settings = Settings::read(&mut reader);
        assert!(settings.redis.url.is_some() && settings.redis.cache.is_some() && settings.database.url.is_some());
        for shown in [format!("{settings:?}"), format!("{settings:#?}"), format!("{reader:?}")] {
            assert!(!shown.contains(SECRET), "{shown}");
        }
        reader.finish().unwrap();
    }
}
