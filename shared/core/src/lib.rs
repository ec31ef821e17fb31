//! What Weir's processes agree on through Redis.
//!
//! The gateway turns a request into a [`message::Message`] and appends its envelope through [`queue`]; a worker reads
//! the entry, stores it and settles it through the same module; what cannot be stored becomes a
//! [`dead_letter::DeadLetter`]. What is known of people is cached in Redis too: [`profile_cache`]. Around that stand what
//! every role needs to run: configuration, secrets that cannot be printed, logs, metrics, the ops listener and the
//! shutdown signal.

pub mod message;

pub mod event;

pub mod trace;

pub mod queue;

pub mod journey;

pub mod dead_letter;

pub mod profile_cache;

pub mod alarm;
pub mod config;
pub mod flood;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod log;
pub mod ops;
pub mod planted;
pub mod secret;
pub mod shutdown;
pub mod telemetry;
