//! One run, from the first process to the verdict.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use tokio::sync::Mutex;
use weir_core::shutdown::Shutdown;
use weir_stack::SmallDisk;

use crate::fault::{Fault, Part};
use crate::inject::Injector;
use crate::judge::{drain, judge};
use crate::ledger::Ledger;
use crate::load::{Load, Mix, Shared, Wanted};
use crate::plan::{Plan, lock_of};
use crate::report::Report;
use crate::stack::{LEASE, Stack, StackOptions};
use crate::timeline::{SLICE, Timeline};

/// What to do.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// The `weir` binary whose gateways and workers are drilled.
    pub binary: PathBuf,
    /// For servers, logs and the ledger; must be there and empty.
    pub folder: PathBuf,
    /// How long faults are injected at least.
    pub length: Duration,
    /// How many processes have to be killed at least, whatever `length` says.
    pub kills: usize,
    /// Decides faults, times and messages.
    pub seed: u64,
    /// Faults at most; `None` for as many as there is time for.
    pub strikes: Option<usize>,
    /// How long every fault lasts; `None` for a time drawn from the seed.
    pub hold: Option<Duration>,
    /// What may happen.
    pub faults: Vec<Fault>,
    /// Gateway processes.
    pub gateways: usize,
    /// Worker processes.
    pub workers: usize,
    /// Senders, each with one connection.
    pub senders: u16,
    /// Messages a second, all senders together; `None` for as many as they can.
    pub rate: Option<f64>,
    /// How long work may take to go on after a fault; twice as long for everything to drain at the end.
    pub patience: Duration,
    /// Redis syncs its log once a second, and a 2xx promises no more than that.
    pub everysec: bool,
    /// More variables for the roles' environment.
    pub env: BTreeMap<String, String>,
}

/// How far a run is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What it does, in a few words.
    pub phase: &'static str,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Faults that are over.
    pub faults: usize,
    /// Processes killed.
    pub kills: usize,
    /// Share of the run that is over, 0 to 1.
    pub share: f64,
}

/// How long the stack may take until the first message is acknowledged.
const START: Duration = Duration::from_secs(60);

/// Strikers at once: so many parts may be struck at the same time. The second one strikes rarely, so that most faults
/// can be told apart.
const HANDS: u64 = 2;

/// Runs a drill. `progress` is told how far it is, about twice a second; `stop` ends the faults early, and what was done
/// until then is judged.
///
/// # Errors
/// When the stack cannot be started, or a part of it cannot be healed.
pub async fn run(options: &DrillOptions, stop: &Shutdown, progress: impl Fn(&Progress)) -> Result<Report> {
    let (faults, left_out) = possible(&options.faults, &options.folder)?;
    let started = SystemTime::now();
    let phase = |phase| Progress { phase, acknowledged: 0, faults: 0, kills: 0, share: 0.0 };
    progress(&phase("starting the private stack"));
    let stack = Arc::new(
        Stack::start(StackOptions {
            binary: &options.binary,
            folder: &options.folder,
            gateways: options.gateways,
            workers: options.workers,
            small_disk: faults.contains(&Fault::DiskFull),
            env: &options.env,
            everysec: options.everysec,
        })
        .await?,
    );
    let ledger = Arc::new(open_ledger(options)?);
    let timeline = Arc::new(Timeline::new());
    let wanted = Wanted { senders: options.senders, rate: options.rate, mix: Mix::DRILL, seed: options.seed };
    let load = Load::start(&stack.entrances(), wanted, ledger.clone(), timeline.clone());
    first_message(&load.shared(), &options.folder).await?;

    let course = Arc::new(Course::new(options, stop.clone()));
    let sampling = tokio::spawn(sample(stack.clone(), timeline.clone(), course.sampling.clone()));
    let mut hands = Vec::new();
    for hand in 0..HANDS {
        let rarely = if hand == 0 { 1 } else { 8 };
        let plan = Plan::new(options.seed.wrapping_add(hand), &faults, options.kills > 0, LEASE)
            .with_pauses(rarely)
            .held_for(options.hold);
        let injector =
            Injector { stack: stack.clone(), load: load.shared(), patience: options.patience, stop: stop.clone() };
        hands.push(tokio::spawn(course.clone().strike(plan, injector)));
    }
    while hands.iter().any(|hand| !hand.is_finished()) {
        tokio::time::sleep(SLICE).await;
        progress(&course.progress("striking", &load.shared()));
    }
    for hand in hands {
        hand.await??;
    }
    progress(&course.progress("healed; the senders finish", &load.shared()));
    let shared = load.shared();
    load.stop().await?;
    progress(&course.progress("waiting until nothing is in flight", &shared));
    let drained = drain(&stack.queue, &stack.store, 2 * options.patience).await;
    course.sampling.cancel();
    sampling.await?;
    progress(&course.progress("comparing the ledger with rows and dead letters", &shared));
    ledger.flush().context("the ledger cannot be written")?;
    let verdict = judge(&ledger, &stack.queue, &stack.store, drained).await?;
    drop(shared);
    let stack = Arc::into_inner(stack).context("a part of the drill still runs")?;
    stack.stop().await;
    let (slices, events) = timeline.finish();
    Ok(Report::new(options, started, verdict, course.kills(), left_out, slices, events))
}

/// The faults that can be had here, and why others cannot.
fn possible(faults: &[Fault], folder: &Path) -> Result<(Vec<Fault>, Vec<String>)> {
    let mut faults = faults.to_vec();
    let mut left_out = Vec::new();
    if faults.contains(&Fault::DiskFull)
        && let Err(error) = a_small_disk(folder)
    {
        faults.retain(|fault| *fault != Fault::DiskFull);
        left_out.push(format!("{}: no small disk can be mounted here, which takes root: {error}", Fault::DiskFull));
    }
    if faults.is_empty() {
        bail!("none of the faults can be had here: {}", left_out.join("; "));
    }
    Ok((faults, left_out))
}

/// Whether one can be had at all.
fn a_small_disk(folder: &Path) -> std::io::Result<()> {
    SmallDisk::mount(&folder.join("trial"), 1).map(drop)
}

fn open_ledger(options: &DrillOptions) -> Result<Ledger> {
    let run = (options.seed ^ (options.seed >> 32)) as u32;
    let path = options.folder.join("ledger.log");
    Ledger::open(&path, run, options.senders).with_context(|| format!("{} cannot be written", path.display()))
}

async fn first_message(load: &Shared, folder: &Path) -> Result<()> {
    let started = Instant::now();
    while load.accepted() == 0 {
        if started.elapsed() > START {
            bail!("no message was accepted within a minute; the logs in {} say why", folder.display());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What the hands share.
struct Course {
    started: Instant,
    length: Duration,
    wanted_kills: usize,
    strikes: usize,
    stop: Shutdown,
    sampling: Shutdown,
    kills: AtomicUsize,
    struck: AtomicUsize,
    faults: AtomicUsize,
    parts: HashMap<Part, Mutex<()>>,
}

impl Course {
    fn new(options: &DrillOptions, stop: Shutdown) -> Self {
        Self {
            started: Instant::now(),
            length: options.length,
            wanted_kills: if options.faults.iter().any(|fault| fault.kills()) { options.kills } else { 0 },
            strikes: options.strikes.unwrap_or(usize::MAX),
            stop,
            sampling: Shutdown::new(),
            kills: AtomicUsize::default(),
            struck: AtomicUsize::default(),
            faults: AtomicUsize::default(),
            parts: Part::ALL.into_iter().map(|part| (part, Mutex::default())).collect(),
        }
    }

    /// Strikes by the plan until the time is over and enough was killed.
    async fn strike(self: Arc<Self>, plan: Plan, injector: Injector) -> Result<()> {
        for planned in plan {
            let _turn = self.parts[&lock_of(planned.fault.part())].lock().await;
            if self.is_over() || self.struck.fetch_add(1, Ordering::Relaxed) >= self.strikes {
                break;
            }
            let event = injector.run(planned).await?;
            self.kills.fetch_add(usize::from(planned.fault.kills()), Ordering::Relaxed);
            self.faults.fetch_add(1, Ordering::Relaxed);
            injector.load.timeline.add(event);
            drop(_turn);
            self.stop.run_until_cancelled(tokio::time::sleep(planned.pause)).await;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.stop.is_cancelled() || (self.started.elapsed() >= self.length && self.kills() >= self.wanted_kills)
    }

    fn kills(&self) -> usize {
        self.kills.load(Ordering::Relaxed)
    }

    fn progress(&self, phase: &'static str, load: &Shared) -> Progress {
        let time = self.started.elapsed().as_secs_f64() / self.length.as_secs_f64().max(0.001);
        let kills = self.kills() as f64 / self.wanted_kills.max(1) as f64;
        let share = if self.wanted_kills > 0 { time.min(kills) } else { time };
        Progress {
            phase,
            acknowledged: load.accepted(),
            faults: self.faults.load(Ordering::Relaxed),
            kills: self.kills(),
            share: share.min(1.0),
        }
    }
}

/// Ends a slice of the timeline again and again.
async fn sample(stack: Arc<Stack>, timeline: Arc<Timeline>, stop: Shutdown) {
    let stored_before = AtomicU64::new(0);
    let mut since = timeline.now();
    while stop.run_until_cancelled(tokio::time::sleep(SLICE)).await.is_some() {
        let look = tokio::time::timeout(SLICE, stack.queue.balance()).await;
        let stored = look.ok().and_then(Result::ok).map(|balance| balance.stored + balance.duplicate);
        let fresh = stored.map(|stored| stored.saturating_sub(stored_before.swap(stored, Ordering::Relaxed)));
        timeline.end_slice(since, fresh);
        since = timeline.now();
    }
}
