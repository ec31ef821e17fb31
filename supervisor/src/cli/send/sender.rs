//! One of the senders: takes numbers, sends their messages, and sends again what may be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderMap;
use indicatif::ProgressBar;
use serde::Deserialize;
use weir_core::message::MessageId;
use weir_core::shutdown::Shutdown;

use super::proof::Proof;
use super::tally::Tally;
use super::traffic::{Sample, Traffic};
use crate::http::{Answer, Connection, Silence};

/// Pause before the second try when nobody says how long; it doubles from try to try.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What all senders share.
pub(super) struct Plan {
    pub(super) traffic: Traffic,
    pub(super) count: u64,
    /// Messages a second of all senders together; none sends as fast as it goes.
    pub(super) rate: Option<f64>,
    /// Messages in one request; none sends each alone.
    pub(super) batch: Option<u64>,
    pub(super) path: String,
    pub(super) proof: Proof,
    /// How long a message is tried.
    pub(super) give_up: Duration,
    pub(super) started: Instant,
    pub(super) next: AtomicU64,
    pub(super) progress: ProgressBar,
    pub(super) stop: Shutdown,
}

/// A message that has no answer for good yet.
struct Open {
    number: u64,
    sample: Sample,
    /// A try may have been accepted although nobody said so.
    unknown: bool,
}

/// What an answer says of one message.
enum Verdict {
    Safe {
        id: Option<MessageId>,
        duplicate: bool,
    },
    Refused {
        status: u16,
        reason: String,
    },
    /// Try again: after so many seconds, if it says so.
    Again {
        status: u16,
        reason: String,
        after: Option<u64>,
        unknown: bool,
    },
}

impl Plan {
    /// The numbers of the next request; none when all are taken or the run is stopped.
    fn take(&self) -> Option<std::ops::Range<u64>> {
        let size = self.batch.unwrap_or(1);
        let first = self.next.fetch_add(size, Ordering::Relaxed);
        let last = (first + size).min(self.count);
        (first < last && !self.stop.is_cancelled()).then_some(first..last)
    }

    /// When a number's turn comes.
    fn turn(&self, number: u64) -> Instant {
        match self.rate {
            // A turn that comes in thirty years is as good as none, and within what clocks can add.
            Some(rate) => self.started + Duration::from_secs_f64((number as f64 / rate).min(1e9)),
            None => self.started,
        }
    }
}

/// Sends until all numbers are taken.
pub(super) async fn run(plan: Arc<Plan>, mut connection: Connection) -> Tally {
    let mut tally = Tally::default();
    while let Some(numbers) = plan.take() {
        let turn = tokio::time::sleep_until(plan.turn(numbers.start).into());
        if plan.stop.run_until_cancelled(turn).await.is_none() {
            break;
        }
        let open = numbers.map(|number| Open { number, sample: plan.traffic.sample(number), unknown: false }).collect();
        send(&plan, &mut connection, &mut tally, open).await;
    }
    tally
}

/// Sends some messages until each has an answer for good, or the time for them is over.
async fn send(plan: &Plan, connection: &mut Connection, tally: &mut Tally, mut open: Vec<Open>) {
    let give_up = Instant::now() + plan.give_up;
    let mut pause = PAUSE;
    loop {
        let verdicts = ask(plan, connection, tally, &open).await;
        let (mut again, mut wait) = (Vec::new(), Duration::ZERO);
        for (mut message, verdict) in open.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Safe { id, duplicate } => {
                    let key = plan.traffic.key(&message.sample);
                    // Its own retry met it: it was accepted the first time.
                    tally.safe(message.number, key, id, duplicate && !message.unknown);
                    plan.progress.inc(1);
                }
                Verdict::Refused { status, reason } => {
                    tally.refused(status, &reason);
                    plan.progress.inc(1);
                }
                Verdict::Again { status, reason, after, unknown } => {
                    message.unknown |= unknown;
                    let pause = after.map_or(pause, Duration::from_secs).max(PAUSE);
                    if Instant::now() + pause > give_up || plan.stop.is_cancelled() {
                        drop_message(plan, tally, &message, status, &reason);
                    } else {
                        wait = wait.max(pause);
                        again.push(message);
                    }
                }
            }
        }
        if again.is_empty() {
            return;
        }
        tally.retried += again.len() as u64;
        plan.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        open = again;
    }
}

fn drop_message(plan: &Plan, tally: &mut Tally, message: &Open, status: u16, reason: &str) {
    if message.unknown || status == 0 {
        tally.unknown(reason);
    } else {
        tally.refused(status, reason);
    }
    plan.progress.inc(1);
}

/// One request with all of `open`, and a verdict on each.
async fn ask(plan: &Plan, connection: &mut Connection, tally: &mut Tally, open: &[Open]) -> Vec<Verdict> {
    let body = match (plan.batch, open) {
        (None, [only]) => serde_json::to_vec(&only.sample),
        _ => serde_json::to_vec(&open.iter().map(|message| &message.sample).collect::<Vec<_>>()),
    };
    let body = Bytes::from(body.expect("samples are always JSON"));
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = plan.proof.of(&body) {
        headers.insert(name, value);
    }
    let asked = Instant::now();
    let answer = connection.post(&plan.path, &headers, body).await;
    if answer.is_ok() {
        tally.answered(asked.elapsed());
    }
    match answer {
        Ok(answer) if plan.batch.is_some() && answer.status.is_success() => judge_batch(&answer, open.len()),
        Ok(answer) => open.iter().map(|_| judge(&answer)).collect(),
        Err(silence) => open.iter().map(|_| judge_silence(&silence)).collect(),
    }
}

fn judge_silence(silence: &Silence) -> Verdict {
    let unknown = matches!(silence, Silence::Unknown(_));
    Verdict::Again { status: 0, reason: silence.to_string(), after: None, unknown }
}

/// What answers have in common: of a message that is safe, and of a problem.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    status: serde_json::Value,
    message_id: String,
    r#type: String,
    detail: String,
    problem: Option<Box<Body>>,
    code: u16,
}

#[derive(Debug, Default, Deserialize)]
struct BatchBody {
    results: Vec<Body>,
}

fn judge(answer: &Answer) -> Verdict {
    let body: Body = serde_json::from_slice(&answer.body).unwrap_or_default();
    judge_one(answer.status.as_u16(), &body, answer.retry_after)
}

fn judge_batch(answer: &Answer, expected: usize) -> Vec<Verdict> {
    let body: BatchBody = serde_json::from_slice(&answer.body).unwrap_or_default();
    if body.results.len() != expected {
        let reason = || format!("the answer has {} results for {expected} messages", body.results.len());
        let unknown = |_| Verdict::Again { status: 0, reason: reason(), after: None, unknown: true };
        return (0..expected).map(unknown).collect();
    }
    let one = |item: &Body| judge_one(item.code, item.problem.as_deref().unwrap_or(item), answer.retry_after);
    body.results.iter().map(one).collect()
}

fn judge_one(status: u16, body: &Body, after: Option<u64>) -> Verdict {
    let safe = |duplicate| Verdict::Safe { id: body.message_id.parse().ok(), duplicate };
    match status {
        200 | 202 => safe(body.status == "duplicate"),
        429 | 503 => {
            let unknown = status == 503 && body.r#type.ends_with(":unknown");
            Verdict::Again { status, reason: reason(status, body), after, unknown }
        }
        500 | 502 | 504 => Verdict::Again { status, reason: reason(status, body), after, unknown: true },
        _ => Verdict::Refused { status, reason: reason(status, body) },
    }
}

fn reason(status: u16, body: &Body) -> String {
    if body.detail.is_empty() { format!("status {status}") } else { format!("status {status}: {}", body.detail) }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn answer(status: u16, retry_after: Option<u64>, body: &'static str) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), retry_after, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn answers_say_whether_a_message_is_safe() {
        let new = answer(202, None, r#"{"status":"accepted","message_id":"1-17-0","durability":"disk"}"#);
        assert!(matches!(judge(&new), Verdict::Safe { id: Some(id), duplicate: false } if id.ms == 17));
        let known = answer(200, None, r#"{"status":"duplicate","message_id":"1-17-0"}"#);
        assert!(matches!(judge(&known), Verdict::Safe { duplicate: true, .. }));
        let conflict = answer(409, None, r#"{"type":"urn:weir:problem:conflict","status":409,"detail":"other"}"#);
        assert!(matches!(judge(&conflict), Verdict::Refused { status: 409, reason } if reason == "status 409: other"));
    }

    #[test]
    fn only_an_unknown_outcome_may_have_been_accepted() {
        let cases = [
            (r#"{"type":"urn:weir:problem:unknown","status":503,"detail":"x"}"#, true),
            (r#"{"type":"urn:weir:problem:backlog","status":503,"detail":"x"}"#, false),
        ];
        for (body, expected) in cases {
            let Verdict::Again { after, unknown, .. } = judge(&answer(503, Some(3), body)) else { panic!("{body}") };
            assert_eq!((after, unknown), (Some(3), expected));
        }
    }

    #[test]
    fn each_message_of_a_batch_has_its_own_answer() {
        let body = r#"{"results":[{"code":202,"status":"accepted","message_id":"0-5-1","durability":"disk"},
            {"code":429,"status":"rejected","problem":{"type":"urn:weir:problem:rate-client","detail":"y"}}]}"#;
        let verdicts = judge_batch(&answer(200, None, body), 2);
        assert!(matches!(verdicts[0], Verdict::Safe { duplicate: false, .. }));
        assert!(matches!(&verdicts[1], Verdict::Again { status: 429, unknown: false, .. }));
        assert!(matches!(judge_batch(&answer(200, None, body), 3)[..], [Verdict::Again { unknown: true, .. }, ..]));
    }
}
