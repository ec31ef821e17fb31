//! Whom we believe to be Redis over TLS.

use std::path::Path;
use std::sync::Arc;

use redis::{Client, ConnectionAddr, ConnectionInfo, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::QueueError;

/// The authorities whose certificates count: those of a file and no others, or those that browsers know.
#[derive(Clone, Default)]
pub struct Roots(Option<Arc<[u8]>>);

impl Roots {
    /// The authorities of a file in PEM. It is read once: another authority needs another start.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn read(file: &Path) -> Result<Self, QueueError> {
        let wrong = |reason: String| {
            let file = file.display();
            QueueError::Deployment(format!("redis.ca = {file}: {reason}; give the authority's certificate in PEM"))
        };
        let text = std::fs::read(file).map_err(|error| wrong(format!("it cannot be read ({error})")))?;
        let mut found = CertificateDer::pem_slice_iter(&text).peekable();
        if found.peek().is_none() {
            return Err(wrong("it holds no certificate".into()));
        }
        match found.find_map(Result::err) {
            Some(error) => Err(wrong(format!("its PEM is broken ({error})"))),
            None => Ok(Self(Some(text.into()))),
        }
    }

    /// The same server, to be believed only with a certificate of these authorities where TLS is spoken.
    pub(super) fn guard(&self, info: ConnectionInfo) -> Result<ConnectionInfo, QueueError> {
        let ConnectionAddr::TcpTls { .. } = info.addr() else { return Ok(info) };
        // The library takes the process' provider. There is one in any case where another crate asks for its features;
        // which one it is must not depend on that.
        drop(rustls::crypto::ring::default_provider().install_default());
        let Some(pem) = &self.0 else { return Ok(info) };
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
        let client = Client::build_with_tls(info, certificates).map_err(|error| QueueError::from_redis(&error))?;
        Ok(client.get_connection_info().clone())
    }
}
