//! The filters of `weir dlq`, and exported letters.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weir::fuzzing::filter(data);
});
