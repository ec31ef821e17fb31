//! `weir worker`.

use anyhow::{Context as _, Result};
use weir_core::shutdown;
use weir_store::Store;

use crate::Ending;
use crate::context::{Context, store_options};
use crate::supervise::role;

/// Run a worker: from the queue to PostgreSQL
///
/// Any number may run, on any number of machines. Redis and PostgreSQL may come later: it waits. On SIGTERM, Ctrl-C or
/// `weir fleet drain` it finishes its batches, hands the rest back and ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: WEIR_REDIS_URL=redis://queue/0 WEIR_DATABASE_URL=postgres://weir@db/weir weir worker")]
pub(crate) struct Worker {}

impl Worker {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let shutdown = shutdown::on_signals().context("signals cannot be handled")?;
        let queue = context.queue()?;
        let store = Store::connect_lazy(&store_options(&context.settings.database, &context.database_url()?))?;
        weir_worker::check_schema(&store).await?;
        let worker = weir_worker::build(context.settings.worker.clone(), &queue, store.clone());
        let worker = worker.with_profile_cache(context.profile_cache()?);
        let ops = role::serve_ops(context, worker.name(), worker.health(), &shutdown).await?;
        worker.run(shutdown).await;
        store.close().await;
        ops.ended().await;
        Ok(Ending::Done)
    }
}
