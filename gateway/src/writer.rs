//! Group commit: messages that are there at the same moment share one round trip to Redis and one fsync.
//!
//! While `batches` batches are at Redis the next one gathers, so batches are as large as the load asks for and a lone
//! message waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

type Answer = Result<Enqueued, EnqueueError>;

/// A message on its way, and who waits for it.
struct Job {
    entry: NewEntry,
    answer: oneshot::Sender<Answer>,
    _budget: Budget,
}

/// One message's share of the limit of messages in flight. It is given back when Redis has answered, not when the
/// sender has gone away.
struct Budget(Arc<AtomicUsize>);

impl Drop for Budget {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        let judge = Judge::new(pressure.clone(), http.queue_delay, BATCH);
        let work = run(Arc::new(enqueuer), queue, http.batches, judge, trouble);
        (Self { jobs, in_flight: Arc::default(), pressure }, work)
    }

    /// Queues one entry. A receiver that is dropped changes nothing.
    pub(crate) fn send(&self, entry: NewEntry) -> Result<oneshot::Receiver<Answer>, TooMany> {
        self.take_budget(1)?;
        Ok(self.queue(entry))
    }

    /// Queues entries together; all or none. The answers come in their order.
    pub(crate) fn send_all(&self, entries: Vec<NewEntry>) -> Result<Vec<oneshot::Receiver<Answer>>, TooMany> {
        self.take_budget(entries.len())?;
        Ok(entries.into_iter().map(|entry| self.queue(entry)).collect())
    }

    fn take_budget(&self, n: usize) -> Result<(), TooMany> {
        if self.in_flight.fetch_add(n, Ordering::Relaxed) + n > self.pressure.limit() {
            self.in_flight.fetch_sub(n, Ordering::Relaxed);
            return Err(TooMany);
        }
        Ok(())
    }

    /// The entry's share of the limit is taken already.
    fn queue(&self, entry: NewEntry) -> oneshot::Receiver<Answer> {
        let (answer, waiter) = oneshot::channel();
        let job = Job { entry, answer, _budget: Budget(self.in_flight.clone()) };
        // A writer that is gone drops the job, and the waiter hears of it.
        drop(self.jobs.send(job));
        if planted::is(Planted::AnswerBeforeFlush) { answered_already() } else { waiter }
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
fn answered_already() -> oneshot::Receiver<Answer> {
    let (answer, waiter) = oneshot::channel();
    drop(answer.send(Ok(Enqueued::New(MessageId { partition: 0, ms: 0, seq: 0 }))));
    waiter
}

/// What a waiter is told whose batch ended without an answer.
pub(crate) fn lost() -> EnqueueError {
    QueueError::Unknown("the batch ended without an answer".into()).into()
}

async fn run(
    enqueuer: Arc<Enqueuer>,
    mut queue: mpsc::UnboundedReceiver<Job>,
    batches: usize,
    mut judge: Judge,
    trouble: Arc<Notify>,
) {
    let slots = Arc::new(Semaphore::new(batches));
    let out = Arc::new(Out::default());
    let sizes = metrics::histogram!("weir_enqueue_batch_size");
    let mut jobs = Vec::with_capacity(BATCH);
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        if jobs.is_empty() && queue.recv_many(&mut jobs, BATCH).await == 0 {
            break;
        }
        gather(&mut jobs, &mut queue, &out).await;
        let batch = take_batch(&mut jobs);
        judge.sends(batch.len(), Instant::now());
        sizes.record(batch.len() as f64);
        let under_way = UnderWay::new(out.clone(), batch.len());
        let (enqueuer, trouble) = (enqueuer.clone(), trouble.clone());
        tokio::spawn(guarded("batch", Shutdown::new(), async move {
            write(&enqueuer, batch, &trouble).await;
            drop(under_way);
            drop(slot);
        }));
    }
    // Wait for the batches that are still out.
    drop(slots.acquire_many(batches as u32).await);
}

/// The batches that are at Redis.
#[derive(Default)]
struct Out {
    messages: AtomicUsize,
    returned: Notify,
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
async fn gather(jobs: &mut Vec<Job>, queue: &mut mpsc::UnboundedReceiver<Job>, out: &Out) {
    while jobs.len() < BATCH && 2 * jobs.len() < out.messages.load(Ordering::Relaxed) {
        let room = BATCH - jobs.len();
        tokio::select! {
            more = queue.recv_many(jobs, room) => if more == 0 { return },
            () = out.returned.notified() => {}
        }
    }
}

/// The first jobs that fit into one batch.
fn take_batch(jobs: &mut Vec<Job>) -> Vec<Job> {
    let mut bytes = 0;
    let fits = jobs.iter().take_while(|job| {
        bytes += job.entry.envelope.len();
        bytes <= BATCH_BYTES
    });
    let n = fits.count().max(1);
    jobs.drain(..n).collect()
}

async fn write(enqueuer: &Enqueuer, batch: Vec<Job>, trouble: &Notify) {
    let (entries, waiters): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|job| (job.entry, (job.answer, job._budget))).unzip();
    let results = enqueuer.enqueue(&entries).await;
    if let Some(Err(error @ EnqueueError::Queue(_))) = results.iter().find(|result| result.is_err()) {
        tracing::warn!(%error, messages = entries.len(), "a batch was not written, or it is not known whether it was");
        trouble.notify_one();
    }
    for ((answer, _budget), result) in waiters.into_iter().zip(results) {
        drop(answer.send(result));
    }
}
