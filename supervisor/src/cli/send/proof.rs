//! How the sample traffic proves that it comes from its source.

use anyhow::{Result, bail};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::header::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use weir_gateway::config::{Proof as Configured, SourceConfig};

/// A source's secret, ready to be used.
#[derive(Debug)]
pub(super) enum Proof {
    None,
    Header(HeaderName, HeaderValue),
    HmacSha256(HeaderName, SecretString),
}

impl Proof {
    /// The secret given on the command line, else the one that the source is configured with here.
    pub(super) fn new(
        source: &str,
        configured: &[SourceConfig],
        secret: Option<SecretString>,
        header: Option<&str>,
    ) -> Result<Self> {
        let known = configured.iter().find(|known| known.name == source).map(|known| &known.proof);
        let (name, first, signs) = match known {
            Some(Configured::Header { header, secrets }) => (header.as_str(), secrets.first(), false),
            Some(Configured::HmacSha256 { header, secrets }) => (header.as_str(), secrets.first(), true),
            Some(Configured::None) | None => ("x-weir-secret", None, false),
        };
        let name = header.unwrap_or(name);
        let Some(secret) = secret.or_else(|| first.cloned()) else {
            if header.is_some() {
                bail!("--header {name} needs a secret: set WEIR_SEND_SECRET");
            }
            return Ok(Self::None);
        };
        let (name, value) = secret_header(name, secret.expose_secret())?;
        Ok(if signs { Self::HmacSha256(name, secret) } else { Self::Header(name, value) })
    }

    /// The header that belongs to a body.
    pub(super) fn of(&self, body: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::None => None,
            Self::Header(name, value) => Some((name.clone(), value.clone())),
            Self::HmacSha256(name, secret) => {
                let mut mac: Hmac<Sha256> = Hmac::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
                mac.update(body);
                let tag = HeaderValue::try_from(hex::encode(mac.finalize().into_bytes())).ok()?;
                Some((name.clone(), tag))
            }
        }
    }
}

/// A header of that name and value; its value is not printed.
fn secret_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let Ok(header) = HeaderName::try_from(name) else { bail!("{name} is no name of a header") };
    let Ok(mut value) = HeaderValue::try_from(value) else { bail!("the secret for {name} cannot stand in a header") };
    value.set_sensitive(true);
    Ok((header, value))
}

#[cfg(test)]
mod tests {
    use weir_gateway::config::Kind;

    use super::*;

    fn source(proof: Configured) -> [SourceConfig; 1] {
        [SourceConfig {
            name: "tg".into(),
            kind: Kind::Messenger,
            enabled: true,
            body_limit: 1 << 16,
            proof,
            per_client: None,
            rate: None,
        }]
    }

    #[test]
    fn a_configured_source_is_signed_with_its_own_secret() {
        let secrets = vec![SecretString::from("Jefe".to_owned())];
        let sources = source(Configured::HmacSha256 { header: "x-signature".into(), secrets });
        let proof = Proof::new("tg", &sources, None, None).unwrap();
        let (name, value) = proof.of(b"what do ya want for nothing?").unwrap();
        assert_eq!(name, "x-signature");
        assert_eq!(value, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_given_secret_wins_and_is_not_printed() {
        let secrets = vec![SecretString::from("configured".to_owned())];
        let sources = source(Configured::Header { header: "x-a".into(), secrets });
        let proof = Proof::new("tg", &sources, Some(SecretString::from("given-1".to_owned())), Some("x-b")).unwrap();
        assert!(!format!("{proof:?}").contains("given-1"));
        let (name, value) = proof.of(b"").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-b", &b"given-1"[..]));
    }

    #[test]
    fn a_header_without_a_secret_is_a_mistake() {
        assert!(matches!(Proof::new("x", &[], None, None), Ok(Proof::None)));
        assert!(Proof::new("x", &[], None, Some("x-h")).unwrap_err().to_string().contains("WEIR_SEND_SECRET"));
    }
}
