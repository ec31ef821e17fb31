//! Connections that stop speaking HTTP: what stands behind the gateway may answer 101, and has their bytes from then on.
//!
//! hyper hands a connection over only if it has the whole of it, and here it does not: a connection rests (`http1`). So who
//! answers has the end of a pipe that hyper does have whole, and the bytes of the connection are carried to and fro. An upgraded
//! connection has no deadlines here; it ends when either side ends it, or when the gateway stops.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, Version, client, server};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy_bidirectional, duplex};

use crate::fallback::{Fallback, RequestBody};
use crate::stop::Stop;

/// Bytes on their way through the pipe.
const PIPE_BYTES: usize = 64 << 10;

/// Whether a request asks for another protocol.
pub(crate) fn is_wanted(head: &Parts) -> bool {
    head.version == Version::HTTP_11 && head.headers.contains_key(UPGRADE)
}

/// Has a request answered over a pipe. If the answer is 101, [`hyper::upgrade::on`] it gives our end.
pub(crate) async fn serve(
    fallback: Arc<dyn Fallback>,
    peer: IpAddr,
    request: Request<RequestBody>,
) -> hyper::Result<Response<Incoming>> {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let service = service_fn(move |request: Request<Incoming>| {
        let answering = fallback.serve(peer, request.map(RequestBody::from));
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let serving = server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service).with_upgrades();
    tokio::spawn(async move { note(serving.await) });
    let (mut sender, asking) = client::conn::http1::handshake(TokioIo::new(ours)).await?;
    tokio::spawn(async move { note(asking.with_upgrades().await) });
    sender.send_request(request).await
}

/// Who asked has gone away, most likely.
fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "the pipe of an upgrade");
    }
}

/// Carries bytes until both sides have ended, or the gateway stops. `read` has come before everything else.
pub(crate) async fn carry(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    read: [Bytes; 2],
    upgrade: OnUpgrade,
    closing: &Stop,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let carried = async {
        let mut pipe = TokioIo::new(upgrade.await?);
        for bytes in read {
            pipe.write_all(&bytes).await?;
        }
        copy_bidirectional(&mut stream, &mut pipe).await?;
        Ok(())
    };
    closing.or(carried).await.unwrap_or(Ok(()))
}
