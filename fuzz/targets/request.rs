//! A body as a provider sends it: one message, or a batch.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weir_gateway::fuzzing::request(data);
});
