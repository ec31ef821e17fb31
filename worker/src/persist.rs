//! Stores a batch, whatever it takes: waits for PostgreSQL, and bisects a batch that fails so that one bad event
//! harms only itself.
//!
//! Every part of a bisected batch is a transaction of its own: savepoints would take locks in another order.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use weir_core::planted::{self, Planted};
use weir_core::shutdown::Shutdown;
use weir_store::{Class, Fate as Stored, NewEvent, Persisted, StoreError};

use crate::fate::Failure;
use crate::state::State;

/// What became of one event.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Committed, now or by the same entry before.
    Stored,
    /// Committed by another entry with the same content.
    Duplicate,
    /// It cannot be stored.
    Failed(Failure),
}

/// The worker stops or lost its lease before everything was stored; nothing is known of the rest.
#[derive(Debug)]
pub(crate) struct Interrupted;

/// Timeouts of one batch in a row after which the batch is suspected and not PostgreSQL.
const TIMEOUTS: u32 = 2;

/// Pause while the deployment is wrong: only a person can mend it.
const DEPLOYMENT_PAUSE: Duration = Duration::from_secs(5);

/// What to do after an attempt.
enum Step {
    Done(Vec<Stored>),
    Wait(Duration),
    Split(StoreError),
}

/// Stores events and gives the outcome of each, in their order. Waits as long as PostgreSQL is away; an outage uses
/// up no attempt.
///
/// # Errors
/// [`Interrupted`] when `stop` comes first.
pub(crate) async fn store(state: &State, batch: &[NewEvent], stop: &Shutdown) -> Result<Vec<Outcome>, Interrupted> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build();
    let mut timeouts = 0;
    loop {
        if stop.is_cancelled() {
            return Err(Interrupted);
        }
        match attempt(state, batch, &mut timeouts).await {
            Step::Done(fates) => return Ok(fates.into_iter().map(outcome).collect()),
            Step::Split(error) if batch.len() == 1 => return Ok(vec![Outcome::Failed(Failure::of_message(&error))]),
            Step::Split(error) => {
                tracing::debug!(messages = batch.len(), class = error.class.as_str(), "splitting a batch");
                let (left, right) = batch.split_at(batch.len() / 2);
                let mut outcomes = Box::pin(store(state, left, stop)).await?;
                outcomes.extend(Box::pin(store(state, right, stop)).await?);
                return Ok(outcomes);
            }
            Step::Wait(at_least) => {
                let pause = backoff.next().unwrap_or(at_least).max(at_least);
                stop.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(Interrupted)?;
            }
        }
    }
}

async fn attempt(state: &State, batch: &[NewEvent], timeouts: &mut u32) -> Step {
    let started = Instant::now();
    match state.store.persist(&state.cache, batch).await {
        Ok(Persisted { fates, profiles }) => {
            state.changed_profiles.put(profiles);
            state.metrics.persist_seconds.record(started.elapsed());
            state.metrics.batch_size.record(batch.len() as f64);
            state.store_is(None);
            Step::Done(fates)
        }
        Err(error) => after_error(state, error, timeouts).await,
    }
}

async fn after_error(state: &State, error: StoreError, timeouts: &mut u32) -> Step {
    metrics::counter!("weir_store_errors_total", "class" => error.class.as_str()).increment(1);
    match error.class {
        Class::Message | Class::Batch => {
            state.store_is(None);
            Step::Split(error)
        }
        Class::Dependency if planted::is(Planted::OutageBurnsAttempts) => Step::Split(error),
        Class::Dependency if error.is_timeout() => {
            *timeouts += 1;
            if *timeouts >= TIMEOUTS && state.store.ping().await.is_ok() {
                return Step::Split(error);
            }
            Step::Wait(Duration::ZERO)
        }
        Class::Dependency => {
            tracing::warn!(error = %error, "PostgreSQL is away or busy; waiting, no attempt is used up");
            state.store_is(Some(format!("PostgreSQL: {error}")));
            Step::Wait(Duration::ZERO)
        }
        Class::Deployment | Class::Damage => {
            tracing::error!(error = %error, class = error.class.as_str(), "PostgreSQL needs a person; the worker is paused and nothing is lost");
            state.store_is(Some(format!("PostgreSQL needs a person: {error}")));
            Step::Wait(DEPLOYMENT_PAUSE)
        }
    }
}

fn outcome(stored: Stored) -> Outcome {
    match stored {
        Stored::Stored { .. } | Stored::AlreadyStored { .. } => Outcome::Stored,
        Stored::Duplicate { .. } => Outcome::Duplicate,
        Stored::Conflict { first } => {
            Outcome::Failed(Failure::Conflict { first: format!("{}-{}-{}", first.partition, first.ms, first.seq) })
        }
    }
}
