//! Senders as providers are: each repeats a message until it is acknowledged, and some give up.

mod max;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use weir_core::shutdown::Shutdown;
use weir_store::POISON_TEXT;

use crate::ledger::{Kind, Ledger, Name, Outcome};
use crate::post::{Connection, Reply};
use crate::timeline::Timeline;

use self::max::Bot;

const ONE: &str = "/api/v1/webhook";
const BATCH: &str = "/api/v1/webhook/batch";

/// How long a message that was not acknowledged is repeated after the load has ended.
const LAST_TRIES: Duration = Duration::from_secs(30);

/// What is sent, in how many of a thousand steps of a sender. The rest are single new messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) batches: u32,
    /// Events of MAX. Repeats and poison among them have the shares that they have among all.
    pub(crate) events: u32,
    pub(crate) repeats: u32,
    pub(crate) contradictions: u32,
    pub(crate) invalid: u32,
    pub(crate) poison: u32,
    /// Messages of unknown fate that are given up, of a thousand.
    pub(crate) given_up: u32,
}

impl Mix {
    pub(crate) const DRILL: Mix =
        Mix { batches: 40, events: 150, repeats: 20, contradictions: 5, invalid: 5, poison: 5, given_up: 100 };
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) senders: u16,
    /// Messages a second, all senders together; `None` for as many as they can.
    pub(crate) rate: Option<f64>,
    pub(crate) mix: Mix,
    pub(crate) seed: u64,
}

/// The senders of a run.
pub(crate) struct Load {
    senders: JoinSet<()>,
    stop: Shutdown,
    shared: Arc<Shared>,
}

/// What the senders share with who watches them.
pub(crate) struct Shared {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) timeline: Arc<Timeline>,
    /// Microseconds since the start at which each gateway's last acknowledged request was *sent*.
    last_ok: Vec<AtomicU64>,
    /// Messages acknowledged.
    accepted: AtomicU64,
}

impl Shared {
    /// When the last acknowledged request of a gateway was sent, in seconds since the start.
    pub(crate) fn last_ok(&self, gateway: usize) -> f64 {
        self.last_ok[gateway].load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Messages acknowledged so far, each counted once.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }
}

impl Load {
    /// Starts the senders, spread over the gateways.
    pub(crate) fn start(gateways: &[SocketAddr], wanted: Wanted, ledger: Arc<Ledger>, timeline: Arc<Timeline>) -> Self {
        let last_ok = gateways.iter().map(|_| AtomicU64::default()).collect();
        let shared = Arc::new(Shared { ledger, timeline, last_ok, accepted: AtomicU64::default() });
        let stop = Shutdown::new();
        let mut tasks = JoinSet::new();
        for number in 0..wanted.senders {
            let gateway = usize::from(number) % gateways.len();
            let sender = Sender {
                number,
                gateway,
                connection: Connection::new(gateways[gateway]),
                rng: StdRng::seed_from_u64(wanted.seed ^ (u64::from(number) << 32)),
                mix: wanted.mix,
                pace: Pace::new(wanted.rate.map(|rate| rate / f64::from(wanted.senders))),
                shared: shared.clone(),
                stop: stop.clone(),
                acknowledged: Vec::new(),
                bot: Bot::new(),
            };
            tasks.spawn(sender.run());
        }
        Self { senders: tasks, stop, shared }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Lets every sender finish its message, and stops them.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.senders.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// How many acknowledged messages a sender remembers for repeats.
const REMEMBERED: usize = 256;

struct Sender {
    number: u16,
    gateway: usize,
    connection: Connection,
    rng: StdRng,
    mix: Mix,
    pace: Pace,
    shared: Arc<Shared>,
    stop: Shutdown,
    acknowledged: Vec<Name>,
    bot: Bot,
}

impl Sender {
    async fn run(mut self) {
        while !self.stop.is_cancelled() {
            self.stop.run_until_cancelled(self.pace.wait()).await;
            let mix = self.mix;
            let mut roll: u32 = self.rng.random_range(0..1000);
            let mut drawn = |share: u32| match roll.checked_sub(share) {
                Some(rest) => {
                    roll = rest;
                    false
                }
                None => {
                    roll = u32::MAX;
                    true
                }
            };
            if drawn(mix.batches) {
                self.send_batch().await;
            } else if drawn(mix.events) {
                self.send_event().await;
            } else if drawn(mix.repeats) {
                self.repeat().await;
            } else if drawn(mix.contradictions) {
                self.contradict().await;
            } else if drawn(mix.invalid) {
                self.send_invalid().await;
            } else if drawn(mix.poison) {
                self.send(Kind::Poison).await;
            } else {
                self.send(Kind::Good).await;
            }
        }
    }

    /// Sends one message until it is acknowledged or given up.
    async fn send(&mut self, kind: Kind) {
        let name = self.shared.ledger.new_message(self.number, kind);
        let mut deadline = Deadline::new(&self.stop);
        loop {
            let (outcome, status, body) = self.exchange(ONE, self.message(name, kind).to_string(), 1).await;
            self.shared.ledger.told(name, outcome, status, body["message_id"].as_str());
            if outcome == Outcome::Ok {
                self.acknowledge(name);
                return;
            }
            if self.gives_up(outcome) || deadline.is_over() {
                return;
            }
            self.pause().await;
        }
    }

    /// Sends a batch; what is not acknowledged is sent again, each by itself with the rest.
    async fn send_batch(&mut self) {
        let n = self.rng.random_range(2..=50);
        let mut open: Vec<Name> = (0..n).map(|_| self.shared.ledger.new_message(self.number, Kind::Good)).collect();
        let mut deadline = Deadline::new(&self.stop);
        loop {
            let items: Vec<Value> = open.iter().map(|name| self.message(*name, Kind::Good)).collect();
            let (outcome, status, body) = self.exchange(BATCH, Value::from(items).to_string(), open.len() as u64).await;
            let results = body["results"].as_array().cloned().unwrap_or_default();
            let mut left = Vec::new();
            for (index, name) in open.into_iter().enumerate() {
                let (told, status, id) = match results.get(index) {
                    Some(result) if outcome == Outcome::Ok => {
                        let status = result["code"].as_u64().map_or(0, |status| status as u16);
                        (of_item(result), status, result["message_id"].as_str())
                    }
                    // A 2xx without a result for each would be a promise that nobody can hold it to.
                    _ if outcome == Outcome::Ok => (Outcome::Unknown, 0, None),
                    _ => (outcome, status, None),
                };
                self.shared.ledger.told(name, told, status, id);
                if told == Outcome::Ok { self.acknowledge(name) } else { left.push(name) }
            }
            if left.is_empty() || self.gives_up(outcome) || deadline.is_over() {
                return;
            }
            open = left;
            self.pause().await;
        }
    }

    /// Sends what was acknowledged once more.
    async fn repeat(&mut self) {
        let Some(name) = self.remembered() else { return };
        let (_, status, body) = self.exchange(ONE, self.message(name, Kind::Good).to_string(), 0).await;
        self.shared.ledger.repeated(name, status, body["message_id"].as_str());
    }

    /// Sends other content under an acknowledged id.
    async fn contradict(&mut self) {
        let Some(name) = self.remembered() else { return };
        let mut message = self.message(name, Kind::Good);
        message["message_text"] = "something else".into();
        let (_, status, _) = self.exchange(ONE, message.to_string(), 0).await;
        self.shared.ledger.contradicted(status);
    }

    /// Sends what the gateway has to refuse: without a client, with a time that is no time, or cut off.
    async fn send_invalid(&mut self) {
        let name = self.shared.ledger.new_message(self.number, Kind::Invalid);
        let mut message = self.message(name, Kind::Good);
        let text = match self.rng.random_range(0..3) {
            0 => {
                message["external_client_id"] = Value::Null;
                message.to_string()
            }
            1 => {
                message["send_at"] = "yesterday".into();
                message.to_string()
            }
            _ => message.to_string()[..60].to_owned(),
        };
        let (outcome, status, _) = self.exchange(ONE, text, 0).await;
        self.shared.ledger.told(name, outcome, status, None);
    }

    /// One request, counted in the timeline as so many messages.
    async fn exchange(&mut self, path: &str, body: String, messages: u64) -> (Outcome, u16, Value) {
        self.pace.spend(messages.max(1));
        let sent = Instant::now();
        let sent_at = self.shared.timeline.now();
        let (outcome, status, body) = match self.connection.post(path, body).await {
            Reply::Answer { status, body } => (of_status(status), status, body),
            Reply::NotSent => (Outcome::Failed, 0, Value::Null),
            Reply::Unknown => (Outcome::Unknown, 0, Value::Null),
        };
        if outcome == Outcome::Ok {
            self.shared.timeline.accepted(messages, sent.elapsed());
            self.shared.last_ok[self.gateway].fetch_max((sent_at * 1e6) as u64, Ordering::Relaxed);
        } else {
            self.shared.timeline.failed(messages);
        }
        (outcome, status, body)
    }

    fn message(&self, name: Name, kind: Kind) -> Value {
        let id = self.shared.ledger.id(name);
        let client = name.number % 5000;
        json!({
            "external_message_id": id,
            "external_client_id": format!("drill-{:04x}-{client:04x}", name.sender),
            "client_phone": format!("+7919{:03}{client:04}", name.sender % 1000),
            "message_text": if kind == Kind::Poison { POISON_TEXT } else { "Здравствуйте! Где мой заказ?" },
            "send_at": 1_760_000_000 + u64::from(name.number),
        })
    }

    fn acknowledge(&mut self, name: Name) {
        self.shared.count();
        if self.shared.ledger.record(name).is_some_and(|record| record.kind == Kind::Good) {
            remember(&mut self.acknowledged, name, &mut self.rng);
        }
    }

    fn remembered(&mut self) -> Option<Name> {
        let n = self.acknowledged.len();
        (n > 0).then(|| self.acknowledged[self.rng.random_range(0..n)])
    }

    fn gives_up(&mut self, outcome: Outcome) -> bool {
        outcome == Outcome::Unknown && self.rng.random_range(0..1000) < self.mix.given_up
    }

    /// A little longer and a little random, so that senders do not come back all at once.
    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(20..120))).await;
    }
}

/// Adds something to a sender's memory, at random in the place of something else once it is full.
fn remember<T>(memory: &mut Vec<T>, new: T, rng: &mut StdRng) {
    if memory.len() < REMEMBERED {
        memory.push(new);
    } else {
        memory[rng.random_range(0..REMEMBERED)] = new;
    }
}

/// Spaces messages out. Who was held up makes up for at most a second of it.
struct Pace {
    each: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(per_second: Option<f64>) -> Self {
        Self { each: per_second.map(|rate| Duration::from_secs_f64(1.0 / rate)), next: Instant::now() }
    }

    fn spend(&mut self, messages: u64) {
        let Some(each) = self.each else { return };
        let oldest = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(self.next);
        self.next = self.next.max(oldest) + each * u32::try_from(messages).unwrap_or(u32::MAX);
    }

    async fn wait(&self) {
        if self.each.is_some() {
            tokio::time::sleep_until(self.next.into()).await;
        }
    }
}

/// Counts from the moment the load ends.
struct Deadline {
    stop: Shutdown,
    ends: Option<Instant>,
}

impl Deadline {
    fn new(stop: &Shutdown) -> Self {
        Self { stop: stop.clone(), ends: None }
    }

    fn is_over(&mut self) -> bool {
        self.stop.is_cancelled() && Instant::now() >= *self.ends.get_or_insert_with(|| Instant::now() + LAST_TRIES)
    }
}

/// A 5xx may follow after something was written; every other refusal says that nothing was.
fn of_status(status: u16) -> Outcome {
    match status {
        200..300 => Outcome::Ok,
        300..500 => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

fn of_item(result: &Value) -> Outcome {
    match result["status"].as_str() {
        Some("accepted" | "duplicate") => Outcome::Ok,
        _ => Outcome::Unknown,
    }
}
