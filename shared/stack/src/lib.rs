//! Starts a private redis-server and a private PostgreSQL as child processes on free loopback ports, each with its data
//! in a folder: for `weir up`, tests and benches. They are the real servers, found on the machine, never stand-ins.
//!
//! A server's life: its folder is claimed and a predecessor that still winds down is waited for (`folder`), its
//! program is found (`program`) and wrapped so that it dies with us, however we die (`tied`), and is spawned and
//! watched as a [`Process`]. [`RedisServer`] and [`PostgresServer`] write the configuration and wait until the server
//! answers, for as long as it says that it is loading or recovering.
//!
//! ```no_run
//! # async fn example() -> Result<(), weir_stack::StackError> {
//! use weir_stack::{RedisOptions, RedisServer};
//!
//! let redis = RedisServer::start(RedisOptions::new("data/redis")).await?;
//! let url = redis.url();
//! redis.stop().await;
//! # Ok(()) }
//! ```
//!
//! Linux only: it relies on `/proc`, pidfds and `setpriv` (util-linux).

mod disk;
mod erase;
mod error;
mod folder;
mod log;
mod port;
mod private;
mod process;
mod program;
mod proxy;
mod tied;

mod postgres;
mod redis;

pub mod testing;

pub use disk::SmallDisk;
pub use erase::erase;
pub use error::StackError;
pub use log::tail;
pub use port::free_port;
pub use postgres::{PostgresOptions, PostgresServer};
pub use process::Process;
pub use proxy::{Direction, FaultProxy, Faults};
pub use redis::{RedisOptions, RedisServer};
pub use rustix::process::Signal;
pub use tied::{tied_command, tied_command_with};

/// What this crate's calls return.
pub type Result<T, E = StackError> = std::result::Result<T, E>;
