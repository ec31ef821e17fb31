//! The settings of the gateway.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use weir_core::config::{ByteSize, Reader, Setting, from_str};
use weir_core::queue::enqueue::Bounds;
use weir_core::queue::server::Durability;

/// Everything the gateway can be told.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Its name in metrics; several gateways of a host need different ones. Default `gateway`.
    pub name: String,
    /// Addresses to listen on, unless sockets are handed over. Default 127.0.0.1 and the port of `gateway.port`, 8095.
    pub listen: Vec<SocketAddr>,
    /// Certificate and key with which all these addresses speak TLS. Default none: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// What a 2xx promises. Default `disk`.
    pub durability: Durability,
    /// Replicas that level `replica` asks for. Default 1.
    pub replicas: u32,
    /// Limits of streams and dedupe memory.
    pub bounds: Bounds,
    /// Share of Redis' memory above which nothing is accepted, 0 to 1. Default 0.75.
    pub memory_share: f64,
    /// Limits of connections and bodies.
    pub http: HttpConfig,
    /// How often Redis is checked against the promise: the longest time for which a weakened Redis goes unnoticed.
    /// Default 2 s.
    pub check_every: Duration,
    /// How long requests in progress may take after the signal to stop. Default 10 s.
    pub drain: Duration,
    /// Peers whose `X-Forwarded-For` is believed. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// Requests of one address.
    pub per_address: Option<Rate>,
    /// Who may send.
    pub sources: Vec<SourceConfig>,
}

/// What TLS needs, in PEM. Both files are looked at again while the gateway runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and behind it those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Limits of connections and bodies.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Connections at once; more wait to be accepted. Default 10,000.
    pub connections: usize,
    /// Connections of one address at once (IPv6: of one /64), so that nobody alone takes all slots; more are closed as
    /// they come. 0 is no limit. Loopback and trusted proxies are exempt. Default 1,000.
    pub connections_per_address: usize,
    /// Messages between decode and answer at once; more get 503. Default 8,192.
    pub in_flight: usize,
    /// While more messages come than Redis takes, only so many may be in flight as it takes in this time and four times the
    /// way there (with the fsync, at level `replica` with the replicas), and 512 at least: what is accepted then does not wait
    /// in vain. The way is measured. Default 5 ms.
    pub queue_delay: Duration,
    /// Largest body of one message. Default 64 KiB.
    pub body_limit: u64,
    /// Largest body of a batch. Default 16 MiB.
    pub batch_body_limit: u64,
    /// Time for the headers of a request from its first byte on; a new connection has it from the start. Default 10 s.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests: longer than load balancers keep theirs, or they meet one
    /// that is just being closed. Default 75 s.
    pub idle_timeout: Duration,
    /// Time for a whole body. Default 10 s.
    pub body_timeout: Duration,
    /// Bytes a second that a body has to bring on average, after a start of three seconds. 0 is any. Default 4 KiB.
    pub body_rate: u64,
    /// Bytes of all bodies that are being received in pieces or belong to a batch under way; more get 503. Default 512 MiB.
    pub body_memory: u64,
    /// Time in which a client has to take an answer. Default 10 s.
    pub write_timeout: Duration,
    /// Time that a batch has at Redis. Default 4 s.
    pub batch_timeout: Duration,
    /// Batches at Redis at once: while they are written the next one gathers. Default 2.
    pub batches: usize,
}

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Sustained, a second.
    pub per_second: NonZeroU32,
    /// After a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    fn new(per_second: u32, burst: u32) -> Self {
        let clamp = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { per_second: clamp(per_second), burst: clamp(burst) }
    }
}

/// A rate as it is written: `20/s burst 200`, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MaybeRate(Option<Rate>);

impl Setting for MaybeRate {
    fn read(text: &str) -> Result<Self, String> {
        const WHAT: &str = "is no rate such as \"20/s burst 200\", or off";
        if text == "off" {
            return Ok(Self(None));
        }
        let (rate, burst) = text.split_once(" burst ").unwrap_or((text, ""));
        let per_second: NonZeroU32 = rate.trim().strip_suffix("/s").unwrap_or_default().parse().map_err(|_| WHAT)?;
        let burst = if burst.is_empty() { Ok(per_second) } else { burst.trim().parse() };
        Ok(Self(Some(Rate { per_second, burst: burst.map_err(|_| WHAT)? })))
    }
}

/// Someone who sends to us.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Its name: `/in/{name}`.
    pub name: String,
    /// The format of its bodies.
    pub kind: Kind,
    /// Whether it is listened to; what comes otherwise is counted and answered as if it had been taken. Default true.
    pub enabled: bool,
    /// Largest body of one message or event. Default `http.body_limit`, 1 MiB for MAX.
    pub body_limit: u64,
    /// How it proves who it is.
    pub proof: Proof,
    /// Messages of one client of this source. Default 20/s burst 200.
    pub per_client: Option<Rate>,
    /// Messages of the whole source. Default off.
    pub rate: Option<Rate>,
}

/// Format of a source's bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The messenger API's flat object.
    Messenger,
    /// MAX's updates, and the customer's documents' form of them.
    Max,
}

/// How a source proves who it is. Each accepts the secrets of the list, so that one can be rotated.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Not at all.
    None,
    /// A header holds the secret.
    Header {
        /// Name of the header.
        header: String,
        /// Secrets.
        secrets: Vec<SecretString>,
    },
    /// A header holds the HMAC-SHA256 of the body as it was sent, in hex or base64, with or without `sha256=`.
    HmacSha256 {
        /// Name of the header.
        header: String,
        /// Secrets.
        secrets: Vec<SecretString>,
    },
}

struct IpNetSetting(IpNet);

impl Setting for IpNetSetting {
    fn read(text: &str) -> Result<Self, String> {
        let net = from_str(text).or_else(|_| from_str::<std::net::IpAddr>(text).map(IpNet::from));
        net.map(Self).map_err(|_| "is no network such as 10.0.0.0/8".into())
    }
}

impl GatewayConfig {
    /// Reads the settings `gateway.*`, `tls.*`, `http.*`, `limit.*`, `dedupe.*`, `max.*` and the list `[[source]]`.
    pub fn read(reader: &mut Reader) -> Self {
        let durability = reader.get("gateway.durability", &[], Durability::Disk);
        let replicas = reader.get("gateway.replicas", &[], NonZeroU32::MIN).get();
        let nets: Vec<IpNetSetting> = reader.get("gateway.trusted_proxies", &[], Vec::new());
        let memory_share = reader.get("limit.memory_share", &[], 0.75);
        if !(0.01..=1.0).contains(&memory_share) {
            reader.mistake("limit.memory_share: is not between 0.01 and 1");
        }
        let replica_timeout = reader.get("gateway.replica_timeout", &[], Duration::from_secs(1));
        let http = HttpConfig::read(reader);
        if replica_timeout >= http.batch_timeout {
            reader.mistake("gateway.replica_timeout: must be shorter than gateway.batch_timeout");
        }
        let sources = read_sources(reader, &http);
        let bounds = Bounds {
            backlog: above_zero(reader, "limit.backlog", 5_000_000),
            window: above_zero(reader, "dedupe.window", Duration::from_secs(24 * 3600)),
            remembered: above_zero(reader, "dedupe.remembered", 20_000_000),
            replicas: (durability == Durability::Replica).then_some((replicas, replica_timeout)),
        };
        let port = reader.get("gateway.port", &["MAXBOT_HTTP_PORT"], 8095);
        let listen: Vec<SocketAddr> =
            reader.get("gateway.listen", &["WEIR_LISTEN"], vec![([127, 0, 0, 1], port).into()]);
        if listen.is_empty() {
            reader.mistake("gateway.listen: names no address");
        }
        Self {
            name: reader.get("gateway.name", &[], "gateway".to_owned()),
            listen,
            tls: TlsFiles::read(reader),
            durability,
            replicas,
            bounds,
            memory_share,
            http,
            check_every: above_zero(reader, "gateway.check_every", Duration::from_secs(2)),
            drain: reader.get("gateway.drain", &[], Duration::from_secs(10)),
            trusted_proxies: nets.into_iter().map(|net| net.0).collect(),
            per_address: reader.get("limit.per_address", &[], MaybeRate(Some(Rate::new(2000, 4000)))).0,
            sources,
        }
    }
}

impl GatewayConfig {
    /// Whether what MAX sends is taken.
    pub fn takes_max(&self) -> bool {
        self.sources.iter().any(|source| source.kind == Kind::Max && source.enabled)
    }
}

impl TlsFiles {
    fn read(reader: &mut Reader) -> Option<Self> {
        match (reader.optional("tls.certificate", &[]), reader.optional("tls.key", &[])) {
            (Some(certificate), Some(key)) => return Some(Self { certificate, key }),
            (None, None) => {}
            (Some(_), None) => reader.mistake("tls.certificate is set and tls.key is not: TLS needs both"),
            (None, Some(_)) => reader.mistake("tls.key is set and tls.certificate is not: TLS needs both"),
        }
        None
    }
}

impl HttpConfig {
    fn read(reader: &mut Reader) -> Self {
        Self {
            connections: above_zero(reader, "http.connections", 10_000),
            connections_per_address: reader.get("http.connections_per_address", &[], 1000),
            in_flight: above_zero(reader, "limit.in_flight", 8192),
            queue_delay: above_zero(reader, "limit.queue_delay", Duration::from_millis(5)),
            body_limit: reader.get("http.body_limit", &[], ByteSize(64 << 10)).0,
            batch_body_limit: reader.get("http.batch_body_limit", &[], ByteSize(16 << 20)).0,
            header_timeout: above_zero(reader, "http.header_timeout", Duration::from_secs(10)),
            idle_timeout: above_zero(reader, "http.idle_timeout", Duration::from_secs(75)),
            body_timeout: above_zero(reader, "http.body_timeout", Duration::from_secs(10)),
            body_rate: reader.get("http.body_rate", &[], ByteSize(4 << 10)).0,
            body_memory: reader.get("limit.body_memory", &[], ByteSize(512 << 20)).0,
            write_timeout: above_zero(reader, "http.write_timeout", Duration::from_secs(10)),
            batch_timeout: above_zero(reader, "gateway.batch_timeout", Duration::from_secs(4)),
            batches: above_zero(reader, "gateway.batches", 2),
        }
    }
}

/// A setting with a default for which 0 makes no sense.
fn above_zero<T: Setting + Default + PartialEq>(reader: &mut Reader, key: &str, default: T) -> T {
    let value = reader.get(key, &[], default);
    if value == T::default() {
        reader.mistake(format!("{key}: must be above 0"));
    }
    value
}

/// Name of the source behind `/api/v1/webhook`.
pub const MESSENGER: &str = "messenger";

/// Name of the source behind `/webhook/max`.
pub const MAX: &str = "max";

/// Where MAX puts the secret that its subscription was made with.
const MAX_SECRET_HEADER: &str = "x-max-bot-api-secret";

fn default_client_rate() -> MaybeRate {
    MaybeRate(Some(Rate::new(20, 200)))
}

/// The configured sources, the messenger's with its defaults unless one of that name is configured, and MAX.
fn read_sources(reader: &mut Reader, http: &HttpConfig) -> Vec<SourceConfig> {
    let mut sources: Vec<SourceConfig> = Vec::new();
    for mut table in reader.tables("source") {
        let source = read_source(&mut table, http);
        if sources.iter().any(|other| other.name == source.name) {
            table.mistake(format!("two sources are called {}", source.name));
        }
        reader.absorb(table);
        sources.push(source);
    }
    if !sources.iter().any(|source| source.name == MESSENGER) {
        sources.push(SourceConfig {
            name: MESSENGER.into(),
            kind: Kind::Messenger,
            enabled: true,
            body_limit: http.body_limit,
            proof: Proof::None,
            per_client: default_client_rate().0,
            rate: None,
        });
    }
    sources.push(read_max(reader));
    sources
}

/// MAX has no limits of its own: what it is refused it sends again, and gives the bot up after hours of that.
fn read_max(reader: &mut Reader) -> SourceConfig {
    let mut secrets: Vec<SecretString> = reader.secret("max.secret", &["WEBHOOK_SECRET"]).into_iter().collect();
    secrets.retain(|secret| !secret.expose_secret().is_empty());
    let previous = reader.secret("max.previous_secret", &[]);
    if secrets.is_empty() && previous.is_some() {
        reader.mistake("max.previous_secret is set and max.secret is not: the present one is missing");
    }
    secrets.extend(previous);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let good = |secret: &str| (5..=256).contains(&secret.len()) && secret.bytes().all(plain);
    if !secrets.iter().all(|secret| good(secret.expose_secret())) {
        reader.mistake("max.secret (WEBHOOK_SECRET): MAX takes 5 to 256 of A-Z, a-z, 0-9, _ and -");
    }
    let header = MAX_SECRET_HEADER.to_owned();
    SourceConfig {
        name: MAX.into(),
        kind: Kind::Max,
        enabled: reader.get("max.enabled", &["WEBHOOK_ENABLED"], true),
        body_limit: reader.get("max.body_limit", &[], ByteSize(1 << 20)).0,
        proof: if secrets.is_empty() { Proof::None } else { Proof::Header { header, secrets } },
        per_client: reader.get("max.per_client", &[], MaybeRate(None)).0,
        rate: reader.get("max.rate", &[], MaybeRate(None)).0,
    }
}

fn read_source(table: &mut Reader, http: &HttpConfig) -> SourceConfig {
    let name = table.get("name", &[], String::new());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        table.mistake(format!("name = {name:?}: a source needs a name of 1 to 64 of a-z, 0-9, - and _"));
    }
    if name == MAX {
        table.mistake("a source cannot be called max: that one is always there, and its settings are max.*");
    }
    if table.get("kind", &[], "messenger".to_owned()) != "messenger" {
        table.mistake(format!("the kind of source {name} is none of messenger"));
    }
    SourceConfig {
        kind: Kind::Messenger,
        enabled: true,
        body_limit: http.body_limit,
        proof: read_proof(table, &name),
        per_client: table.get("per_client", &[], default_client_rate()).0,
        rate: table.get("rate", &[], MaybeRate(None)).0,
        name,
    }
}

fn read_proof(table: &mut Reader, name: &str) -> Proof {
    let mut secrets: Vec<SecretString> = table.secret("secret", &[]).into_iter().collect();
    let previous = table.secret("previous_secret", &[]);
    if secrets.is_empty() && previous.is_some() {
        table.mistake(format!("source {name} has a previous_secret but no secret: the present one is missing"));
    }
    secrets.extend(previous);
    let header: Option<String> = table.optional("header", &[]);
    let method: Option<String> = table.optional("proof", &[]);
    if secrets.iter().any(|secret| secret.expose_secret().len() < 8) {
        table.mistake(format!("a secret of source {name} is shorter than 8 characters"));
    }
    let valid = |header: &String| hyper::header::HeaderName::try_from(header.as_str()).is_ok();
    if header.as_ref().is_some_and(|header| !valid(header)) {
        table.mistake(format!("the header of source {name} is no header name"));
    }
    match (secrets.is_empty(), method.as_deref()) {
        (true, None | Some("none")) if header.is_none() => Proof::None,
        (false, None | Some("header")) => Proof::Header { header: header.unwrap_or("x-weir-secret".into()), secrets },
        (false, Some("hmac-sha256")) => Proof::HmacSha256 { header: header.unwrap_or("x-signature".into()), secrets },
        (true, _) => {
            table.mistake(format!("source {name} has a proof or a header but no secret"));
            Proof::None
        }
        (false, Some(_)) => {
            table.mistake(format!("the proof of source {name} is neither header nor hmac-sha256"));
            Proof::None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use std::collections::BTreeMap;

    fn read(file: &str) -> (GatewayConfig, Result<(), String>) {
        let path = std::env::temp_dir().join(format!("weir-gateway-{}-{:p}.toml", std::process::id(), file));
        std::fs::write(&path, file).unwrap();
        let mut reader = Reader::new(BTreeMap::new(), BTreeMap::new(), &path, true);
        std::fs::remove_file(&path).unwrap();
        let config = GatewayConfig::read(&mut reader);
        (config, reader.finish().map_err(|error| error.to_string()))
    }

    #[test]
    fn without_any_setting_the_sample_works() {
        let (config, mistakes) = read("");
        mistakes.unwrap();
        assert_eq!(config.listen, vec![([127, 0, 0, 1], 8095).into()]);
        assert_eq!(config.sources[0].name, MESSENGER);
    }

    #[test]
    fn a_source_is_read_with_its_secret_and_limits() {
        let file = "[[source]]\nname = \"tg\"\nsecret = \"s3cret-s3cret\"\nproof = \"hmac-sha256\"\nrate = \"5/s burst 9\"\nper_client = \"off\"\n";
        let (config, mistakes) = read(file);
        mistakes.unwrap();
        assert!(matches!(&config.sources[0].proof, Proof::HmacSha256 { header, .. } if header == "x-signature"));
        assert_eq!(config.sources[0].rate, Some(Rate::new(5, 9)));
        assert_eq!(config.sources[0].per_client, None);
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn every_mistake_of_a_source_is_named() {
        let file = "[[source]]\nname = \"A B\"\nkind = \"fax\"\nheader = \"x-h\"\nsecrt = \"x\"\n[[source]]\nname = \"ok\"\nsecret = \"short\"\n[[source]]\nname = \"old\"\nprevious_secret = \"long-enough\"\n";
        let text = read(file).1.unwrap_err();
        for part in [
            "name = \"A B\"",
            "none of messenger",
            "no secret",
            "source 1: secrt is no setting",
            "shorter than 8",
            "source old has a previous_secret but no secret",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    proptest! {
        #[test]
        fn a_rate_is_read_as_it_is_written_and_nothing_else_is_one(per_second in 1_u32.., burst in 1_u32.., text in any::<String>()) {
            let rate = Rate::new(per_second, burst);
            prop_assert_eq!(MaybeRate::read(&format!("{per_second}/s burst {burst}")), Ok(MaybeRate(Some(rate))));
            let _ = (MaybeRate::read(&text), IpNetSetting::read(&text).is_ok());
            for wrong in ["0/s", "-1/s", "1/m", "1.5/s", "1/s burst 0", "1/s burst", "4294967296/s", "", "/s"] {
                prop_assert!(MaybeRate::read(wrong).is_err(), "{wrong}");
            }
        }

        #[test]
        fn no_file_makes_reading_the_sources_panic(value in any::<String>(), key in "name|kind|header|secret|proof|rate|per_client") {
            let _ = read(&format!("[[source]]\nname = \"a\"\n{key} = {value}\n"));
            let _ = read(&format!("[[source]]\n{key} = {:?}\n", value));
            let _ = read(&format!("source = {value}\n"));
        }
    }
}
