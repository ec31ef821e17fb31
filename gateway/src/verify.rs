//! Whether a request comes from whom its path says.

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::HeaderMap;
use hyper::header::HeaderName;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::Proof;
use crate::rejection::Rejection;

/// Judges requests of one source. Everything that is compared with a secret is compared in constant time.
pub(crate) enum Verifier {
    None,
    Header { header: HeaderName, digests: Vec<[u8; 32]> },
    HmacSha256 { header: HeaderName, macs: Vec<Hmac<Sha256>> },
}

impl Verifier {
    pub(crate) fn new(proof: &Proof) -> Self {
        let name = |header: &String| HeaderName::try_from(header.as_str()).expect("checked with the configuration");
        match proof {
            Proof::None => Self::None,
            Proof::Header { header, secrets } => Self::Header {
                header: name(header),
                digests: secrets.iter().map(|secret| digest(bytes(secret))).collect(),
            },
            Proof::HmacSha256 { header, secrets } => {
                let mac = |secret| Hmac::new_from_slice(bytes(secret)).expect("HMAC takes keys of any length");
                Self::HmacSha256 { header: name(header), macs: secrets.iter().map(mac).collect() }
            }
        }
    }

    /// What can be said before the body is there.
    pub(crate) fn check_headers(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        match self {
            Self::None => Ok(()),
            Self::HmacSha256 { header, .. } => single(headers, header).map(|_| ()),
            Self::Header { header, digests } => {
                let given = digest(single(headers, header)?);
                let matches = digests.iter().fold(0, |found, known| found | given.ct_eq(known).unwrap_u8());
                if matches == 1 { Ok(()) } else { Err(Rejection::Unauthorized) }
            }
        }
    }

    /// What can be said of the body as it was sent.
    pub(crate) fn check_body(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Rejection> {
        let Self::HmacSha256 { header, macs } = self else { return Ok(()) };
        let tag = decode_tag(single(headers, header)?).ok_or(Rejection::Unauthorized)?;
        let good = |mac: &Hmac<Sha256>| {
            let mut mac = mac.clone();
            mac.update(body);
            mac.verify_slice(&tag).is_ok()
        };
        if macs.iter().any(good) { Ok(()) } else { Err(Rejection::Unauthorized) }
    }
}

fn bytes(secret: &SecretString) -> &[u8] {
    secret.expose_secret().as_bytes()
}

/// Secrets are compared by their digests, which have one length.
fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The header's value when it is there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        _ => Err(Rejection::Unauthorized),
    }
}

/// A tag in hex, or in base64, with or without `sha256=` in front.
fn decode_tag(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.strip_prefix(b"sha256=").unwrap_or(value);
    if value.len() == 64 { hex::decode(value).ok() } else { decode_base64(value) }
}

fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok().filter(|tag| tag.len() == 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn secrets() -> Vec<SecretString> {
        vec!["new-secret".to_owned().into(), "old-secret".to_owned().into()]
    }

    #[test]
    fn either_of_two_header_secrets_is_good_and_nothing_else() {
        let verifier = Verifier::new(&Proof::Header { header: "x-secret".into(), secrets: secrets() });
        for good in ["new-secret", "old-secret"] {
            assert!(verifier.check_headers(&headers(&[("x-secret", good)])).is_ok());
        }
        for bad in [
            &[][..],
            &[("x-secret", "")],
            &[("x-secret", "new-secre")],
            &[("x-secret", "new-secret"), ("x-secret", "new-secret")],
        ] {
            assert!(matches!(verifier.check_headers(&headers(bad)), Err(Rejection::Unauthorized)), "{bad:?}");
        }
    }

    #[test]
    fn a_signature_covers_the_bytes_as_they_were_sent() {
        let tag = "a2c0cb0ef5e7ef1d7f6ef4eb1b5d4bb8";
        let verifier = Verifier::new(&Proof::HmacSha256 { header: "x-signature".into(), secrets: secrets() });
        let mut mac: Hmac<Sha256> = Hmac::new_from_slice(b"old-secret").unwrap();
        mac.update(b"Hi There");
        let good = hex::encode(mac.finalize().into_bytes());
        let prefixed = format!("sha256={good}");
        assert!(verifier.check_body(&headers(&[("x-signature", &good)]), b"Hi There").is_ok());
        assert!(verifier.check_body(&headers(&[("x-signature", &prefixed)]), b"Hi There").is_ok());
        assert!(verifier.check_body(&headers(&[("x-signature", &good)]), b"Hi There ").is_err());
        assert!(verifier.check_body(&headers(&[("x-signature", tag)]), b"Hi There").is_err());
        assert!(verifier.check_body(&headers(&[]), b"Hi There").is_err());
    }

    proptest::proptest! {
        /// Whatever bytes a header may hold: an answer, and never a good one.
        #[test]
        fn no_header_passes_by_chance(value in "[\\t -~\u{80}-\u{ff}]{0,90}", body: Vec<u8>) {
            let value: Vec<u8> = value.chars().map(|c| c as u8).collect();
            let mut map = HeaderMap::new();
            map.insert("x-proof", hyper::header::HeaderValue::from_bytes(&value).unwrap());
            let signed = Verifier::new(&Proof::HmacSha256 { header: "x-proof".into(), secrets: secrets() });
            assert!(signed.check_headers(&map).is_ok());
            assert!(matches!(signed.check_body(&map, &body), Err(Rejection::Unauthorized)));
            let held = Verifier::new(&Proof::Header { header: "x-proof".into(), secrets: secrets() });
            assert!(matches!(held.check_headers(&map), Err(Rejection::Unauthorized)));
        }
    }

    #[test]
    fn a_tag_may_be_written_in_several_ways_and_must_be_whole() {
        use base64::Engine as _;
        let verifier = Verifier::new(&Proof::HmacSha256 { header: "x-signature".into(), secrets: secrets() });
        let mut mac: Hmac<Sha256> = Hmac::new_from_slice(b"new-secret").unwrap();
        mac.update(b"Hi There");
        let tag = mac.finalize().into_bytes();
        let check = |value: &str| verifier.check_body(&headers(&[("x-signature", value)]), b"Hi There").is_ok();
        let (hex, base64) = (hex::encode(tag), base64::engine::general_purpose::STANDARD.encode(tag));
        for good in [&hex, &hex.to_uppercase(), &base64, &format!("sha256={hex}"), &format!("sha256={base64}")] {
            assert!(check(good), "{good}");
        }
        let short = base64::engine::general_purpose::STANDARD.encode(&tag[..31]);
        for bad in [&hex[..62], &short, "", "sha256=", &format!(" {hex}"), &format!("sha256=sha256={hex}")] {
            assert!(!check(bad), "{bad}");
        }
    }

    #[test]
    fn rfc_4231_case_2_verifies() {
        let secret = vec![SecretString::from("Jefe".to_owned())];
        let verifier = Verifier::new(&Proof::HmacSha256 { header: "x-signature".into(), secrets: secret });
        let tag = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert!(verifier.check_body(&headers(&[("x-signature", tag)]), b"what do ya want for nothing?").is_ok());
    }

    fn verifier() -> Verifier {
        Verifier::new(&Proof::HmacSha256 { header: "x-signature".into(), secrets: secrets() })
    }

    fn tag(secret: &[u8], body: &[u8]) -> Vec<u8> {
        let mut mac: Hmac<Sha256> = Hmac::new_from_slice(secret).unwrap();
        mac.update(body);
        mac.finalize().into_bytes().to_vec()
    }

    fn signed(value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(value) = hyper::header::HeaderValue::from_bytes(value) {
            headers.append("x-signature", value);
        }
        headers
    }

    proptest! {
        #[test]
        fn no_header_that_was_made_up_proves_anything(value in prop::collection::vec(any::<u8>(), 0..100), body in any::<Vec<u8>>()) {
            prop_assert!(verifier().check_body(&signed(&value), &body).is_err());
            let header = Verifier::new(&Proof::Header { header: "x-signature".into(), secrets: secrets() });
            prop_assert!(header.check_headers(&signed(&value)).is_err());
        }

        #[test]
        fn a_tag_is_good_in_each_notation_and_for_its_body_alone(body in any::<Vec<u8>>(), flip in 0_usize..256) {
            use base64::Engine as _;
            let good = tag(b"new-secret", &body);
            let mut bad = good.clone();
            bad[flip / 8] ^= 1 << (flip % 8);
            for (tag, expected) in [(&good, true), (&bad, false)] {
                let base64 = base64::engine::general_purpose::STANDARD.encode(tag);
                for value in [hex::encode(tag), hex::encode_upper(tag), base64] {
                    prop_assert_eq!(verifier().check_body(&signed(value.as_bytes()), &body).is_ok(), expected);
                    let prefixed = format!("sha256={value}");
                    prop_assert_eq!(verifier().check_body(&signed(prefixed.as_bytes()), &body).is_ok(), expected);
                    let other = [&body[..], b" "].concat();
                    prop_assert!(verifier().check_body(&signed(value.as_bytes()), &other).is_err());
                }
            }
        }
    }
}
