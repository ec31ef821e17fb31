//! An entry of a stream, whatever is in it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weir_worker::fuzzing::entry(data);
});
