//! `weir api`.

use anyhow::{Context as _, Result};
use weir_core::shutdown;
use weir_store::Store;

use crate::Ending;
use crate::context::{Context, store_options};
use crate::supervise::role;

/// Run the API: profiles, employees, messages, monitoring
///
/// Any number may run; put a proxy in front that sends the paths of providers to gateways and the rest here. Redis and
/// PostgreSQL may come later: what needs them is answered with 503 until then. Callers need keys, see `weir key`. Stops on
/// SIGTERM or Ctrl-C once the requests under way are answered.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: WEIR_REDIS_URL=redis://queue/0 WEIR_DATABASE_URL=postgres://weir@db/weir weir api --set api.listen=0.0.0.0:8097"
)]
pub(crate) struct Api {}

impl Api {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let shutdown = shutdown::on_signals().context("signals cannot be handled")?;
        let queue = context.queue()?;
        let store = Store::connect_lazy(&store_options(&context.settings.database, &context.database_url()?))?;
        weir_worker::check_schema(&store).await?;
        let config = context.settings.api.clone();
        let name = config.name.clone();
        let api = weir_api::build(config, store.clone(), queue, context.profile_cache()?)?;
        let ops = role::serve_ops(context, &name, api.health(), &shutdown).await?;
        tracing::info!(addresses = ?api.addresses(), "listening");
        api.run(shutdown).await;
        store.close().await;
        ops.ended().await;
        Ok(Ending::Done)
    }
}
