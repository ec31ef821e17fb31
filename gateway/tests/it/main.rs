//! The gateway against real Redis servers, over real sockets.

mod answers;
mod batches;
mod commit;
mod connections;
mod disconnects;
mod disk;
mod edges;
mod floods;
mod frames;
mod json;
mod limits;
mod network;
mod outages;
mod panics;
mod proofs;
mod proxies;
mod refusals;
mod replica;
mod settings;
mod slow;
mod slowhttptest;
mod smuggling;
mod snapshots;
mod stopping;
mod support;
mod weakness;
