//! The binary as its users meet it: real processes, real Redis and PostgreSQL.

mod clocks;
mod console;
mod deploy;
mod descriptors;
mod dlq;
mod doctor;
mod drill;
mod failover;
mod faults;
mod fleet;
mod http;
mod kills;
mod ledger;
mod letters;
mod message;
mod migrate;
mod moments;
mod probes;
mod send;
mod status;
mod supervisord;
mod support;
mod up;
