//! The queue protocol against real Redis servers.

mod storage;
mod support;
mod versions;

mod enqueue;
mod epochs;

mod consume;
mod leases;
mod letters;

mod balance;
mod clocks;

mod failover;
mod fsync;
mod memory;
mod outages;
mod promises;
