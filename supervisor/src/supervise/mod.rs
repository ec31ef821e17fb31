//! What `weir up` does: private servers, the gateways and the workers as processes, watched and stopped in order.
//!
//! [`role`] is what every role's process does about its ops listener. [`servers`] keeps Redis and PostgreSQL running,
//! [`process`] one process of the fleet, [`crew`] all of one role, [`fleet`] the right number of them, [`roll`] replaces
//! them one by one, [`board`] knows the state of all, [`scrape`] gathers their metrics and health, [`logs`] keeps their
//! logs short, [`live`] prints the line that changes; [`beside`] is the API in a gateway's process, [`development`]
//! the key to it.

pub(crate) mod beside;
pub(crate) mod board;
pub(crate) mod crew;
pub(crate) mod development;
pub(crate) mod fleet;
pub(crate) mod live;
pub(crate) mod logs;
pub(crate) mod process;
pub(crate) mod role;
pub(crate) mod roll;
pub(crate) mod scrape;
pub(crate) mod servers;
