//! Addresses to serve.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

/// Pause between two looks whether an address is free.
const BIND_EVERY: Duration = Duration::from_millis(500);

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

    pub(super) async fn open(self) -> TcpListener {
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
