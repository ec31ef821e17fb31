//! Real servers, folders that go away, and faults on purpose, for tests and benches.
//!
//! Everything here panics with a reason where other code would return an error. Whatever a test starts is gone soon
//! after its process has ended, even if that was killed by SIGKILL.

#[cfg(feature = "certificates")]
mod certificates;
mod cleaner;
mod clock;
mod clustered;
mod disk;
#[cfg(feature = "certificates")]
mod proxies;
mod replicated;
mod scratch;
mod servers;
mod trap;
mod wait;

#[cfg(feature = "certificates")]
pub use certificates::{Authority, Issued};
pub use clock::Clock;
pub use clustered::{Clustered, ClusteredRedis};
pub use disk::{TestDisk, small_disk};
#[cfg(feature = "certificates")]
pub use proxies::{Behind, TestProxy, program};
pub use replicated::{Replicated, ReplicatedRedis};
pub use scratch::{Scratch, scratch};
pub use servers::{
    SharedPostgres, TestPostgres, TestRedis, own_postgres, postgres, postgres_with, redis, redis_by, redis_from,
    redis_with, unique_name,
};
pub use trap::Trap;
pub use wait::eventually;
