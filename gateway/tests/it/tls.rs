//! The same gateway over TLS.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_core::queue::Queue;
use weir_core::secret::SecretUrl;
use weir_stack::testing::{Authority, Issued, Scratch, eventually, scratch};

use crate::support::{House, SOON, UNLIMITED, WEBHOOK, head, message, read_config};

/// A house whose gateway speaks TLS.
struct Locked {
    house: House,
    authority: Authority,
    certificate: PathBuf,
    key: PathBuf,
    _folder: Scratch,
}

impl Locked {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(flags: &[(&str, &str)]) -> Self {
        let (authority, folder) = (Authority::new("Weir's tests"), scratch());
        let (certificate, key) = authority.issue(&["localhost"]).write(folder.path());
        let files = [("tls.certificate", certificate.to_str().unwrap()), ("tls.key", key.to_str().unwrap())];
        let flags: Vec<_> = files.iter().chain(flags).copied().collect();
        Self { house: House::with(UNLIMITED, &flags).await, authority, certificate, key, _folder: folder }
    }

    async fn shake(&self, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate().as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.house.gateway.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> CertificateDer<'static> {
        let stream = self.shake(&[]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    fn replace(&self, issued: &Issued) {
        fs::write(&self.certificate, &issued.certificate).unwrap();
        fs::write(&self.key, &issued.key).unwrap();
    }
}

fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()
}

/// Posts the sample over HTTP/1.1 and gives the status line.
async fn post(stream: &mut TlsStream<TcpStream>, id: &str) -> String {
    let body = message(id).to_string();
    let request = head(&format!("content-length: {}\r\n", body.len())) + &body;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
    };
    tokio::time::timeout(SOON, read).await.expect("an answer");
    String::from_utf8_lossy(&answer).lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_message_is_accepted_over_http_1() {
    let locked = Locked::new().await;
    for (id, protocols) in [("a", &["http/1.1"][..]), ("b", &[])] {
        let mut stream = locked.shake(protocols).await.unwrap();
        assert_eq!(post(&mut stream, id).await, "HTTP/1.1 202 Accepted");
        assert_eq!(post(&mut stream, id).await, "HTTP/1.1 200 OK", "the connection stays open");
    }
    assert_eq!(locked.house.entries().await.len(), 2);
}

#[tokio::test]
async fn a_message_is_accepted_over_http_2() {
    let locked = Locked::new().await;
    let stream = locked.shake(&["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for code in [202, 200] {
        let request = Request::post(format!("https://localhost{WEBHOOK}"))
            .version(Version::HTTP_2)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(message("a").to_string())))
            .unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), code);
    }
    assert_eq!(locked.house.entries().await.len(), 1);
}

#[tokio::test]
async fn plain_http_is_not_spoken_beside_it() {
    let locked = Locked::new().await;
    let mut raw = locked.house.gateway.connect().await;
    raw.write(format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(!raw.read_to_end().await.contains("HTTP/1.1"));
    let request = locked.house.gateway.client.try_send(hyper::Method::GET, WEBHOOK, &[], "").await;
    request.unwrap_err();
}

/// What a client says first that speaks `version` at most.
fn hello(version: u8) -> Vec<u8> {
    let suites: &[u8] = &[0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f];
    // Groups, points, signatures.
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, //
        0, 11, 0, 2, 1, 0, //
        0, 13, 0, 6, 0, 4, 4, 3, 8, 4,
    ];
    let mut body = vec![3, version];
    body.extend([7; 32]);
    body.extend([0, 0, suites.len() as u8]);
    body.extend(suites);
    body.extend([1, 0, 0, extensions.len() as u8]);
    body.extend(extensions);
    let mut hello = vec![22, 3, version.min(1), 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn nothing_older_than_tls_1_2_is_spoken() {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const PROTOCOL_VERSION: u8 = 70;
    let locked = Locked::new().await;
    for (minor, kind, last) in
        [(0, ALERT, PROTOCOL_VERSION), (1, ALERT, PROTOCOL_VERSION), (2, ALERT, PROTOCOL_VERSION)]
    {
        let mut raw = locked.house.gateway.connect().await;
        raw.write(hello(minor)).await;
        let mut answer = [0; 7];
        raw.0.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[0], answer[6]), (kind, last), "version 3.{minor}: {answer:?}");
    }
    let mut raw = locked.house.gateway.connect().await;
    raw.write(hello(3)).await;
    let mut answer = [0; 7];
    raw.0.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[0], HANDSHAKE, "TLS 1.2: {answer:?}");
}

#[tokio::test]
async fn who_stalls_in_the_handshake_or_after_it_is_hung_up_on() {
    let locked = Locked::with(&[("http.header_timeout", "300ms")]).await;
    let whole = hello(3);
    for beginning in [&[][..], &whole[..1], &whole[..20], &whole] {
        let mut raw = locked.house.gateway.connect().await;
        raw.write(beginning).await;
        raw.read_to_end().await;
    }
    for (protocols, beginning) in [
        (&["http/1.1"][..], ""),
        (&["http/1.1"], "GET / HT"),
        (&["h2"], ""),
        (&["h2"], "PRI * HT"),
        (&["h2"], "GET / HTTP/1.1\r\n\r\n"),
    ] {
        let mut stream = locked.shake(protocols).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{protocols:?} {beginning:?}");
        assert!(rest.is_empty(), "{protocols:?} {beginning:?}: {rest:?}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections_while_old_ones_go_on() {
    let locked = Locked::new().await;
    let mut old = locked.shake(&[]).await.unwrap();
    let (before, second, third) =
        (locked.shown().await, locked.authority.issue(&["localhost"]), locked.authority.issue(&["localhost"]));
    locked.replace(&second);
    eventually("the new certificate is served", SOON, async || locked.shown().await == der(&second)).await;
    assert_ne!(before, der(&second));
    assert_eq!(post(&mut old, "a").await, "HTTP/1.1 202 Accepted");

    // A key that is not its own, then nothing that could be served: what was served goes on.
    fs::write(&locked.certificate, &third.certificate).unwrap();
    assert_eq!(locked.shown().await, der(&second));
    fs::remove_file(&locked.certificate).unwrap();
    assert_eq!(locked.shown().await, der(&second));
    locked.replace(&third);
    eventually("the next one is served", SOON, async || locked.shown().await == der(&third)).await;
    assert_eq!(post(&mut old, "b").await, "HTTP/1.1 202 Accepted");
}

#[tokio::test]
async fn a_gateway_whose_key_is_another_ones_does_not_start() {
    let (folder, authority) = (scratch(), Authority::new("Weir's tests"));
    let (certificate, key) = authority.issue(&["localhost"]).write(folder.path());
    fs::write(&key, authority.issue(&["localhost"]).key).unwrap();
    let flags = [("tls.certificate", certificate.to_str().unwrap()), ("tls.key", key.to_str().unwrap())];
    let queue = Queue::new(&SecretUrl::new("redis://127.0.0.1:1/0"), 1).unwrap();
    let Err(error) = weir_gateway::build(read_config("", &flags).unwrap(), &queue) else { panic!("it started") };
    let text = error.to_string();
    assert!(text.contains(key.to_str().unwrap()) && text.contains("not the key of"), "{text}");
}

#[tokio::test]
async fn sslscan_finds_nothing_weak() {
    let locked = Locked::new().await;
    let address = locked.house.gateway.address.to_string();
    let scan = Command::new("sslscan").args(["--xml=-", "--no-groups", "--sni-name=localhost", &address]).output();
    let scan = scan.await.expect("sslscan runs: deploy/install-servers.sh --for-tests installs it");
    let xml = String::from_utf8_lossy(&scan.stdout);
    let all = |tag: &str| -> Vec<&str> {
        xml.lines().map(str::trim).filter(|line| line.starts_with(&format!("<{tag} "))).collect()
    };
    let on: Vec<_> = all("protocol").into_iter().filter(|line| line.contains(r#"enabled="1""#)).collect();
    assert_eq!(
        on,
        [
            r#"<protocol type="tls" version="1.2" enabled="1" />"#,
            r#"<protocol type="tls" version="1.3" enabled="1" />"#
        ],
        "{xml}"
    );
    let ciphers = all("cipher");
    assert!(ciphers.len() >= 5, "{xml}");
    for cipher in ciphers {
        assert!(cipher.contains(r#"strength="strong""#) || cipher.contains(r#"strength="acceptable""#), "{cipher}");
        assert!(cipher.contains("GCM") || cipher.contains("CHACHA20"), "{cipher}");
        assert!(cipher.contains("ECDHE") || cipher.contains(r#"cipher="TLS_"#), "{cipher}");
    }
    // Only said where OpenSSL itself was built with it.
    assert!(all("compression").iter().all(|line| line.contains(r#"supported="0""#)), "{xml}");
    assert!(
        all("renegotiation").iter().all(|line| line.contains(r#"secure="1""#) || line.contains(r#"supported="0""#)),
        "{xml}"
    );
    let bleeding = all("heartbleed");
    assert!(!bleeding.is_empty() && bleeding.iter().all(|line| line.contains(r#"vulnerable="0""#)), "{xml}");
}
