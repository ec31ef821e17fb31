//! The gateway: from the socket to the stream, and the answer once the message is safe.
//!
//! `server` accepts connections; `ingest` shows a request's whole way in two functions: `address`,
//! `source` and `verify` say who sends, `decode` makes a message of the body or names every fault, `storable` among them
//! what PostgreSQL could not hold, `limit` says when it is too much, `writer` appends it together with all requests that
//! arrived at the same moment, `answer` and `rejection` make the answer. `guard` watches Redis beside it all and decides
//! whether the gateway may accept.
//!
//! The gateway never opens PostgreSQL.

pub mod config;
pub mod server;

mod ingest;

mod address;

mod source;

mod verify;

pub mod decode;

mod storable;

#[cfg(fuzzing)]
pub mod fuzzing;

mod limit;

mod writer;

mod answer;

mod rejection;

mod guard;

pub use config::GatewayConfig;
pub use server::{Gateway, GatewayError, build};
