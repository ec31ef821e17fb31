//! The gateway: from the socket to the stream, and the answer once the message is safe.
//!
//! `listen` has the sockets and `server` accepts connections, as many as `peers` admits of an address, with the
//! deadlines of `deadline` and, over HTTP/2, of `streams` and `weir_core::flood`; `http1` lets them rest between requests; `stop` ends
//! them; `tls` shakes hands where it is configured; `pressure` says how much fits;
//! `ingest` shows a request's whole way in two functions: `address`, `source` and `verify` say who sends, `body` reads, `decode`
//! makes a message of the body or names every fault, `storable` among them what PostgreSQL could not hold, `limit` says when it
//! is too much, `writer` appends it together with all requests that arrived at the same moment, `answer` and `rejection`
//! make the answer; `updates` is the way of MAX's events, which `max` reads, and `ignored` counts what is none; `fallback`
//! has other paths served by somebody else, who may take a connection over (`upgrade`). `guard` watches Redis beside it all
//! and decides whether the gateway may accept.
//!
//! The gateway never opens PostgreSQL.

pub mod config;
pub mod listen;
pub mod server;

mod peers;

mod deadline;

mod http1;

mod stop;

mod streams;

mod tls;

mod ingest;

mod body;

mod updates;

mod address;

mod source;

mod verify;

pub mod decode;

mod storable;

mod max;

#[cfg(fuzzing)]
pub mod fuzzing;

mod limit;

mod writer;

mod pressure;

mod answer;

mod rejection;

mod ignored;

pub mod fallback;

mod upgrade;

mod guard;

pub use config::GatewayConfig;
pub use server::{Gateway, GatewayError, build};
pub use tls::{TlsError, check as check_tls};
