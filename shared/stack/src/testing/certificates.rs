//! Certificates for tests, made anew for each.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::TestPostgres;

/// An authority that nobody knows.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Issued {
    /// The certificate alone.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new authority; `name` is what its certificates name as their issuer.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, which clients trust, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a server with these names or addresses.
    ///
    /// # Panics
    /// If a name cannot stand in a certificate.
    pub fn issue(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names");
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("nobody", String::as_str));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

impl Issued {
    /// Writes `certificate.pem` and `key.pem` into a folder that every account can pass through, and gives their paths.
    /// Both can be read by all: the server of a test may run as another account.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        for (path, text) in [(&certificate, &self.certificate), (&key, &self.key)] {
            fs::write(path, text).expect("a file");
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("permissions");
        }
        (certificate, key)
    }
}

impl TestPostgres {
    /// Restarts it so that it speaks TLS with this certificate, in place of the one that it had.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn show(&mut self, issued: &Issued) {
        let data = self.real_dir().join("data");
        let owner = fs::metadata(&data).expect("the data");
        for (name, text) in [
            ("server.crt", issued.certificate.as_str()),
            ("server.key", issued.key.as_str()),
            ("postgresql.auto.conf", "ssl = on\n"),
        ] {
            let path = data.join(name);
            fs::write(&path, text).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
            chown(&path, Some(owner.uid()), Some(owner.gid())).expect("an owner");
        }
        self.restart().await.unwrap_or_else(|error| panic!("failed to {error}"));
    }
}
