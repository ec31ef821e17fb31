//! TLS in front of HTTP: certificate and key from two files, which are looked at again and again while it runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use weir_core::shutdown::Shutdown;

use crate::config::TlsFiles;
use crate::deadline::Watched;
use crate::server::PREFACE;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The names of HTTP/2 and HTTP/1.1 in the handshake.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Why a certificate cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} = {}: {reason}", .file.display())]
pub struct TlsError {
    setting: &'static str,
    file: PathBuf,
    reason: String,
}

/// What new connections are greeted with.
pub(crate) struct Tls {
    files: TlsFiles,
    served: watch::Sender<Served>,
}

struct Served {
    /// Of what the files held.
    fingerprint: [u8; 32],
    config: Arc<ServerConfig>,
}

/// A connection after its handshake.
pub(crate) enum Greeted {
    Http1(Box<TlsStream<TcpStream>>),
    /// Its preface was read.
    Http2(Box<TlsStream<TcpStream>>),
}

impl Watched for Box<TlsStream<TcpStream>> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, session) = self.get_ref();
        // Bytes that were deciphered are no longer in the socket; with none of them there, it wants more.
        if session.wants_read() { socket.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }
}

/// Whether these files can be served.
///
/// # Errors
/// The error names the file, what is wrong with it, and the way out.
pub fn check(files: &TlsFiles) -> Result<(), TlsError> {
    Served::load(files).map(|_| ())
}

impl Tls {
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), served: watch::Sender::new(Served::load(files)?) })
    }

    /// Shakes hands. The deadline covers the first bytes of an HTTP/2 connection too: hyper has none for them.
    pub(crate) async fn greet(&self, stream: TcpStream, by: Instant) -> io::Result<Greeted> {
        let config = self.served.borrow().config.clone();
        let greet = async {
            let mut stream = Box::new(TlsAcceptor::from(config).accept(stream).await?);
            if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
                return Ok(Greeted::Http1(stream));
            }
            let mut first = [0; PREFACE.len()];
            stream.read_exact(&mut first).await?;
            if first == PREFACE { Ok(Greeted::Http2(stream)) } else { Err(io::ErrorKind::InvalidData.into()) }
        };
        tokio::time::timeout_at(by, greet).await?
    }

    /// Takes over what the files hold whenever they change, until `shutdown`. What cannot be served changes nothing.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: Shutdown) {
        let stale = metrics::gauge!("weir_tls_certificate_stale");
        let mut trouble = Trouble::default();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let error = self.look().await.err();
            stale.set(if error.is_some() { 1.0 } else { 0.0 });
            if let Some(error) = trouble.after_look(error) {
                tracing::error!(%error, "the new certificate cannot be served; the one before it stays in service");
            }
        }
    }

    async fn look(&self) -> Result<(), TlsError> {
        let files = self.files.clone();
        let looking = tokio::task::spawn_blocking(move || Pair::read(&files));
        let Ok(pair) = looking.await else { return Ok(()) };
        let pair = pair?;
        if self.served.borrow().fingerprint == pair.fingerprint() {
            return Ok(());
        }
        self.served.send_replace(Served::new(&self.files, &pair)?);
        tracing::info!(certificate = %self.files.certificate.display(), "new connections get the new certificate");
        Ok(())
    }
}

/// A preface that was read, in front of what follows.
pub(crate) fn with_preface(stream: Box<TlsStream<TcpStream>>) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let (read, write) = tokio::io::split(stream);
    tokio::io::join(PREFACE.chain(read), write)
}

/// What is wrong with the files, and whether it was told.
#[derive(Default)]
struct Trouble {
    now: Option<TlsError>,
    told: bool,
}

impl Trouble {
    /// What to tell after a look: an error once, and only when it is there twice in a row. A pair that is being
    /// replaced is half old and half new for a moment.
    fn after_look(&mut self, found: Option<TlsError>) -> Option<TlsError> {
        if self.now != found {
            *self = Self { now: found, told: false };
            return None;
        }
        if std::mem::replace(&mut self.told, true) { None } else { self.now.clone() }
    }
}

/// What the files hold.
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |error: fn(&TlsFiles, String) -> TlsError, file: &Path| {
            std::fs::read(file).map_err(|cause| {
                error(files, format!("it cannot be read: {cause}; correct the path, or let this user read it"))
            })
        };
        Ok(Self { certificate: read(in_certificate, &files.certificate)?, key: read(in_key, &files.key)? })
    }

    fn fingerprint(&self) -> [u8; 32] {
        let border = (self.certificate.len() as u64).to_be_bytes();
        Sha256::new().chain_update(border).chain_update(&self.certificate).chain_update(&self.key).finalize().into()
    }
}

impl Served {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Self::new(files, &Pair::read(files)?)
    }

    fn new(files: &TlsFiles, pair: &Pair) -> Result<Self, TlsError> {
        let chain = chain(files, &pair.certificate)?;
        let key = key(files, &pair.key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| in_certificate(files, error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| misfit(files, &error))?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Self { fingerprint: pair.fingerprint(), config: Arc::new(config) })
    }
}

fn chain(files: &TlsFiles, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| {
        in_certificate(
            files,
            format!("{reason}; write the server's certificate in PEM, and behind it those that lead to its authority"),
        )
    };
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("its PEM is broken ({error})")))?;
    if chain.is_empty() { Err(wrong("it holds no certificate".into())) } else { Ok(chain) }
}

fn key(files: &TlsFiles, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let reason = match error {
            pem::Error::NoItemsFound => "it holds no private key".to_owned(),
            error => format!("its PEM is broken ({error})"),
        };
        in_key(files, format!("{reason}; write the key in PEM, without a passphrase"))
    })
}

/// Why certificate and key cannot be used, though each is what it says.
fn misfit(files: &TlsFiles, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => in_key(
            files,
            format!("it is not the key of {}; give the two that were made together", files.certificate.display()),
        ),
        rustls::Error::InvalidCertificate(_) => {
            in_certificate(files, format!("it cannot be used ({error}); have it issued again"))
        }
        _ => in_key(
            files,
            format!("it cannot be used ({error}); use a key for ECDSA, Ed25519 or RSA of 2048 bits or more"),
        ),
    }
}

fn in_certificate(files: &TlsFiles, reason: String) -> TlsError {
    TlsError { setting: "tls.certificate", file: files.certificate.clone(), reason }
}

fn in_key(files: &TlsFiles, reason: String) -> TlsError {
    TlsError { setting: "tls.key", file: files.key.clone(), reason }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::pin::Pin;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::{AsyncWriteExt as _, ReadBuf};
    use tokio::net::TcpListener;
    use weir_stack::testing::{Authority, Issued, Scratch, scratch};

    use super::*;

    fn issue() -> Issued {
        Authority::new("Weir's tests").issue(&["localhost"])
    }

    fn files(folder: &Scratch, issued: &Issued) -> TlsFiles {
        let (certificate, key) = issued.write(folder.path());
        TlsFiles { certificate, key }
    }

    #[track_caller]
    fn refused(files: &TlsFiles, parts: &[&str]) {
        let text = check(files).unwrap_err().to_string();
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    #[test]
    fn a_mistake_names_the_file_the_reason_and_the_way_out() {
        let folder = scratch();
        let (good, other) = (issue(), issue());
        let files = files(&folder, &good);
        check(&files).unwrap();
        let certificate = format!("tls.certificate = {}", files.certificate.display());
        let key = format!("tls.key = {}", files.key.display());

        fs::write(&files.key, &other.key).unwrap();
        refused(&files, &[&key, "not the key of", "certificate.pem", "made together"]);
        fs::write(&files.key, &good.certificate).unwrap();
        refused(&files, &[&key, "no private key", "without a passphrase"]);
        fs::write(&files.key, "-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----\n").unwrap();
        refused(&files, &[&key, "PEM is broken"]);
        fs::remove_file(&files.key).unwrap();
        refused(&files, &[&key, "cannot be read", "No such file", "correct the path"]);

        fs::write(&files.key, &good.key).unwrap();
        fs::write(&files.certificate, &good.key).unwrap();
        refused(&files, &[&certificate, "no certificate", "write the server's certificate"]);
        fs::write(&files.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        refused(&files, &[&certificate, "cannot be used", "issued again"]);
    }

    #[tokio::test]
    async fn what_cannot_be_served_leaves_the_certificate_before_it_in_service() {
        let folder = scratch();
        let (first, second) = (issue(), issue());
        let tls = Tls::load(&files(&folder, &first)).unwrap();
        let served = || tls.served.borrow().fingerprint;
        let before = served();
        tls.look().await.unwrap();
        assert_eq!(served(), before, "nothing has changed");
        // Half of the new pair, first nothing of it, then its certificate alone.
        for half in ["", &second.certificate] {
            fs::write(&tls.files.certificate, half).unwrap();
            tls.look().await.unwrap_err();
            assert_eq!(served(), before, "{half:?}");
        }
        fs::write(&tls.files.key, &second.key).unwrap();
        tls.look().await.unwrap();
        assert_ne!(served(), before);
    }

    #[tokio::test]
    async fn a_request_that_came_with_the_end_of_the_handshake_is_seen() {
        let (folder, authority) = (scratch(), Authority::new("Weir's tests"));
        let (certificate, key) = authority.issue(&["localhost"]).write(folder.path());
        let tls = Tls::load(&TlsFiles { certificate, key }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        let talking = talk(&authority, &mut socket);
        let greeting = tls.greet(server, Instant::now() + Duration::from_secs(60));
        let (Ok(Greeted::Http1(mut stream)), ()) = tokio::join!(greeting, talking) else { panic!("no HTTP/1.1") };
        let readable = poll_fn(|cx| stream.poll_readable(cx));
        tokio::time::timeout(Duration::from_secs(60), readable).await.expect("bytes").unwrap();
        let mut bytes = [0; 64];
        assert_eq!(stream.read(&mut bytes).await.unwrap(), 3);
        let nothing = poll_fn(|cx| {
            let read = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut bytes)).is_pending();
            Poll::Ready(read && stream.poll_readable(cx).is_pending())
        });
        assert!(nothing.await);
    }

    /// A client that sends the beginning of a request together with the last of its handshake.
    async fn talk(authority: &Authority, socket: &mut TcpStream) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let (mut flight, mut buffer) = (Vec::new(), [0; 8192]);
        while client.is_handshaking() {
            client.write_tls(&mut flight).unwrap();
            socket.write_all(&flight).await.unwrap();
            flight.clear();
            let n = socket.read(&mut buffer).await.unwrap();
            let mut bytes = &buffer[..n];
            while !bytes.is_empty() {
                client.read_tls(&mut bytes).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        client.writer().write_all(b"GET").unwrap();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        socket.write_all(&flight).await.unwrap();
    }

    #[test]
    fn an_error_is_told_once_and_only_when_it_stays() {
        let error = |reason: &str| Some(TlsError { setting: "tls.key", file: "k".into(), reason: reason.into() });
        let mut trouble = Trouble::default();
        let mut told = |found| trouble.after_look(found);
        assert_eq!(told(None), None);
        assert_eq!(told(error("half written")), None);
        assert_eq!(told(None), None);
        assert_eq!((told(error("a")), told(error("a")), told(error("a"))), (None, error("a"), None));
        assert_eq!((told(error("b")), told(error("b"))), (None, error("b")));
        assert_eq!((told(None), told(None)), (None, None));
    }
}
