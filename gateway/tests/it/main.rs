//! The gateway against real Redis servers, over real sockets.

mod support;

mod answers;
mod batches;
mod limits;
mod proofs;

mod commit;
mod connections;
mod disconnects;
mod edges;
mod floods;
mod frames;
mod outages;
mod proxies;
mod settings;
mod slow;
mod slowhttptest;
mod smuggling;
mod snapshots;
mod stopping;
mod weakness;
