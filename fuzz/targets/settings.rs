//! `weir.toml`, `.env` and single values.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weir_core::fuzzing::settings(data);
    weir_gateway::fuzzing::settings(data);
    weir_worker::fuzzing::settings(data);
});
