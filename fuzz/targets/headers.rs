//! Signatures, secrets, forwarded addresses.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weir_gateway::fuzzing::headers(data);
});
