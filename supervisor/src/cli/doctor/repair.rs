//! What `weir doctor --fix` can do. Nothing here touches a message.

use std::fmt;

use anyhow::Result;
use weir_core::queue::QueueError;

use crate::cli::status::probe;
use crate::context::Context;

/// One repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repair {
    /// Drops a function library of another build. A process of that build would load it again by itself.
    DropLibrary(String),
    /// Makes the months that are missing.
    MakeMonths,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DropLibrary(name) => write!(f, "drop the function library {name}"),
            Self::MakeMonths => f.write_str("make the missing months of messages"),
        }
    }
}

impl Repair {
    /// Does it, and says what was done.
    pub(super) async fn run(&self, context: &Context) -> Result<String> {
        match self {
            Self::DropLibrary(name) => {
                let mut delete = redis::cmd("FUNCTION");
                delete.arg("DELETE").arg(name);
                let queue = context.queue()?;
                for node in queue.link().nodes().await? {
                    match queue.link().command_at::<redis::Value>(&node, &delete).await {
                        // Not every primary of a cluster has it.
                        Err(QueueError::Refused { text, .. }) if text.contains("Library not found") => {}
                        done => drop(done?),
                    }
                }
                Ok(format!("dropped the function library {name}"))
            }
            Self::MakeMonths => {
                let store = probe::store(context).await?;
                let made = store.ensure_partitions(context.settings.worker.months_ahead).await?;
                Ok(format!("made {}", if made.is_empty() { "no month".into() } else { made.join(", ") }))
            }
        }
    }
}
