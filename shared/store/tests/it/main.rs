//! The store against a real PostgreSQL: what a batch becomes, what it costs, and what may happen at the same time.

mod support;
mod tls;

mod alerts;
mod batches;
mod cache;
mod clients;
mod concurrency;
mod employees;
mod failures;
mod inspect;
mod lookups;
mod migrations;
mod monitoring;
mod partitions;
mod plans;
mod profiles;
mod stakes;
