//! The binary as its users meet it: real processes, real Redis and PostgreSQL.

mod accepted;
mod canaries;
mod console;
mod deploy;
mod dlq;
mod doctor;
mod drill;
mod fleet;
mod http;
mod kills;
mod ledger;
mod letters;
mod message;
mod migrate;
mod send;
mod status;
mod supervisord;
mod support;
mod terminal;
mod up;
