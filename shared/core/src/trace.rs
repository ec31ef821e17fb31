//! One trace id from the request to the row: W3C `traceparent`, carried in the stream entry.

use std::fmt;
use std::str::FromStr;

/// Trace id and span id of one request, as in `00-<32 hex>-<16 hex>-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Names the whole journey; never zero.
    pub trace_id: u128,
    /// Names the caller's step; never zero.
    pub span_id: u64,
    /// The sampled flag.
    pub sampled: bool,
}

impl TraceParent {
    /// A journey that begins here.
    pub fn random() -> Self {
        Self { trace_id: rand::random::<u128>().max(1), span_id: rand::random::<u64>().max(1), sampled: true }
    }

    /// A new step of the same journey.
    pub fn child(self) -> Self {
        Self { span_id: rand::random::<u64>().max(1), ..self }
    }

    /// The trace id as logs show it: 32 hex digits.
    pub fn trace(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written for every message, so not with the many steps of `write!`.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&self.trace_id.to_be_bytes(), &mut text[3..35]);
        hex(&self.span_id.to_be_bytes(), &mut text[36..52]);
        hex(&[u8::from(self.sampled)], &mut text[53..]);
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

fn hex(bytes: &[u8], text: &mut [u8]) {
    hex::encode_to_slice(bytes, text).expect("two digits for each byte");
}

/// The text is no `traceparent`.
#[derive(Debug, thiserror::Error)]
#[error("not a traceparent")]
pub struct NoTraceParent;

fn lower_hex(text: &str, len: usize) -> Result<&str, NoTraceParent> {
    let good = text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if good { Ok(text) } else { Err(NoTraceParent) }
}

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    /// Reads version 00, and the known part of later versions, as the standard asks.
    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let mut parts = text.split('-');
        let mut next = |len| lower_hex(parts.next().unwrap_or_default(), len);
        let version = next(2)?;
        let trace_id = u128::from_str_radix(next(32)?, 16).map_err(|_| NoTraceParent)?;
        let span_id = u64::from_str_radix(next(16)?, 16).map_err(|_| NoTraceParent)?;
        let flags = u8::from_str_radix(next(2)?, 16).map_err(|_| NoTraceParent)?;
        let overlong = version == "00" && parts.next().is_some();
        if version == "ff" || trace_id == 0 || span_id == 0 || overlong {
            return Err(NoTraceParent);
        }
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_traceparent_is_read_as_it_is_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(text.parse::<TraceParent>().unwrap().to_string(), text);
        let random = TraceParent::random();
        assert_eq!(random.to_string().parse::<TraceParent>().unwrap(), random);
    }

    #[test]
    fn rubbish_is_no_traceparent() {
        for text in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(text.parse::<TraceParent>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_traceparent_is_read_as_it_is_written(trace_id in 1_u128.., span_id in 1_u64.., sampled in any::<bool>()) {
            let trace = TraceParent { trace_id, span_id, sampled };
            prop_assert_eq!(trace.to_string().parse::<TraceParent>().unwrap(), trace);
        }

        #[test]
        fn what_is_read_as_a_traceparent_names_a_trace(text in "[0-9a-f]{2}-[0-9a-fA-F+]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}(-x)?|\\PC{0,60}") {
            if let Ok(trace) = text.parse::<TraceParent>() {
                prop_assert!(trace.trace_id != 0 && trace.span_id != 0);
                prop_assert_eq!(text[3..35].to_owned(), trace.trace());
            }
        }
    }
}
