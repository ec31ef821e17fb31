//! Settings: flags, environment, `.env`, `weir.toml`, defaults, in that order.
//!
//! A setting has one dotted key, `gateway.listen`: the table and name in `weir.toml`, the flag `--set
//! gateway.listen=…`, and, written `WEIR_GATEWAY_LISTEN`, the environment variable. Some have older names in the
//! environment too. Everything is read before anything starts, and every mistake is reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use toml::{Table, Value};

use crate::secret::SecretUrl;

/// Every mistake that was found in the settings.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has mistakes:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

/// Reads settings and gathers mistakes.
#[derive(Default)]
pub struct Reader {
    flags: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    file_name: PathBuf,
    file: Table,
    known: BTreeSet<String>,
    mistakes: Vec<String>,
}

/// Flags, environment and file hold secrets.
impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("file_name", &self.file_name).finish_non_exhaustive()
    }
}

/// A text and where it was found, for the mistake that names it.
struct Found {
    place: String,
    text: String,
}

impl Reader {
    /// A reader over flags by dotted key and an environment. `file` is the configuration file; it may be absent unless
    /// it was asked for by name.
    pub fn new(flags: BTreeMap<String, String>, env: BTreeMap<String, String>, file: &Path, must_exist: bool) -> Self {
        let mut reader = Self { flags, env, file_name: file.to_owned(), ..Self::default() };
        match std::fs::read_to_string(file) {
            Ok(text) => reader.parse(file, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {}
            Err(error) => reader.mistake(format!("{} cannot be read: {error}", file.display())),
        }
        reader
    }

    pub(crate) fn parse(&mut self, file: &Path, text: &str) {
        match text.parse::<Table>() {
            Ok(table) => self.file = table,
            // The message alone: the excerpt of the file that comes with it may hold a secret.
            Err(error) => self.mistake(format!("{}: {}", file.display(), error.message())),
        }
    }

    /// The environment of this process over the variables of `.env` in the current folder.
    ///
    /// # Errors
    /// When `.env` cannot be read.
    pub fn environment() -> Result<BTreeMap<String, String>, ConfigError> {
        let mut env = BTreeMap::new();
        match dotenvy::dotenv_iter() {
            Ok(pairs) => {
                for pair in pairs {
                    let (name, value) = pair.map_err(|_| ConfigError(vec![".env: a line is not NAME=value".into()]))?;
                    env.insert(name, value);
                }
            }
            Err(error) if error.not_found() => {}
            Err(_) => return Err(ConfigError(vec![".env cannot be read".into()])),
        }
        env.extend(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        );
        Ok(env)
    }

    /// Notes a mistake that only the caller can see, such as two settings that contradict each other.
    pub fn mistake(&mut self, text: impl Into<String>) {
        self.mistakes.push(text.into());
    }

    fn find(&mut self, key: &str, older: &[&str]) -> Option<Found> {
        self.known.insert(key.to_owned());
        if let Some(text) = self.flags.get(key) {
            return Some(Found { place: format!("--set {key}"), text: text.clone() });
        }
        let name = format!("WEIR_{}", key.to_uppercase().replace('.', "_"));
        for name in std::iter::once(name.as_str()).chain(older.iter().copied()) {
            if let Some(text) = self.env.get(name).filter(|text| !text.is_empty()) {
                return Some(Found { place: name.to_owned(), text: text.clone() });
            }
        }
        let text = plain(lookup(&self.file, key)?);
        Some(Found { place: format!("{}: {key}", self.file_name.display()), text })
    }

    /// A setting that may be absent.
    pub fn optional<T: Setting>(&mut self, key: &str, older: &[&str]) -> Option<T> {
        let found = self.find(key, older)?;
        match T::read(found.text.trim()) {
            Ok(value) => Some(value),
            Err(reason) => {
                let shown = if T::SECRET { String::new() } else { format!(" = {:?}", found.text) };
                self.mistake(format!("{}{shown}: {reason}", found.place));
                None
            }
        }
    }

    /// Whether a setting was given, whatever its value.
    pub fn is_set(&mut self, key: &str) -> bool {
        self.find(key, &[]).is_some()
    }

    /// A setting with a default.
    pub fn get<T: Setting>(&mut self, key: &str, older: &[&str], default: T) -> T {
        self.optional(key, older).unwrap_or(default)
    }

    /// A secret: the setting itself, or the content of the file that `<key>_file` names.
    pub fn secret(&mut self, key: &str, older: &[&str]) -> Option<SecretString> {
        let direct: Option<SecretString> = self.optional(key, older);
        let file: Option<String> = self.optional(&format!("{key}_file"), &[]);
        match (direct, file) {
            (Some(_), Some(_)) => {
                self.mistake(format!("{key} and {key}_file are both set; keep one"));
                None
            }
            (None, Some(path)) => self.secret_from_file(&path),
            (direct, None) => direct,
        }
    }

    /// The content of a file without the line break at its end.
    pub fn secret_from_file(&mut self, path: &str) -> Option<SecretString> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(SecretString::from(text.trim_end_matches(['\n', '\r']).to_owned())),
            Err(error) => {
                self.mistake(format!("the secret file {path} cannot be read: {error}"));
                None
            }
        }
    }

    /// The tables of a list such as `[[source]]`, each as a reader of its own whose keys are plain names.
    pub fn tables(&mut self, key: &str) -> Vec<Reader> {
        self.known.insert(key.to_owned());
        let Some(Value::Array(items)) = self.file.get(key) else { return Vec::new() };
        let items = items.clone();
        items
            .into_iter()
            .enumerate()
            .map(|(index, item)| {
                let file = item.as_table().cloned().unwrap_or_default();
                let file_name = PathBuf::from(format!("{}: {key} {}", self.file_name.display(), index + 1));
                Reader { file, file_name, ..Reader::default() }
            })
            .collect()
    }

    /// Takes over the mistakes of a reader that [`Self::tables`] gave, unknown names among them.
    pub fn absorb(&mut self, table: Reader) {
        self.mistakes.extend(table.all_mistakes());
    }

    fn all_mistakes(mut self) -> Vec<String> {
        let mut keys = Vec::new();
        flatten("", &self.file, &mut keys);
        for key in keys {
            if !self.known.contains(&key) && !self.known.contains(key.split('.').next().unwrap_or_default()) {
                self.mistakes.push(format!("{}: {key} is no setting", self.file_name.display()));
            }
        }
        for key in self.flags.keys().filter(|key| !self.known.contains(*key)) {
            self.mistakes.push(format!("--set {key}: there is no such setting"));
        }
        self.mistakes
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All mistakes; a name in the file or in a flag that no one asked for is one.
    pub fn finish(self) -> Result<(), ConfigError> {
        let mistakes = self.all_mistakes();
        if mistakes.is_empty() { Ok(()) } else { Err(ConfigError(mistakes)) }
    }
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((head, rest)) => lookup(table.get(head)?.as_table()?, rest),
        None => table.get(key),
    }
}

fn flatten(prefix: &str, table: &Table, keys: &mut Vec<String>) {
    for (name, value) in table {
        match value {
            Value::Table(inner) => flatten(&format!("{prefix}{name}."), inner, keys),
            _ => keys.push(format!("{prefix}{name}")),
        }
    }
}

/// A value as one would write it in an environment variable: lists with commas.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// The value must not be shown in a mistake.
    const SECRET: bool = false;

    /// Reads the value.
    ///
    /// # Errors
    /// Completes the sentence "the value …".
    fn read(text: &str) -> Result<Self, String>;
}

fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("is no {what}"))
}

macro_rules! settings {
    ($($type:ty => $what:literal),* $(,)?) => {$(
        impl Setting for $type {
            fn read(text: &str) -> Result<Self, String> { parse(text, $what) }
        }
    )*};
}

settings! {
    u16 => "number from 0 to 65535",
    u32 => "whole number",
    u64 => "whole number",
    usize => "whole number",
    NonZeroU16 => "number from 1 to 65535",
    NonZeroU32 => "whole number above 0",
    f64 => "number",
    SocketAddr => "address such as 127.0.0.1:8095",
    String => "text",
    PathBuf => "path",
}

impl Setting for bool {
    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("is neither true nor false".into()),
        }
    }
}

/// Longest duration that a setting can have: no clock overflows when it is added.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

impl Setting for Duration {
    fn read(text: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(text).map_err(|_| "is no duration such as 30s, 15m or 720h")?;
        if span <= LONGEST { Ok(span) } else { Err("is longer than ten years".into()) }
    }
}

impl Setting for SecretUrl {
    const SECRET: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        if text.contains("://") { Ok(Self::new(text)) } else { Err("is no URL".into()) }
    }
}

impl Setting for SecretString {
    const SECRET: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".into()) } else { Ok(Self::from(text.to_owned())) }
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SECRET: bool = T::SECRET;

    fn read(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(T::read).collect()
    }
}

/// A size in bytes, written as `65536`, `64KiB`, `1MiB` or `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl Setting for ByteSize {
    fn read(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "kib" | "kb" | "k" => 10,
            "mib" | "mb" | "m" => 20,
            "gib" | "gb" | "g" => 30,
            _ => return Err("is no size such as 64KiB".into()),
        };
        let number: u64 = parse(digits, "size such as 64KiB")?;
        number.checked_shl(shift).filter(|size| size >> shift == number).map(Self).ok_or("is too large".into())
    }
}

/// Reads a setting through its `FromStr`.
///
/// # Errors
/// The text of the type's own error.
pub fn from_str<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

impl Setting for crate::queue::server::Durability {
    fn read(text: &str) -> Result<Self, String> {
        from_str(text)
    }
}

/// The queue's Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Where it is; `None` when nothing names one. `redis.url`, `WEIR_REDIS_URL`.
    pub url: Option<SecretUrl>,
    /// The cache's server, which holds the queue too when nothing else does. `cache.url`, `WEIR_CACHE_URL`, or the older
    /// `REDIS_ADDR`, `REDIS_PASSWORD` and `REDIS_DB`.
    pub cache: Option<SecretUrl>,
    /// The file with the authority of its certificate, for `rediss://`. Default none: the authorities that browsers know.
    /// `redis.ca`, `WEIR_REDIS_CA`.
    pub ca: Option<PathBuf>,
    /// Partitions; fixed when a data set begins. More spread over more Redis primaries; each costs some CPU. Default 4.
    pub partitions: u16,
}

impl RedisConfig {
    /// Reads the settings `redis.*`.
    pub fn read(reader: &mut Reader) -> Self {
        let (url, cache): (Option<SecretUrl>, _) = (reader.optional("redis.url", &[]), cache_url(reader));
        let ca = reader.optional("redis.ca", &[]);
        if let (Some(_), Some(url)) = (&ca, url.as_ref().or(cache.as_ref()).filter(|url| !url.is_tls())) {
            reader.mistake(format!("redis.ca is set, but {url} is not TLS; write rediss:// for TLS, or drop redis.ca"));
        }
        let partitions = reader.get("redis.partitions", &[], NonZeroU16::new(4).expect("not 0")).get();
        if partitions > 1024 {
            reader.mistake("redis.partitions: 1024 at most");
        }
        Self { url, cache, ca, partitions }
    }
}

/// The server that `WEIR_CACHE_URL` or the older `REDIS_ADDR`, `REDIS_PASSWORD` and `REDIS_DB` name.
fn cache_url(reader: &mut Reader) -> Option<SecretUrl> {
    let url = reader.optional("cache.url", &[]);
    let address: Option<String> = reader.optional("cache.address", &["REDIS_ADDR"]);
    let password = reader.secret("cache.password", &["REDIS_PASSWORD"]);
    let database: u16 = reader.get("cache.database", &["REDIS_DB"], 0);
    url.or_else(|| {
        use secrecy::ExposeSecret as _;
        let login = password.map(|p| format!(":{}@", encode(p.expose_secret()))).unwrap_or_default();
        Some(SecretUrl::new(format!("redis://{login}{}/{database}", address?)))
    })
}

/// Percent-encodes what may not stand in the password of a URL.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// PostgreSQL.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// Where it is; `None` when nothing names one. `database.url`, `WEIR_DATABASE_URL`, `DATABASE_URL`.
    pub url: Option<SecretUrl>,
    /// Connections of one process. Default 6: two batches in flight, a few more for moves and probes.
    pub connections: u32,
    /// Time after which PostgreSQL ends a statement. Default 10 s.
    pub statement_timeout: Duration,
}

impl DatabaseConfig {
    /// Reads the settings `database.*`.
    pub fn read(reader: &mut Reader) -> Self {
        Self {
            url: reader.optional("database.url", &["DATABASE_URL"]),
            connections: reader.get("database.connections", &[], NonZeroU32::new(6).expect("not 0")).get(),
            statement_timeout: reader.get("database.statement_timeout", &[], Duration::from_secs(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader(flags: &[(&str, &str)], env: &[(&str, &str)], file: &str) -> Reader {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        Reader::new(map(flags), map(env), path.path(), true)
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let file = "[a]\nx = 3\ny = 3\nz = 3\n";
        let mut reader = reader(&[("a.x", "1")], &[("WEIR_A_X", "2"), ("OLD_Y", "2")], file);
        assert_eq!(reader.get("a.x", &[], 4_u32), 1);
        assert_eq!(reader.get("a.y", &["OLD_Y"], 4_u32), 2);
        assert_eq!(reader.get("a.z", &[], 4_u32), 3);
        assert_eq!(reader.get("a.w", &[], 4_u32), 4);
        reader.finish().unwrap();
    }

    #[test]
    fn all_mistakes_are_reported_at_once_and_by_name() {
        let mut reader =
            reader(&[("no.such", "1")], &[("WEIR_A_TIME", "soon")], "[a]\nsize = \"9 elephants\"\ntypo = 1\n");
        reader.get("a.time", &[], Duration::ZERO);
        reader.get("a.size", &[], ByteSize(0));
        let text = reader.finish().unwrap_err().to_string();
        for part in ["WEIR_A_TIME = \"soon\": is no duration", "a.size", "a.typo is no setting", "--set no.such"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_mistake_does_not_show_a_secret() {
        let mut reader = reader(&[], &[("WEIR_REDIS_URL", "hunter2")], "");
        RedisConfig::read(&mut reader);
        let text = reader.finish().unwrap_err().to_string();
        assert!(text.contains("WEIR_REDIS_URL: is no URL") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn the_older_redis_names_make_a_url() {
        let mut reader =
            reader(&[], &[("REDIS_ADDR", "cache:6379"), ("REDIS_PASSWORD", "p@ss"), ("REDIS_DB", "2")], "");
        let config = RedisConfig::read(&mut reader);
        assert_eq!(config.cache.unwrap().expose(), "redis://:p%40ss@cache:6379/2");
        assert!(config.url.is_none());
        reader.finish().unwrap();
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("65536", 65536), ("64KiB", 65536), ("1 MiB", 1 << 20), ("2g", 2 << 30)] {
            assert_eq!(ByteSize::read(text).unwrap(), ByteSize(bytes));
        }
        for text in ["", "KiB", "-1", "1e3", "99999999999999GiB"] {
            assert!(ByteSize::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_that_would_overflow_a_clock_is_refused() {
        assert_eq!(Duration::read("3650days"), Ok(Duration::from_secs(3650 * 24 * 3600)));
        for text in ["11years", "584942417355years", "18446744073709551615s", "-1s", "1e3s", "NaN", "\u{661}s", "5"] {
            assert!(Duration::read(text).is_err(), "{text}");
        }
    }

    /// Text as somebody might write it into a setting, or as nobody would.
    fn any_setting() -> impl Strategy<Value = String> {
        prop_oneof!["[0-9a-zA-Z.:/, -]{0,20}", "[0-9]{1,30} ?(ms|s|h|d|KiB|MB|g|/s|x)?", any::<String>()]
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_a_setting_panic(text in any_setting()) {
            let _ = (u16::read(&text), u32::read(&text), u64::read(&text), usize::read(&text), f64::read(&text));
            let _ = (NonZeroU16::read(&text), NonZeroU32::read(&text), bool::read(&text), SocketAddr::read(&text));
            let _ = (Vec::<SocketAddr>::read(&text), Vec::<Duration>::read(&text), SecretUrl::read(&text).is_ok());
            prop_assert!(Duration::read(&text).is_ok_and(|span| span <= LONGEST) || Duration::read(&text).is_err());
            if let Ok(ByteSize(size)) = ByteSize::read(&text) {
                prop_assert!(text.starts_with(|c: char| c.is_ascii_digit()));
                prop_assert_eq!(ByteSize::read(&size.to_string()), Ok(ByteSize(size)));
            }
        }

        #[test]
        fn a_duration_is_read_as_it_is_written(millis in 0..=(LONGEST.as_millis() as u64)) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(Duration::read(&humantime::format_duration(span).to_string()), Ok(span));
        }

        #[test]
        fn no_file_and_no_environment_make_the_reader_panic(
            file in any::<String>(),
            value in any_setting(),
            env in prop::collection::btree_map("WEIR_(REDIS_URL|A_TIME|A_SIZE|A_LIST)|REDIS_(ADDR|PASSWORD|DB)", any_setting(), 0..5),
        ) {
            for file in [file, format!("[a]\ntime = {value}\n[redis]\nurl = {value:?}\n")] {
                let path = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(path.path(), file).unwrap();
                let mut reader = Reader::new(BTreeMap::new(), env.clone(), path.path(), true);
                reader.get("a.time", &[], Duration::ZERO);
                reader.get("a.size", &[], ByteSize(0));
                reader.get("a.list", &[], Vec::<SocketAddr>::new());
                RedisConfig::read(&mut reader);
                let _ = reader.tables("source");
                let _ = reader.finish();
            }
        }

        #[test]
        fn a_secret_is_in_no_mistake(secret in "[a-z0-9]{12,30}", padding in "[ \"'=\\[\\]{}\\\\]{0,3}") {
            let value = format!("{padding}{secret}{padding}");
            let file = format!("[redis]\nurl = \"{value}\"\n[[source]]\nsecret = {value}\n");
            let mut reader = reader(&[], &[("WEIR_CACHE_URL", &value), ("REDIS_PASSWORD", &value)], &file);
            RedisConfig::read(&mut reader);
            let shown = format!("{reader:?}");
            if let Err(error) = reader.finish() {
                prop_assert!(!error.to_string().contains(&secret), "{error}");
            }
            prop_assert!(!shown.contains(&secret), "{shown}");
        }
    }
}
