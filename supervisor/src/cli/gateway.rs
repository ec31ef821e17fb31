//! `weir gateway`.

use anyhow::{Context as _, Result};
use weir_core::shutdown;

use crate::Ending;
use crate::context::Context;
use crate::supervise::beside::Beside;
use crate::supervise::role;

/// Run a gateway: from webhooks to the queue
///
/// Needs Redis, which may come later: it answers 503 until then. Stops on SIGTERM or Ctrl-C once the requests under way
/// are answered. Sockets that systemd or another supervisor hands over (LISTEN_FDS) take the place of gateway.listen.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: WEIR_REDIS_URL=redis://queue:6379/0 weir gateway --set gateway.listen=0.0.0.0:8095")]
pub(crate) struct Gateway {
    /// Serve the API on the same addresses, as `weir up` does; needs PostgreSQL too
    #[arg(long)]
    with_api: bool,
}

impl Gateway {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let shutdown = shutdown::on_signals().context("signals cannot be handled")?;
        let queue = context.queue()?;
        let mut gateway = weir_gateway::build(context.settings.gateway.clone(), &queue)?;
        let beside = if self.with_api { Some(Beside::start(context).await?) } else { None };
        if let Some(beside) = &beside {
            gateway = gateway.with_fallback(beside.door());
        }
        let ops = role::serve_ops(context, &context.settings.gateway.name, gateway.health(), &shutdown).await?;
        tracing::info!(addresses = ?gateway.addresses(), durability = %context.settings.gateway.durability, "listening");
        gateway.run(shutdown).await;
        if let Some(beside) = beside {
            beside.end().await;
        }
        ops.ended().await;
        Ok(Ending::Done)
    }
}
