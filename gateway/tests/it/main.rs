//! The gateway against real Redis servers, over real sockets.

mod support;

mod answers;
mod batches;
mod limits;
mod proofs;

mod commit;
mod connections;
mod network;
mod outages;
mod refusals;
mod replica;
mod settings;
mod snapshots;
mod stopping;
mod weakness;
