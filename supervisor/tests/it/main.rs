//! The binary as its users meet it: real processes, real Redis and PostgreSQL.

mod console;
mod deploy;
mod descriptors;
mod dlq;
mod doctor;
mod drill;
mod failover;
mod fleet;
mod http;
mod kills;
mod ledger;
mod letters;
mod message;
mod migrate;
mod privilege;
mod send;
mod status;
mod supervisord;
mod support;
mod tls;
mod up;
