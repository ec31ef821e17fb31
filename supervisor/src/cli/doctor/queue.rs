//! Checks of the queue: its layout, its groups, its entries, its balance.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;
use weir_core::queue::balance::Balance;
use weir_core::queue::{GROUP, Queue, QueueError, keys};

use super::finding::Findings;
use crate::cli::fleet::roster;
use crate::context::Context;
use crate::output;

const PART: &str = "queue";
/// Pending entries of one stream whose content is looked for.
const SAMPLE: u64 = 200;
/// An entry that is pending for longer than this is named: it keeps the memory of all that came after it.
const PINNED: Duration = Duration::from_secs(60);

pub(super) async fn examine(context: &Context, queue: &Queue, findings: &mut Findings) {
    if let Err(error) = examine_all(context, queue, findings).await {
        findings.fail(PART, "readable", error.to_string(), "see which key or right the text names");
    }
}

async fn examine_all(context: &Context, queue: &Queue, findings: &mut Findings) -> Result<(), QueueError> {
    if !layout(queue, findings).await? {
        return Ok(());
    }
    let mut streams = Streams::default();
    for partition in 0..queue.partitions() {
        let keys = queue.keys(partition);
        for stream in [&keys.ingest, &keys.retry, &keys.suspect] {
            streams.look(queue, stream).await?;
        }
    }
    let leases = roster::leases(queue).await?;
    streams.judge_groups(findings);
    streams.judge_consumers(|consumer| leases.contains_key(consumer), findings);
    streams.judge_oldest(findings);
    balance(queue, &streams, findings).await?;
    window(context, queue, findings).await
}

/// Gives whether there is a queue with our layout.
async fn layout(queue: &Queue, findings: &mut Findings) -> Result<bool, QueueError> {
    let meta: HashMap<String, String> = queue.command(redis::cmd("HGETALL").arg(keys::META)).await?;
    let ours = queue.partitions().to_string();
    match meta.get("partitions") {
        None => {
            let fix = "start a gateway or a worker, which makes it";
            findings.warn(PART, "layout", "this Redis holds no queue yet", fix);
            Ok(false)
        }
        Some(theirs) if *theirs != ours => {
            let found =
                format!("{theirs} partitions there, {ours} configured here: no role of this configuration starts");
            findings.fail(PART, "layout", found, format!("set redis.partitions = {theirs}, or use another Redis"));
            Ok(false)
        }
        Some(theirs) => {
            findings.ok(PART, "layout", format!("{theirs} partitions"));
            Ok(true)
        }
    }
}

/// What all streams that workers read have shown.
#[derive(Default)]
struct Streams {
    seen: usize,
    without_group: Vec<String>,
    lag_unknown: Vec<String>,
    /// Consumer, and the entries that are pending at it.
    consumers: HashMap<String, u64>,
    /// The entries that have been pending for the longest time.
    oldest: Vec<Oldest>,
    sampled: usize,
    ghosts: Vec<String>,
}

struct Oldest {
    stream: String,
    id: String,
    consumer: String,
    idle: Duration,
    deliveries: u64,
    length: u64,
}

type Pending = Vec<(String, String, u64, u64)>;

impl Streams {
    async fn look(&mut self, queue: &Queue, stream: &str) -> Result<(), QueueError> {
        self.seen += 1;
        let mut ask = redis::cmd("XINFO");
        ask.arg("GROUPS").arg(stream);
        let groups: Vec<HashMap<String, Value>> = match queue.command(&ask).await {
            Err(QueueError::Refused { text, .. }) if text.contains("no such key") => Vec::new(),
            groups => groups?,
        };
        let ours = |group: &&HashMap<String, Value>| group.get("name").is_some_and(|name| is_text(name, GROUP));
        let Some(group) = groups.iter().find(ours) else {
            self.without_group.push(stream.to_owned());
            return Ok(());
        };
        if matches!(group.get("lag"), None | Some(Value::Nil)) {
            self.lag_unknown.push(stream.to_owned());
        }
        self.look_at_consumers(queue, stream).await?;
        self.look_at_pending(queue, stream).await
    }

    async fn look_at_consumers(&mut self, queue: &Queue, stream: &str) -> Result<(), QueueError> {
        let mut ask = redis::cmd("XINFO");
        ask.arg("CONSUMERS").arg(stream).arg(GROUP);
        for mut consumer in queue.command::<Vec<HashMap<String, Value>>>(&ask).await? {
            let pending = match consumer.get("pending") {
                Some(Value::Int(pending)) => u64::try_from(*pending).unwrap_or_default(),
                _ => 0,
            };
            if let Some(Value::BulkString(name)) = consumer.remove("name") {
                *self.consumers.entry(String::from_utf8_lossy(&name).into_owned()).or_default() += pending;
            }
        }
        Ok(())
    }

    async fn look_at_pending(&mut self, queue: &Queue, stream: &str) -> Result<(), QueueError> {
        let mut ask = redis::cmd("XPENDING");
        ask.arg(stream).arg(GROUP).arg("-").arg("+").arg(SAMPLE);
        let pending: Pending = queue.command(&ask).await?;
        let Some((id, consumer, idle, deliveries)) = pending.first().cloned() else { return Ok(()) };
        let mut read = redis::pipe();
        for (id, ..) in &pending {
            read.cmd("XRANGE").arg(stream).arg(id).arg(id).arg("COUNT").arg(1);
        }
        self.sampled += pending.len();
        for (reply, (id, ..)) in queue.link().pipeline(&mut read).await?.into_iter().zip(&pending) {
            if matches!(&reply, Ok(Value::Array(found)) if found.is_empty()) {
                self.ghosts.push(format!("{stream} {id}"));
            }
        }
        let length: u64 = queue.command(redis::cmd("XLEN").arg(stream)).await?;
        let idle = Duration::from_millis(idle);
        self.oldest.push(Oldest { stream: stream.to_owned(), id, consumer, idle, deliveries, length });
        Ok(())
    }

    fn judge_groups(&self, findings: &mut Findings) {
        if self.without_group.is_empty() {
            findings.ok(PART, "groups", format!("{} streams, each with its group", self.seen));
        } else {
            let found = format!("missing on {}", some(&self.without_group));
            findings.fail(PART, "groups", found, "restart a worker: it makes them at the beginning of the stream");
        }
        if self.lag_unknown.is_empty() {
            findings.ok(PART, "lag", "known for every stream");
        } else {
            let found = format!("unknown for {}: somebody deleted entries by hand", some(&self.lag_unknown));
            findings.warn(PART, "lag", found, "never XDEL there; it is known again when the stream has run empty");
        }
    }

    fn judge_consumers(&self, holds_lease: impl Fn(&str) -> bool, findings: &mut Findings) {
        let mut leaked: Vec<(&String, &u64)> = self.consumers.iter().filter(|(name, _)| !holds_lease(name)).collect();
        leaked.sort();
        if leaked.is_empty() {
            findings.ok(PART, "consumers", format!("{}, each with a lease", self.consumers.len()));
            return;
        }
        let names: Vec<String> = leaked.iter().map(|(name, pending)| format!("{name} ({pending} pending)")).collect();
        let fix = "start a worker: within a lease's time it takes over what they left";
        findings.warn(PART, "consumers", format!("without a lease: {}", some(&names)), fix);
    }

    fn judge_oldest(&mut self, findings: &mut Findings) {
        if self.ghosts.is_empty() {
            findings.ok(PART, "content", format!("there for all {} pending entries looked at", self.sampled));
        } else {
            let found =
                format!("gone for {} of {} pending entries: {}", self.ghosts.len(), self.sampled, some(&self.ghosts));
            let fix =
                "somebody deleted or trimmed by hand: find who; the worker that holds them gives them up when it ends";
            findings.fail(PART, "content", found, fix);
        }
        self.oldest.sort_by_key(|oldest| std::cmp::Reverse(oldest.idle));
        let pinned = self.oldest.iter().filter(|oldest| oldest.idle >= PINNED).take(3);
        let before = findings.list.len();
        for Oldest { stream, id, consumer, idle, deliveries, length } in pinned {
            let found = format!(
                "{stream} is pinned by {id}: for {} at {consumer}, read {deliveries} times; the stream holds {length} entries",
                output::span(*idle)
            );
            let fix = format!("see the log of {consumer}; `weir fleet drain` makes it hand the entry back");
            findings.warn(PART, "oldest", found, fix);
        }
        if findings.list.len() == before {
            findings.ok(PART, "oldest", "nothing is pending for long");
        }
    }
}

async fn balance(queue: &Queue, streams: &Streams, findings: &mut Findings) -> Result<(), QueueError> {
    let mut sum = Balance::default();
    for (partition, balance) in queue.balances().await?.into_iter().enumerate() {
        if balance.drift() != 0 {
            let found = format!("partition {partition} has a drift of {}", balance.drift());
            let fix = match streams.lag_unknown.is_empty() {
                true => "somebody changed the queue by hand: compare `weir status --partitions` with the audit stream",
                false => "the lag is unknown, so that the backlog is only bounded: see the lag above",
            };
            findings.fail(PART, "balance", found, fix);
        }
        sum += balance;
    }
    if sum.drift() == 0 {
        findings.ok(PART, "balance", format!("{} accepted, every one accounted for", sum.accepted));
    }
    if sum.lost > 0 {
        let found = format!("{} pending entries had no content when their worker ended", sum.lost);
        findings.warn(PART, "lost", found, "somebody deleted entries by hand: find who");
    }
    Ok(())
}

/// An epoch of the dedupe memory that ended before its time was cut short by its cap.
async fn window(context: &Context, queue: &Queue, findings: &mut Findings) -> Result<(), QueueError> {
    let wanted = context.settings.gateway.bounds.window;
    let mut shortest: Option<Duration> = None;
    for partition in 0..queue.partitions() {
        let meta: HashMap<String, String> =
            queue.command(redis::cmd("HGETALL").arg(&queue.keys(partition).seen_meta)).await?;
        let number = |name: &str| meta.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        if number("before") > 0 {
            let lasted = Duration::from_millis(number("started").saturating_sub(number("before_started")));
            shortest = Some(shortest.map_or(lasted, |shortest| shortest.min(lasted)));
        }
    }
    match shortest.filter(|lasted| *lasted < wanted) {
        None => findings.ok(PART, "dedupe window", format!("as configured: {}", output::span(wanted))),
        Some(lasted) => {
            let (lasted, wanted) = (output::span(lasted), output::span(wanted));
            let found = format!("ids are remembered for {lasted}, not for {wanted}: the memory for them was full");
            findings.warn(PART, "dedupe window", found, "raise dedupe.remembered and Redis' memory");
        }
    }
    Ok(())
}

fn is_text(value: &Value, text: &str) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == text.as_bytes(),
        Value::SimpleString(simple) => simple == text,
        _ => false,
    }
}

/// The first few, and how many more.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
