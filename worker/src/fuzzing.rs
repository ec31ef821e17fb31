//! What the fuzz targets call: entries of a stream, and the worker's settings.

use std::time::Duration;

use weir_core::config::DatabaseConfig;

use crate::WorkerConfig;
use crate::decode::{Decoded, decode, letter};
use crate::fate::{Failure, Fate, decide};

/// Reads an entry as a worker does, and makes a letter of it.
pub fn entry(data: &[u8]) {
    let entry = weir_core::fuzzing::entry(data);
    if let Decoded::Message(message) = decode(1, &entry, 3) {
        assert!(message.place.accepted_at().year() <= 9999);
    }
    let letter = letter(&entry, "decode", "", String::new());
    assert!(entry.envelope.is_none_or(|envelope| envelope == letter.envelope));
}

/// Reads the worker's settings. Whatever they are, a pause is within its cap.
pub fn settings(data: &[u8]) {
    let mut reader = weir_core::fuzzing::reader(data);
    let database = DatabaseConfig::read(&mut reader);
    // What a URL shows is for `secret.rs` to test: its path may be anything, also what is a secret elsewhere.
    let config = WorkerConfig::read(&mut reader, database);
    let failure = Failure::Internal { code: String::new(), error: String::new() };
    for attempts in [0, 1, 2, 60, u32::MAX] {
        match decide(&failure, attempts, &config.retry, 1.0) {
            Fate::Retry(pause) => assert!(pause <= config.retry.internal.cap && pause < Duration::MAX),
            Fate::Dead => assert!(attempts >= config.retry.internal.attempts),
        }
    }
}
