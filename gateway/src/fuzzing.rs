//! What the fuzz targets call: bodies, proofs, and the gateway's settings.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;
use weir_core::fuzzing::SECRET;
use weir_core::message::Message;

use crate::address::client_address;
use crate::config::{GatewayConfig, Proof};
use crate::decode::{DecodeError, decode, split};
use crate::verify::Verifier;

/// What the clock says: 2025.
const NOW: i64 = 1_760_000_000;

/// Reads a body as a message and as a batch. What is accepted can be stored: it is JSON within the limits, without NUL,
/// and survives the queue.
pub fn request(data: &[u8]) {
    message(data);
    for item in split(data).into_iter().flatten() {
        message(item.get().as_bytes());
    }
}

fn message(data: &[u8]) {
    let decoded = match decode(data, NOW) {
        Ok(decoded) => decoded,
        Err(DecodeError::Invalid(faults)) => return assert!(!faults.is_empty() && faults.len() <= 26),
        Err(DecodeError::NotAnObject(_)) => return,
    };
    let message = decoded.message("messenger", "");
    let bytes = message.encode();
    let back: Message<'_> = serde_json::from_slice(&bytes).expect("an envelope is read");
    assert_eq!(back.encode(), bytes);
    assert!(!back.message_text.contains('\0'));
    let whole: Value = serde_json::from_slice(&bytes).expect("an envelope is no deeper than parsers go");
    assert!(!holds_nul(&whole));
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Reads lines as values of the headers that carry proofs and addresses. None of them proves anything.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    let mut body: &[u8] = b"";
    for line in data.split(|byte| *byte == b'\n') {
        let Some((kind, value)) = line.split_first() else { continue };
        let name = match kind {
            b's' => "x-signature",
            b'w' => "x-weir-secret",
            b'f' => "x-forwarded-for",
            b't' => "traceparent",
            _ => {
                body = line;
                continue;
            }
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let secrets = || vec![SECRET.to_owned().into(), "another-secret".to_owned().into()];
    for (header, is_hmac) in [("x-signature", true), ("x-weir-secret", false)] {
        let header = header.to_owned();
        let proof = if is_hmac {
            Proof::HmacSha256 { header, secrets: secrets() }
        } else {
            Proof::Header { header, secrets: secrets() }
        };
        let verifier = Verifier::new(&proof);
        let proven = verifier.check_headers(&headers).is_ok() && verifier.check_body(&headers, body).is_ok();
        assert!(!proven, "a made-up proof is believed");
    }
    let trusted = ["10.0.0.0/8".parse().expect("a network"), "fd00::/8".parse().expect("a network")];
    let peer = std::net::IpAddr::from([10, 0, 0, 1]);
    assert_eq!(client_address(peer, &headers, &[]), peer);
    client_address(peer, &headers, &trusted);
}

/// Reads the gateway's settings, `[[source]]` among them. A name may be anything, also what is a secret elsewhere: what is
/// printed is for the tests of `config.rs`.
pub fn settings(data: &[u8]) {
    let mut reader = weir_core::fuzzing::reader(data);
    let config = GatewayConfig::read(&mut reader);
    // A gateway is built of settings without mistakes only.
    if reader.finish().is_ok() {
        for source in &config.sources {
            Verifier::new(&source.proof);
        }
    }
}
