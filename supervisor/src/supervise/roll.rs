//! A rolling restart: one process after the other is replaced by a new one, which is ready before the old one goes.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::supervise::crew::Seat;

/// What is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) gateways: bool,
    pub(crate) workers: bool,
}

/// Somebody's wish, as it stands in the fleet's hash: `<id> gateways workers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) id: String,
    pub(crate) roles: Roles,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.roles.gateways {
            f.write_str(" gateways")?;
        }
        if self.roles.workers {
            f.write_str(" workers")?;
        }
        Ok(())
    }
}

/// The text is no wish.
#[derive(Debug, thiserror::Error)]
#[error("no wish for a restart")]
pub(crate) struct NoWish;

impl FromStr for Wish {
    type Err = NoWish;

    fn from_str(text: &str) -> Result<Self, NoWish> {
        let mut words = text.split_whitespace();
        let id = words.next().ok_or(NoWish)?.to_owned();
        let mut roles = Roles { gateways: false, workers: false };
        for word in words {
            match word {
                "gateways" => roles.gateways = true,
                "workers" => roles.workers = true,
                _ => return Err(NoWish),
            }
        }
        Ok(Self { id, roles })
    }
}

/// How a restart goes, for who asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Of the wish.
    pub(crate) id: String,
    pub(crate) done: usize,
    pub(crate) total: usize,
    /// The place whose process is being replaced.
    pub(crate) place: Option<String>,
    /// It has ended.
    pub(crate) ended: bool,
    /// Why it ended early; what was not replaced runs on as it was.
    pub(crate) error: Option<String>,
}

/// Replaces the processes in `seats`, and stops at the first that cannot be.
pub(crate) async fn roll(id: String, seats: Vec<Seat>, progress: watch::Sender<Progress>) {
    progress.send_replace(Progress { id, total: seats.len(), ..Progress::default() });
    for seat in seats {
        progress.send_modify(|now| now.place = Some(seat.place.clone()));
        match replace(&seat).await {
            Ok(()) => progress.send_modify(|now| now.done += 1),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(place = seat.place, error, "the restart ends here: what runs stays");
                progress.send_modify(|now| now.error = Some(error));
                break;
            }
        }
    }
    progress.send_modify(|now| {
        now.place = None;
        now.ended = true;
    });
    tracing::info!(progress = ?*progress.borrow(), "restarted");
}

async fn replace(seat: &Seat) -> Result<()> {
    let (wish, told) = oneshot::channel();
    let gone = || anyhow!("{} is not there any more", seat.place);
    seat.replace.send(wish).await.map_err(|_| gone())?;
    told.await.map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_as_it_was_written() {
        for (gateways, workers) in [(true, true), (true, false), (false, true)] {
            let wish = Wish { id: "4711".into(), roles: Roles { gateways, workers } };
            assert_eq!(wish.to_string().parse::<Wish>().unwrap(), wish);
        }
        for text in ["", "4711 servers"] {
            assert!(text.parse::<Wish>().is_err(), "{text:?}");
        }
    }
}
