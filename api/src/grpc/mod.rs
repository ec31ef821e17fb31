//! Profiles over gRPC, on addresses of its own: what `profiles/` answers over HTTP, and a stream of changes.
//!
//! A key comes as metadata and is judged as one in a header is. Whoever watches a profile is told by `watch`, which asks the
//! history of all watched profiles at once: an outage of PostgreSQL delays what they hear and loses none of it.

mod convert;
mod service;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use weir_core::shutdown::Shutdown;

use crate::api::App;
use proto::profile_service_server::ProfileServiceServer;
use service::Service;
pub(crate) use watch::Watches;

/// What is made of `proto/weir/profiles/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod proto {
    tonic::include_proto!("weir.profiles.v1");
}

const DEFINITIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/definitions.bin"));

/// A connection that is silent for so long is asked whether anybody is there, and has as long to answer: watchers may say
/// nothing for hours.
const ALIVE: Duration = Duration::from_secs(30);

/// Calls under way on one connection.
const STREAMS: u32 = 200;

/// An address to serve.
pub(crate) enum Door {
    /// It is ours.
    Open(TcpListener),
    /// Somebody else may still have it.
    Awaited(SocketAddr),
}

impl Door {
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Open(listener) => listener.local_addr().ok(),
            Self::Awaited(address) => Some(*address),
        }
    }

    async fn open(self) -> TcpListener {
        let address = match self {
            Self::Open(listener) => return listener,
            Self::Awaited(address) => address,
        };
        let mut is_told = false;
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(error) if is_told => tracing::debug!(%address, %error, "still no gRPC"),
                Err(error) => {
                    tracing::warn!(%address, %error, "gRPC waits for its address; grpc.listen names another");
                    is_told = true;
                }
            }
            tokio::time::sleep(BIND_EVERY).await;
        }
    }
}

/// Pause between two looks whether an address is free.
const BIND_EVERY: Duration = Duration::from_millis(500);

/// Serves calls on one address until shutdown.
pub(crate) async fn serve(app: App, door: Door, shutdown: Shutdown) {
    let Some(listener) = shutdown.run_until_cancelled(door.open()).await else { return };
    let address = listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
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
    let drain = app.config.drain;
    let served = Server::builder()
        .timeout(app.config.timeout)
        .http2_keepalive_interval(Some(ALIVE))
        .http2_keepalive_timeout(Some(ALIVE))
        .max_concurrent_streams(STREAMS)
        .add_service(health)
        .add_service(reflection)
        .add_service(draft)
        .add_service(ProfileServiceServer::new(Service::new(app)))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.clone().cancelled_owned());
    tracing::info!(address, "profiles are answered over gRPC");
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!(%error, address, "gRPC is not served any more");
        },
        () = overdue => tracing::warn!(address, "calls are cut: they did not finish in time"),
    }
}
