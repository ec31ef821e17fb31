//! The worker against real Redis and PostgreSQL.

mod cluster;
mod dependencies;
mod events;
mod failures;
mod fencing;
mod outages;
mod panics;
mod persistence;
mod support;
