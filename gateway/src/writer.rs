//! Group commit: messages that are there at the same moment share one round trip to Redis and one fsync.
//!
//! While `batches` batches are at Redis the next one gathers, so batches are as large as the load asks for and a lone
//! message waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use weir_core::alarm::guarded;
use weir_core::message::MessageId;
use weir_core::planted::{self, Planted};
use weir_core::queue::QueueError;
use weir_core::queue::enqueue::{EnqueueError, Enqueued, Enqueuer, NewEntry};
use weir_core::shutdown::Shutdown;

use crate::config::HttpConfig;
use crate::pressure::{Judge, Pressure};

/// Messages in one batch at most. Redis does nothing else while it runs one: about 5 ms for this many.
const BATCH: usize = 1024;

/// Bytes in one batch at most, roughly.
const BATCH_BYTES: usize = 4 << 20;

/// Messages in a batch that tells how long the way to Redis is.
const SMALL: usize = 64;

/// What became of a message.
pub(crate) type Answer = Result<Enqueued, EnqueueError>;

/// Messages that came together: mostly one, which needs no memory of its own.
pub(crate) type Entries = SmallVec<[NewEntry; 1]>;
/// What became of them, in their order.
pub(crate) type Answers = SmallVec<[Answer; 1]>;

/// Messages on their way that came together, and who waits for them.
struct Job {
    entries: Entries,
    answers: oneshot::Sender<Answers>,
    _budget: Budget,
}

impl Job {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.envelope.len()).sum()
    }
}

/// A share of the limit of messages in flight. It is given back when Redis has answered, not when the sender has gone
/// away.
struct Budget {
    in_flight: Arc<AtomicUsize>,
    messages: usize,
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.messages, Ordering::Relaxed);
    }
}

/// Hands messages to the batches.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::UnboundedSender<Job>,
    in_flight: Arc<AtomicUsize>,
    pressure: Arc<Pressure>,
}

/// There are too many messages in flight.
#[derive(Debug)]
pub(crate) struct TooMany;

/// The answers to messages that were sent together.
pub(crate) struct Waiter {
    messages: usize,
    answers: oneshot::Receiver<Answers>,
    /// What did not fit into one batch with these.
    rest: Option<Box<Waiter>>,
}

impl Waiter {
    /// Waits for the answers, one per message in their order.
    pub(crate) async fn answers(self) -> Answers {
        let Self { messages, answers, rest } = self;
        let mut all = answers.await.unwrap_or_else(|_| (0..messages).map(|_| Err(lost())).collect());
        if let Some(rest) = rest {
            all.extend(Box::pin(rest.answers()).await);
        }
        all
    }
}

impl Writer {
    /// A writer, and what it does, which has to be spawned. It ends when the last clone is gone and the last batch is
    /// done. `trouble` is woken when a batch fails as a whole.
    pub(crate) fn start(
        enqueuer: Enqueuer,
        http: &HttpConfig,
        trouble: Arc<Notify>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (jobs, queue) = mpsc::unbounded_channel();
        let pressure = Pressure::new(http.in_flight);
        let work = run(Arc::new(enqueuer), queue, http.batches, pressure.clone(), http.queue_delay, trouble);
        (Self { jobs, in_flight: Arc::default(), pressure }, work)
    }

    /// Queues entries together, one at least; all or none. A waiter that is dropped changes nothing.
    pub(crate) fn send(&self, entries: Entries) -> Result<Waiter, TooMany> {
        self.take_budget(entries.len())?;
        Ok(self.queue(entries))
    }

    fn take_budget(&self, n: usize) -> Result<(), TooMany> {
        if self.in_flight.fetch_add(n, Ordering::Relaxed) + n > self.pressure.limit() {
            self.in_flight.fetch_sub(n, Ordering::Relaxed);
            self.pressure.turn_away();
            return Err(TooMany);
        }
        Ok(())
    }

    /// The entries' share of the limit is taken already.
    fn queue(&self, mut entries: Entries) -> Waiter {
        let rest: Entries = entries.drain(fitting(&entries)..).collect();
        let (answers, waiter) = oneshot::channel();
        let messages = entries.len();
        let job = Job { entries, answers, _budget: Budget { in_flight: self.in_flight.clone(), messages } };
        // A writer that is gone drops the job, and the waiter hears of it.
        drop(self.jobs.send(job));
        let answers = if planted::is(Planted::AnswerBeforeFlush) { answered_already(messages) } else { waiter };
        let rest = (!rest.is_empty()).then(|| Box::new(self.queue(rest)));
        Waiter { messages, answers, rest }
    }

    /// Whether about so many more would be taken now.
    pub(crate) fn has_room(&self, guess: usize) -> bool {
        self.pressure.lets_in(self.in_flight(), guess)
    }

    /// Messages in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// The planted fault's answer: accepted, whatever Redis will say.
fn answered_already(messages: usize) -> oneshot::Receiver<Answers> {
    let (answers, waiter) = oneshot::channel();
    let answer = |_| Ok(Enqueued::New(MessageId { partition: 0, ms: 0, seq: 0 }));
    drop(answers.send((0..messages).map(answer).collect()));
    waiter
}

/// How many of the first entries fit into one batch; at least one.
fn fitting(entries: &[NewEntry]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        bytes += entry.envelope.len();
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}

/// What is told of a message whose batch ended without an answer.
pub(crate) fn lost() -> EnqueueError {
    QueueError::Unknown("the batch ended without an answer".into()).into()
}

async fn run(
    enqueuer: Arc<Enqueuer>,
    mut queue: mpsc::UnboundedReceiver<Job>,
    batches: usize,
    pressure: Arc<Pressure>,
    queue_delay: Duration,
    trouble: Arc<Notify>,
) {
    let mut judge = Judge::new(pressure.clone(), queue_delay, BATCH / 2);
    let slots = Arc::new(Semaphore::new(batches));
    let out = Arc::new(Out::default());
    let sizes = metrics::histogram!("weir_enqueue_batch_size");
    let mut waiting = Waiting::default();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        if waiting.messages == 0 && !waiting.receive(&mut queue).await {
            break;
        }
        let looks = judge.wants_to_look(Instant::now());
        if looks {
            out.all_returned().await;
        } else {
            gather(&mut waiting, &mut queue, &out).await;
        }
        let batch = waiting.take_batch(if looks { SMALL } else { BATCH });
        let messages = batch.iter().map(|job| job.entries.len()).sum();
        let sent = Instant::now();
        judge.sends(messages, sent);
        sizes.record(messages as f64);
        let tells_the_way = messages <= SMALL && out.messages.load(Ordering::Relaxed) == 0;
        let under_way = UnderWay::new(out.clone(), messages);
        let (enqueuer, trouble, pressure) = (enqueuer.clone(), trouble.clone(), pressure.clone());
        tokio::spawn(guarded("batch", Shutdown::new(), async move {
            let written = write(&enqueuer, batch, &trouble).await;
            if written && tells_the_way {
                pressure.took(sent.elapsed());
            }
            drop(under_way);
            drop(slot);
        }));
    }
    // Wait for the batches that are still out.
    drop(slots.acquire_many(batches as u32).await);
}

/// What waits for the next batch.
#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    messages: usize,
}

impl Waiting {
    /// Takes what is there, or waits for the first. Gives whether there will be more.
    async fn receive(&mut self, queue: &mut mpsc::UnboundedReceiver<Job>) -> bool {
        let before = self.jobs.len();
        let received = queue.recv_many(&mut self.jobs, BATCH).await;
        self.messages += self.jobs[before..].iter().map(|job| job.entries.len()).sum::<usize>();
        received > 0
    }

    /// The first jobs that fit into one batch of so many messages; at least one.
    fn take_batch(&mut self, most: usize) -> Vec<Job> {
        let (mut messages, mut bytes, mut fit) = (0, 0, 0);
        for job in &self.jobs {
            bytes += job.bytes();
            if fit > 0 && (messages + job.entries.len() > most || bytes > BATCH_BYTES) {
                break;
            }
            messages += job.entries.len();
            fit += 1;
        }
        self.messages -= messages;
        self.jobs.drain(..fit).collect()
    }
}

/// The batches that are at Redis.
#[derive(Default)]
struct Out {
    messages: AtomicUsize,
    returned: Notify,
}

impl Out {
    async fn all_returned(&self) {
        while self.messages.load(Ordering::Relaxed) > 0 {
            self.returned.notified().await;
        }
    }
}

/// A batch that is at Redis, until it has returned in whatever way: a batch that panics must not be waited for.
struct UnderWay {
    out: Arc<Out>,
    messages: usize,
}

impl UnderWay {
    fn new(out: Arc<Out>, messages: usize) -> Self {
        out.messages.fetch_add(messages, Ordering::Relaxed);
        Self { out, messages }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.out.messages.fetch_sub(self.messages, Ordering::Relaxed);
        self.out.returned.notify_one();
    }
}

/// Waits until the next batch is worth an fsync of its own: half as large as what is out, or something has returned.
/// Otherwise a large batch would be followed by a tiny one, and that one by the next large one.
async fn gather(waiting: &mut Waiting, queue: &mut mpsc::UnboundedReceiver<Job>, out: &Out) {
    while waiting.messages < BATCH && 2 * waiting.messages < out.messages.load(Ordering::Relaxed) {
        tokio::select! {
            more = waiting.receive(queue) => if !more { return },
            () = out.returned.notified() => {}
        }
    }
}

/// Gives whether Redis has answered.
async fn write(enqueuer: &Enqueuer, batch: Vec<Job>, trouble: &Notify) -> bool {
    let (mut entries, mut waiters) = (Vec::new(), Vec::with_capacity(batch.len()));
    for job in batch {
        waiters.push((job.entries.len(), job.answers, job._budget));
        entries.extend(job.entries);
    }
    let results = enqueuer.enqueue(&entries).await;
    let failed = results.iter().find_map(|result| match result {
        Err(error @ EnqueueError::Queue(_)) => Some(error),
        _ => None,
    });
    let written = failed.is_none();
    if let Some(error) = failed {
        tracing::warn!(%error, messages = entries.len(), "a batch was not written, or it is not known whether it was");
        trouble.notify_one();
    }
    let mut results = results.into_iter();
    for (messages, answers, _budget) in waiters {
        drop(answers.send(results.by_ref().take(messages).collect()));
    }
    written
}
