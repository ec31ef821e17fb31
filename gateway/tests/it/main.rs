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
mod network;
mod outages;
mod proxies;
mod refusals;
mod replica;
mod settings;
mod slow;
mod slowhttptest;
mod smuggling;
mod snapshots;
mod stopping;
mod tls;
mod weakness;
