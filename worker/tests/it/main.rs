//! The worker against real Redis and PostgreSQL.

mod failures;
mod fencing;
mod outages;
mod persistence;
mod support;
