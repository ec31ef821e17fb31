//! Load with a ledger outside of the system: what was answered, and whether it held.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use weir_store::testing;

use crate::http::{body, parse};
use crate::support::Stack;

/// What the sender knows of one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A 2xx: it must be there.
    Ok,
    /// Nobody knows; it may be there.
    Unknown,
    /// A refusal that says that nothing was accepted.
    Failed,
}

/// Every id that was sent, with the last outcome and the message id of its 2xx answers.
#[derive(Default)]
struct Book {
    outcomes: HashMap<String, Outcome>,
    message_ids: HashMap<String, HashSet<String>>,
    statuses: BTreeMap<u16, usize>,
}

/// Senders that write everything down.
pub(crate) struct Ledger {
    book: Arc<Mutex<Book>>,
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Ledger {
    /// Starts senders that post one message after the other, and an id that got no 2xx once more with the next.
    pub(crate) fn start(port: u16, senders: usize) -> Self {
        Self::start_as("", port, senders)
    }

    /// The same with a name before every id, so that two ledgers have nothing in common.
    pub(crate) fn start_as(name: &str, port: u16, senders: usize) -> Self {
        let mut ledger = Self { book: Arc::default(), sent: Arc::default(), stop: Arc::default(), tasks: Vec::new() };
        for sender in 0..senders {
            let (book, sent, stop) = (ledger.book.clone(), ledger.sent.clone(), ledger.stop.clone());
            let sender = format!("{name}s{sender}");
            ledger.tasks.push(tokio::spawn(async move { send(port, &sender, &book, &sent, &stop).await }));
        }
        ledger
    }

    /// Messages that got a 2xx so far.
    pub(crate) fn accepted(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops the senders.
    pub(crate) async fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.expect("no panic");
        }
    }

    /// Answers with a status so far.
    pub(crate) fn answers(&self, status: u16) -> usize {
        self.book.lock().expect("no panic").statuses.get(&status).copied().unwrap_or_default()
    }

    /// Ids that were acknowledged and have no row.
    pub(crate) fn lost(&self, rows: &HashSet<&String>) -> Vec<String> {
        let book = self.book.lock().expect("no panic");
        let lost = book.outcomes.iter().filter(|(id, outcome)| **outcome == Outcome::Ok && !rows.contains(id));
        lost.map(|(id, _)| id.clone()).collect()
    }

    /// Every id that was sent.
    pub(crate) fn attempted(&self) -> HashSet<String> {
        self.book.lock().expect("no panic").outcomes.keys().cloned().collect()
    }

    /// Ids whose 2xx answers name different messages.
    pub(crate) fn two_truths(&self) -> usize {
        self.book.lock().expect("no panic").message_ids.values().filter(|ids| ids.len() > 1).count()
    }

    /// Judges once everything is drained: ok ⊆ rows ⊆ attempted, every id once, rows + dead = accepted, and one truth
    /// for each id.
    pub(crate) async fn judge(&self, stack: &Stack) {
        let balance = stack.drained().await;
        let rows = testing::texts(&stack.database, "SELECT external_message_id FROM messages").await.expect("rows");
        let unique: HashSet<&String> = rows.iter().collect();
        assert_eq!(unique.len(), rows.len(), "an id is there twice");
        let lost = self.lost(&unique);
        assert!(lost.is_empty(), "{} acknowledged messages are lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
        let attempted = self.attempted();
        assert!(unique.iter().all(|id| attempted.contains(*id)), "rows that nobody sent");
        assert_eq!(self.two_truths(), 0, "ids whose 2xx answers name different messages");
        assert_eq!(balance.dead, 0);
        assert_eq!(rows.len() as u64, balance.stored);
        assert_eq!(balance.stored + balance.duplicate, balance.accepted);
    }
}

async fn send(port: u16, sender: &str, book: &Mutex<Book>, sent: &AtomicUsize, stop: &AtomicBool) {
    let mut connection = None;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = format!("{sender}n{number}");
        // Clients are many, so that no limit is met.
        let body = body(&id, &format!("c{sender}x{}", number / 100), "Здравствуйте");
        let outcome = match post(&mut connection, port, &body).await {
            Ok((status, message_id)) => {
                let mut book = book.lock().expect("no panic");
                *book.statuses.entry(status).or_default() += 1;
                book.message_ids.entry(id.clone()).or_default().extend(message_id);
                match status {
                    200 | 202 => Outcome::Ok,
                    503 => Outcome::Unknown,
                    _ => Outcome::Failed,
                }
            }
            Err(_) => {
                connection = None;
                // The gateway may be gone for a moment.
                tokio::task::yield_now().await;
                Outcome::Unknown
            }
        };
        let mut book = book.lock().expect("no panic");
        let known = book.outcomes.entry(id).or_insert(outcome);
        if *known != Outcome::Ok {
            *known = outcome;
        }
        if outcome == Outcome::Ok {
            sent.fetch_add(1, Ordering::Relaxed);
            number += 1;
        }
    }
}

/// Posts over a kept-alive connection; gives the status and the message id.
async fn post(connection: &mut Option<TcpStream>, port: u16, body: &str) -> io::Result<(u16, Option<String>)> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(TcpStream::connect(("127.0.0.1", port)).await?),
    };
    let head = format!(
        "POST /api/v1/webhook HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..n]);
        // Every answer of the gateway is an object, which ends where the body does.
        if let Some(answer) = parse(&answer).filter(|answer| answer.body.is_object()) {
            return Ok((answer.status, answer.body["message_id"].as_str().map(str::to_owned)));
        }
    }
}
