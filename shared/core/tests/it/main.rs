//! The queue protocol against real Redis servers.

mod balance;
mod clocks;
mod cluster;
mod consume;
mod enqueue;
mod epochs;
mod failover;
mod fsync;
mod leases;
mod letters;
mod memory;
mod outages;
mod profile_cache;
mod promises;
mod storage;
mod support;
mod tls;
mod versions;
