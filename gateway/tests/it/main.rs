//! The gateway against real Redis servers, over real sockets.

mod support;

mod answers;
mod batches;
mod json;
mod limits;
mod proofs;

mod commit;
mod connections;
mod outages;
mod settings;
mod snapshots;
mod stopping;
mod weakness;
