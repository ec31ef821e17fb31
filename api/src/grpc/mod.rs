//! Profiles over gRPC, on addresses of its own: what `profiles/` answers over HTTP, and a stream of changes.
//!
//! `door` has the addresses, `server` the connections, `wire` their bytes; `calls` knows who calls, by a key that comes as
//! metadata and is judged as one in a header is; `service` answers. Whoever watches a profile is told by `watch`, which asks the
//! history of all watched profiles at once: an outage of PostgreSQL delays what they hear and loses none of it.

mod calls;
mod convert;
mod door;
mod server;
mod service;
mod watch;
mod wire;

use tonic::service::Routes;
use weir_core::shutdown::Shutdown;

use crate::api::App;
pub(crate) use door::Door;
use proto::profile_service_server::ProfileServiceServer;
pub(crate) use server::Server;
use service::Service;
pub(crate) use watch::Watches;

/// What is made of `proto/weir/profiles/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod proto {
    tonic::include_proto!("weir.profiles.v1");
}

const DEFINITIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/definitions.bin"));

/// Largest message of those who need no key: a name.
const QUESTION: usize = 4 << 10;

/// A server of profiles, health and reflection.
pub(crate) async fn server(app: App, stop: Shutdown) -> Server {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ProfileServiceServer<Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DEFINITIONS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    const OURS: &str = "the definitions are those of the build";
    // Older clients know the draft of it alone.
    let (draft, reflection) = (reflection().build_v1alpha().expect(OURS), reflection().build_v1().expect(OURS));
    let limit = usize::try_from(app.config.body_limit).unwrap_or(usize::MAX);
    let routes = Routes::new(health.max_decoding_message_size(QUESTION))
        .add_service(reflection.max_decoding_message_size(QUESTION))
        .add_service(draft.max_decoding_message_size(QUESTION))
        .add_service(ProfileServiceServer::new(Service::new(app.clone())).max_decoding_message_size(limit))
        .prepare();
    Server::new(app, routes, stop)
}
