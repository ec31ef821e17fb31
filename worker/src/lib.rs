//! The worker: from the stream to the row.
//!
//! `worker` takes a lease and starts the lanes. A `lane` reads entries, `decode` makes messages of them,
//! `persist` stores them in batches and bisects a batch that fails; `fate` decides what becomes of a message that
//! cannot be stored, and the lane settles or moves every entry. Beside the lanes `beat` renews the lease, `due`
//! brings retries back, `reap` takes over from workers that died, and `upkeep` looks after PostgreSQL's partitions.

pub mod config;
pub mod worker;

mod lane;

mod decode;

mod persist;

pub mod fate;

mod beat;

mod due;

mod reap;

mod upkeep;

#[cfg(fuzzing)]
pub mod fuzzing;

mod state;

pub use config::WorkerConfig;
pub use worker::{Worker, build, check_schema};
