//! The gateway against real Redis servers, over real sockets.

mod support;

mod answers;
mod batches;
mod limits;
mod proofs;

mod commit;
mod connections;
mod frames;
mod outages;
mod settings;
mod slow;
mod snapshots;
mod stopping;
mod weakness;
