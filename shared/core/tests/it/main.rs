//! The queue protocol against real Redis servers.

mod support;
mod tls;

mod enqueue;
mod epochs;

mod consume;
mod leases;
mod letters;

mod balance;

mod failover;
mod fsync;
mod memory;
mod outages;
mod promises;
