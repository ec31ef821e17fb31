//! What `weir up` does: private servers, the gateway and the workers as processes, watched and stopped in order.
//!
//! [`role`] is what every role's process does about its ops listener. [`servers`] keeps Redis and PostgreSQL running,
//! [`process`] one process of the fleet, [`fleet`] the right number of workers, [`board`] knows the state of all,
//! [`scrape`] gathers their metrics and health, [`live`] prints the line that changes.

pub(crate) mod board;
pub(crate) mod fleet;
pub(crate) mod live;
pub(crate) mod process;
pub(crate) mod role;
pub(crate) mod scrape;
pub(crate) mod servers;
