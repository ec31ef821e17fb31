//! Clients that do not hurry, and connections that only stay open.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_stack::testing::Authority;

use super::wire::{Head, Http1};
use super::{Maker, Mix, Target};

/// What clients met that do not hurry.
#[derive(Default)]
pub(crate) struct Paced {
    /// Of each 2xx, in order.
    pub(crate) latencies: Vec<Duration>,
    /// Answers that were no 2xx, and connections that failed.
    pub(crate) errors: u64,
}

impl Paced {
    pub(crate) fn p99(&self) -> Duration {
        self.latencies.get(self.latencies.len() * 99 / 100).copied().unwrap_or_default()
    }
}

/// Clients that wait a while between their requests, and connect anew now and then.
pub(crate) async fn paced(address: SocketAddr, clients: usize, pause: Duration, length: Duration) -> Result<Paced> {
    let (run, end) = (rand::random(), Instant::now() + length);
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            tokio::spawn(pace(address, Maker::new(&Mix::default(), &Target::webhook(1), run, client), pause, end))
        })
        .collect();
    let mut all = Paced::default();
    for task in tasks {
        let one = task.await?;
        all.latencies.extend(one.latencies);
        all.errors += one.errors;
    }
    all.latencies.sort_unstable();
    Ok(all)
}

async fn pace(address: SocketAddr, mut maker: Maker, pause: Duration, end: Instant) -> Paced {
    let mut found = Paced::default();
    while Instant::now() < end {
        if hundred(&mut found, address, &mut maker, pause, end).await.is_err() {
            found.errors += 1;
        }
    }
    found
}

/// A hundred requests over a new connection, whose opening counts with the first of them.
async fn hundred(
    found: &mut Paced,
    address: SocketAddr,
    maker: &mut Maker,
    pause: Duration,
    end: Instant,
) -> io::Result<()> {
    let mut started = Instant::now();
    let mut connection = Http1::connect(address).await?;
    for _ in 0..100 {
        maker.turn();
        match connection.exchange(maker.request()).await?.status {
            200..300 => found.latencies.push(started.elapsed()),
            _ => found.errors += 1,
        }
        tokio::time::sleep(pause).await;
        started = Instant::now();
        if started >= end {
            break;
        }
    }
    Ok(())
}

/// Reads one answer with a Content-Length; gives its length.
pub(crate) async fn read_whole(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += n;
        if Head::read(&buffer[..filled])?.is_some_and(|head| filled >= head.body_from + head.length) {
            return Ok(filled);
        }
    }
}

/// Connections that only stay open, after one request each.
pub(crate) async fn idle(address: SocketAddr, connections: usize) -> Result<Vec<Http1>> {
    let mut open = Vec::with_capacity(connections);
    let mut maker = Maker::new(&Mix::default(), &Target::webhook(1), rand::random(), 0);
    for _ in 0..connections {
        let mut connection = Http1::connect(address).await?;
        maker.turn();
        connection.exchange(maker.request()).await?;
        open.push(connection);
    }
    Ok(open)
}

/// The same over TLS.
pub(crate) async fn idle_over_tls(
    address: SocketAddr,
    authority: &Authority,
    connections: usize,
) -> Result<Vec<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes())?)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // Each is a client of its own, which the gateway has not seen before.
    config.resumption = Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    let mut open = Vec::with_capacity(connections);
    let mut maker = Maker::new(&Mix::default(), &Target::webhook(1), rand::random(), 0);
    let mut buffer = [0; 2048];
    for _ in 0..connections {
        let name = ServerName::try_from("localhost")?;
        let mut stream = connector.connect(name, TcpStream::connect(address).await?).await?;
        maker.turn();
        stream.write_all(maker.request()).await?;
        read_whole(&mut stream, &mut buffer).await?;
        open.push(stream);
    }
    Ok(open)
}

/// Connections that say nothing at all.
pub(crate) async fn silent(address: SocketAddr, connections: usize) -> Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(TcpStream::connect(address).await?);
    }
    Ok(open)
}

/// Whether a message is accepted right now.
pub(crate) async fn accepts(address: SocketAddr) -> bool {
    let mut maker = Maker::new(&Mix::default(), &Target::webhook(1), rand::random(), 0);
    maker.turn();
    let answer = async { Http1::connect(address).await?.exchange(maker.request()).await };
    answer.await.is_ok_and(|answer| (200..300).contains(&answer.status))
}
