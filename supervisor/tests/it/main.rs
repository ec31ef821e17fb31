//! The binary as its users meet it: real processes, real Redis and PostgreSQL.

mod backlog;
mod console;
mod crashes;
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
mod logs;
mod message;
mod migrate;
mod restart;
mod send;
mod sockets;
mod status;
mod supervisord;
mod support;
mod up;
