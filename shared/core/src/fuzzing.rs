//! What the fuzz targets call: settings, and the fields of a stream entry.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use redis::Value;

use crate::config::{ByteSize, DatabaseConfig, Reader, RedisConfig, Setting as _};
use crate::dead_letter::DeadLetter;
use crate::journey::Journey;
use crate::message::MessageId;
use crate::queue::consume::{Entry, Lane};
use crate::telemetry::LogConfig;
use crate::trace::TraceParent;

/// A secret that no mistake may show.
pub const SECRET: &str = "hunter2-hunter2";

/// A reader over a file and a `.env` of this text, which stand one below the other.
pub fn reader(data: &[u8]) -> Reader {
    let text = String::from_utf8_lossy(data);
    let (env, file) = text.split_once("\n---\n").unwrap_or(("", &text));
    let pairs = dotenvy::from_read_iter(env.as_bytes());
    let env: BTreeMap<_, _> = pairs.map_while(Result::ok).collect();
    let mut reader = Reader::new(BTreeMap::new(), env, Path::new("no-such-file"), false);
    reader.parse(Path::new("weir.toml"), file);
    reader
}

/// Reads every kind of setting, first from a file and an environment, then from the bare text.
pub fn settings(data: &[u8]) {
    let mut reader = reader(data);
    // A path may be anything, so that what a URL shows is for `secret.rs` to test.
    drop((RedisConfig::read(&mut reader), DatabaseConfig::read(&mut reader)));
    LogConfig::read(&mut reader);
    assert!(!format!("{reader:?}").contains(SECRET));
    drop(reader.finish());
    let text = String::from_utf8_lossy(data);
    if let Ok(span) = Duration::read(&text) {
        let again = Duration::read(&humantime::format_duration(span).to_string());
        assert_eq!(again, Ok(span));
    }
    if let Ok(ByteSize(size)) = ByteSize::read(&text) {
        assert_eq!(ByteSize::read(&size.to_string()), Ok(ByteSize(size)));
    }
    drop((f64::read(&text), bool::read(&text), Vec::<std::net::SocketAddr>::read(&text)));
    if let Ok(trace) = text.parse::<TraceParent>() {
        assert_eq!(trace.to_string().parse::<TraceParent>().ok(), Some(trace));
    }
    if let Ok(id) = text.parse::<MessageId>() {
        assert_eq!(id.to_string().parse::<MessageId>().ok(), Some(id));
    }
}

/// Splits the text into names and values, a line each, and reads them as an entry of a stream and as a letter.
pub fn entry(data: &[u8]) -> Entry {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let pairs = lines.chunks(2).filter(|pair| pair.len() == 2);
    let fields = pairs.clone().flatten().map(|line| Value::BulkString(line.to_vec())).collect();
    let entry = Entry::read(Lane::Ingest, "1760000000000-1".into(), fields);
    let journey = entry.journey.encode();
    assert_eq!(Journey::decode(journey.as_bytes()).encode(), journey);
    let named: HashMap<_, _> =
        pairs.map(|pair| (String::from_utf8_lossy(pair[0]).into_owned(), pair[1].to_vec())).collect();
    let letter = DeadLetter::from_fields(0, entry.id.clone(), named);
    let again = letter.fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let again = DeadLetter::from_fields(0, entry.id.clone(), again);
    assert_eq!((again.fields(), again.signature()), (letter.fields(), letter.signature()));
    entry
}
