//! The worker: from the stream to the row.
//!
//! `worker` takes a lease and starts the lanes. A `lane` reads entries, `decode` makes events of them,
//! `persist` stores them in batches and bisects a batch that fails; `fate` decides what becomes of an event that
//! cannot be stored, and the lane settles or moves every entry. Beside the lanes `beat` renews the lease, `due`
//! brings retries back, `reap` takes over from workers that died, `upkeep` looks after PostgreSQL's partitions, `early` after
//! changes that came before their message, `profiles` after the cache, `tallies` copies counts out of Redis, and `compact` keeps
//! them few.

pub mod config;
pub mod worker;

mod lane;

mod decode;

mod persist;

mod profiles;

pub mod fate;

mod beat;

mod due;

mod reap;

mod upkeep;

mod early;

mod tallies;

mod compact;

#[cfg(fuzzing)]
pub mod fuzzing;

mod state;

pub use config::WorkerConfig;
pub use worker::{Worker, build, check_schema};
