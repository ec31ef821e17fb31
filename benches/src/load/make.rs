//! Requests: one template of bytes, in which only digits change.

use std::io::Write as _;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};

/// What is sent.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Mix {
    /// Messages in a request; more than one go to the address for batches
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
    /// Bytes of each message's text; 0 is a short sentence
    #[arg(long, default_value_t = 0)]
    pub(crate) payload: usize,
    /// Clients that write
    #[arg(long, default_value_t = 100_000)]
    pub(crate) clients: u32,
    /// Exponent of Zipf's law: how much more the busiest clients write; 0 lets all write alike
    #[arg(long, default_value_t = 0.0)]
    pub(crate) zipf: f64,
    /// Share of messages that were sent before, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub(crate) duplicates: f64,
    /// Share of messages with a phone that is none, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub(crate) bad: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { batch: 1, payload: 0, clients: 100_000, zipf: 0.0, duplicates: 0.0, bad: 0.0 }
    }
}

/// Where requests go, as their heads say it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) path: String,
}

impl Target {
    /// Weir's own addresses.
    pub(crate) fn webhook(batch: usize) -> Self {
        let path = if batch > 1 { "/api/v1/webhook/batch" } else { "/api/v1/webhook" };
        Self { host: "bench".into(), path: path.into() }
    }
}

const SENTENCE: &str = "Здравствуйте! Где мой заказ?";
/// How far back a duplicate reaches.
const RECENT: u64 = 100;

const ID: &[u8] = b"IIIIIIIIIIIIIIIIIIIIIIIIIIIIIIII";
const CLIENT: &[u8] = b"CCCCCCCC";
const PHONE: &[u8] = b"+7919PPPPPPP";

/// Makes the requests of one sender. What a message says depends on its id alone, so that a duplicate is one.
pub(crate) struct Maker {
    bytes: Vec<u8>,
    body_from: usize,
    /// Where the id, the client and the phone of each message begin.
    slots: Vec<[usize; 3]>,
    run: u32,
    first: u64,
    next: u64,
    mix: Mix,
    zipf: Option<Zipf<f64>>,
    rng: SmallRng,
}

impl Maker {
    /// Senders of one run have the same `run` and different numbers.
    pub(crate) fn new(mix: &Mix, target: &Target, run: u32, sender: usize) -> Self {
        let (bytes, body_from) = template(mix, target);
        let first = (sender as u64) << 36;
        let zipf = (mix.zipf > 0.0).then(|| Zipf::new(f64::from(mix.clients.max(1)), mix.zipf).ok()).flatten();
        let slots = positions(&bytes, mix.batch.max(1));
        let rng = SmallRng::seed_from_u64(u64::from(run) ^ first);
        Self { bytes, body_from, slots, run, first, next: first, mix: mix.clone(), zipf, rng }
    }

    /// Makes the next request and gives how many of its messages must be refused.
    pub(crate) fn turn(&mut self) -> usize {
        let mut bad = 0;
        for slot in 0..self.slots.len() {
            let id = self.choose();
            bad += usize::from(self.write(slot, id));
        }
        bad
    }

    /// The request as HTTP/1.1 has it.
    pub(crate) fn request(&self) -> &[u8] {
        &self.bytes
    }

    /// Its body alone.
    pub(crate) fn body(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes[self.body_from..])
    }

    /// Messages in a request.
    pub(crate) fn batch(&self) -> usize {
        self.slots.len()
    }

    /// The external id of the last message that was written.
    pub(crate) fn last_id(&self) -> String {
        format!("{:08x}{:024x}", self.run, self.next.saturating_sub(1))
    }

    fn choose(&mut self) -> u64 {
        if self.next > self.first && self.mix.duplicates > 0.0 && self.rng.random_bool(self.mix.duplicates.min(1.0)) {
            let back = self.rng.random_range(0..RECENT.min(self.next - self.first));
            return self.next - 1 - back;
        }
        self.next += 1;
        self.next - 1
    }

    fn write(&mut self, slot: usize, id: u64) -> bool {
        let (client, bad) = self.content(id);
        let [id_at, client_at, phone_at] = self.slots[slot];
        put_hex(&mut self.bytes[id_at..id_at + 8], u64::from(self.run));
        put_hex(&mut self.bytes[id_at + 8..id_at + 32], id);
        put_hex(&mut self.bytes[client_at..client_at + 8], u64::from(client));
        self.bytes[phone_at] = if bad { b'x' } else { b'+' };
        put_decimal(&mut self.bytes[phone_at + 5..phone_at + 12], client);
        bad
    }

    fn content(&self, id: u64) -> (u32, bool) {
        let clients = self.mix.clients.max(1);
        if self.zipf.is_none() && self.mix.bad == 0.0 {
            return ((id % u64::from(clients)) as u32, false);
        }
        let mut rng = SmallRng::seed_from_u64(id ^ u64::from(self.run) << 32);
        let client = match &self.zipf {
            Some(zipf) => (zipf.sample(&mut rng) as u32).saturating_sub(1) % clients,
            None => (id % u64::from(clients)) as u32,
        };
        (client, self.mix.bad > 0.0 && rng.random_bool(self.mix.bad.min(1.0)))
    }
}

fn template(mix: &Mix, target: &Target) -> (Vec<u8>, usize) {
    let text = |at: &[u8]| String::from_utf8_lossy(at).into_owned();
    let item = format!(
        "{{\"external_message_id\":\"{}\",\"external_client_id\":\"fedcba0987654321abcdef12{}\",\"client_phone\":\"{}\",\
         \"message_text\":\"{}\",\"send_at\":1760000000}}",
        text(ID),
        text(CLIENT),
        text(PHONE),
        message_text(mix.payload)
    );
    let body = if mix.batch > 1 { format!("[{}]", vec![item; mix.batch].join(",")) } else { item };
    let mut bytes = Vec::with_capacity(256 + body.len());
    let head = write!(
        bytes,
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        target.path,
        target.host,
        body.len()
    );
    drop(head);
    let body_from = bytes.len();
    bytes.extend_from_slice(body.as_bytes());
    (bytes, body_from)
}

/// So many bytes of text, a few less where a letter would be cut.
fn message_text(bytes: usize) -> String {
    if bytes == 0 {
        return SENTENCE.to_owned();
    }
    let mut text = String::with_capacity(bytes);
    for letter in SENTENCE.chars().chain(" ".chars()).cycle() {
        if text.len() + letter.len_utf8() > bytes {
            break;
        }
        text.push(letter);
    }
    text
}

fn positions(bytes: &[u8], messages: usize) -> Vec<[usize; 3]> {
    let mut at = 0;
    let mut find = |pattern: &[u8]| {
        let found = bytes[at..].windows(pattern.len()).position(|window| window == pattern);
        at += found.expect("the template has every place of every message");
        at
    };
    (0..messages).map(|_| [find(ID), find(CLIENT), find(PHONE)]).collect()
}

fn put_hex(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn put_decimal(place: &mut [u8], mut value: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::Value;

    use super::*;

    fn maker(mix: Mix) -> Maker {
        Maker::new(&mix, &Target::webhook(mix.batch), 7, 3)
    }

    fn json(maker: &Maker) -> Value {
        serde_json::from_slice(&maker.body()).expect("a body is JSON")
    }

    #[test]
    fn every_message_has_another_id_and_the_length_is_true() {
        let mut maker = maker(Mix { batch: 10, payload: 300, ..Mix::default() });
        let mut ids = HashSet::new();
        for _ in 0..100 {
            maker.turn();
            let body = json(&maker);
            for item in body.as_array().unwrap() {
                assert!(ids.insert(item["external_message_id"].as_str().unwrap().to_owned()));
                assert!((298..=300).contains(&item["message_text"].as_str().unwrap().len()));
            }
        }
        let head = String::from_utf8_lossy(maker.request()).into_owned();
        assert!(head.contains(&format!("Content-Length: {}\r\n", maker.body().len())));
        assert!(ids.contains(&maker.last_id()));
    }

    #[test]
    fn a_duplicate_says_what_the_first_one_said() {
        let mut maker = maker(Mix { duplicates: 0.5, zipf: 1.1, bad: 0.2, ..Mix::default() });
        let mut said = HashMap::new();
        let mut repeats = 0;
        for _ in 0..2000 {
            let bad = maker.turn() == 1;
            let body = json(&maker);
            assert_eq!(body["client_phone"].as_str().unwrap().starts_with('x'), bad);
            let id = body["external_message_id"].as_str().unwrap().to_owned();
            repeats += said.insert(id, body.clone()).inspect(|before| assert_eq!(*before, body)).iter().count();
        }
        assert!((800..1200).contains(&repeats), "{repeats}");
    }

    #[test]
    fn clients_follow_zipfs_law() {
        let mut maker = maker(Mix { zipf: 1.0, clients: 1000, ..Mix::default() });
        let mut of = HashMap::<String, u32>::new();
        for _ in 0..20_000 {
            maker.turn();
            *of.entry(json(&maker)["external_client_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let mut counts: Vec<u32> = of.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // The first of a thousand writes 1/H(1000) = 13.4 % of all, and twice as much as the second.
        assert!((2300..3050).contains(&counts[0]), "{}", counts[0]);
        assert!((1.6..2.5).contains(&(f64::from(counts[0]) / f64::from(counts[1]))), "{counts:?}");
    }

    #[test]
    fn as_many_are_bad_as_were_asked_for() {
        let mut maker = maker(Mix { batch: 20, bad: 0.1, ..Mix::default() });
        let bad: usize = (0..500).map(|_| maker.turn()).sum();
        assert!((800..1200).contains(&bad), "{bad}");
    }
}
