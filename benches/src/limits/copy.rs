//! The limit of the store: binary COPY of the same rows into the same tables, in transactions as large as a worker's and
//! over as many connections as a worker uses at once.

use std::ops::Range;
use std::time::Instant;

use anyhow::Result;
use weir_core::message::Message;
use weir_store::testing::Session;

use crate::child::Watched;
use crate::stage::{self, CLIENTS};

/// Messages in a transaction, and transactions at once: what a worker does by default.
const BATCH: usize = 1000;
pub(crate) const CONNECTIONS: usize = 2;

pub(crate) struct Copied {
    pub(crate) rate: f64,
    /// Processor time of PostgreSQL per row of `messages`, in microseconds.
    pub(crate) postgres_micros: f64,
}

/// Copies so many messages with their keys, clients and dialogs into an empty database.
pub(crate) async fn measure(database: &str, postgres: u32, messages: usize) -> Result<Copied> {
    // Made before the clock starts: a worker's messages come ready from Redis.
    let batches = tokio::task::spawn_blocking(move || prepared(messages)).await?;
    let mut tasks = Vec::new();
    let (before, started) = (Watched::Tree(postgres).cpu()?, Instant::now());
    for share in batches {
        let session = Session::open(database).await?;
        tasks.push(tokio::spawn(copy(session, share)));
    }
    for task in tasks {
        task.await??;
    }
    let (took, cpu) = (started.elapsed(), Watched::Tree(postgres).cpu()?.saturating_sub(before));
    let rows = (messages.div_ceil(BATCH) * BATCH) as f64;
    Ok(Copied { rate: rows / took.as_secs_f64(), postgres_micros: cpu.as_secs_f64() * 1e6 / rows })
}

/// The statements of one transaction, with their rows.
type Batch = Vec<(&'static str, Vec<u8>)>;

/// Each connection's transactions.
fn prepared(messages: usize) -> Vec<Vec<Batch>> {
    let run = rand::random();
    let mut shares: Vec<_> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for batch in 0..messages.div_ceil(BATCH) {
        shares[batch % CONNECTIONS].push(statements(run, batch * BATCH..(batch + 1) * BATCH));
    }
    shares
}

fn statements(run: u32, numbers: Range<usize>) -> Batch {
    let mut batch = Batch::new();
    if numbers.start < CLIENTS {
        let new = numbers.start..numbers.end.min(CLIENTS);
        batch.push((CLIENT, rows(new.clone(), |rows, n| client(rows, run, n))));
        batch.push((DIALOG, rows(new, dialog)));
    }
    // By key, as a worker has them.
    let mut keys: Vec<_> = numbers.clone().map(|n| (stage::message(run, n).key().0, n)).collect();
    keys.sort_unstable();
    batch.push((KEY, rows(keys.iter().map(|key| key.1), |rows, n| key(rows, run, n))));
    batch.push((MESSAGE, rows(numbers, |rows, n| message(rows, run, n))));
    batch
}

async fn copy(mut session: Session, batches: Vec<Batch>) -> Result<()> {
    for batch in batches {
        session.run("BEGIN").await?;
        for (statement, rows) in batch {
            session.copy_in(statement, &rows).await?;
        }
        session.run("COMMIT").await?;
    }
    Ok(())
}

const CLIENT: &str = "COPY clients (id, source, external_client_id, phone, phone_at, first_seen_at, last_seen_at) \
                      FROM STDIN (FORMAT binary)";
const DIALOG: &str = "COPY dialogs (id, client_id) FROM STDIN (FORMAT binary)";
const KEY: &str = "COPY event_keys (id, message_id, send_at, fingerprint, entry_ms, entry_seq, partition) FROM STDIN \
                   (FORMAT binary)";
const MESSAGE: &str = "COPY messages (id, send_at, dialog_id, external_message_id, text, trace_id, accepted_at) FROM STDIN \
                       (FORMAT binary)";

/// A moment within the months that have partitions, in Unix milliseconds.
const ACCEPTED_MS: i64 = 1_760_000_000_000;

fn client(rows: &mut Rows, run: u32, number: usize) {
    let message = stage::message(run, number);
    rows.row(7).int8(number as i64 + 1).text(&message.source).text(&message.external_client_id);
    rows.text(&message.client_phone).time(message.send_at * 1000).time(ACCEPTED_MS).time(ACCEPTED_MS);
}

fn dialog(rows: &mut Rows, number: usize) {
    rows.row(2).int8(number as i64 + 1).int8(number as i64 + 1);
}

fn key(rows: &mut Rows, run: u32, number: usize) {
    let message = stage::message(run, number);
    let (ms, seq) = entry_of(number);
    rows.row(7).bytes(&message.key().0).int8(number as i64 + 1).time(message.send_at * 1000);
    rows.int8(message.fingerprint().as_i64()).int8(ms).int8(seq).bytes(&(number as i16 % 4).to_be_bytes());
}

fn message(rows: &mut Rows, run: u32, number: usize) {
    let message = stage::message(run, number);
    let dialog = number % CLIENTS + 1;
    rows.row(7).int8(number as i64 + 1).time(message.send_at * 1000).int8(dialog as i64);
    rows.text(&message.external_message_id)
        .text(&message.message_text)
        .bytes(&trace(&message))
        .time(entry_of(number).0);
}

/// About as many entries in a millisecond as a gateway accepts.
fn entry_of(number: usize) -> (i64, i64) {
    (ACCEPTED_MS + number as i64 / 50, number as i64 % 50)
}

fn trace(message: &Message<'_>) -> [u8; 16] {
    let id = message.traceparent.split('-').nth(1).unwrap_or_default();
    u128::from_str_radix(id, 16).unwrap_or_default().to_be_bytes()
}

/// Rows in the binary format of COPY.
struct Rows(Vec<u8>);

/// The whole of one COPY.
fn rows(numbers: impl Iterator<Item = usize>, write: impl Fn(&mut Rows, usize)) -> Vec<u8> {
    // Signature, flags, and no extension.
    let mut rows = Rows(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec());
    for number in numbers {
        write(&mut rows, number);
    }
    rows.0.extend_from_slice(&(-1_i16).to_be_bytes());
    rows.0
}

/// 2000-01-01 in Unix milliseconds: PostgreSQL counts microseconds from there.
const EPOCH_MS: i64 = 946_684_800_000;

impl Rows {
    fn row(&mut self, fields: i16) -> &mut Self {
        self.0.extend_from_slice(&fields.to_be_bytes());
        self
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(value.len() as i32).to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    fn int8(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    fn time(&mut self, unix_ms: i64) -> &mut Self {
        self.int8((unix_ms - EPOCH_MS) * 1000)
    }
}
