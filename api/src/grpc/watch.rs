//! Tells watchers what changes in profiles.
//!
//! One loop asks the history of all watched profiles for what is behind the last change that each watcher knows. That costs
//! little (an index look-up for each), needs nothing of who writes, and nothing can be missed: not while PostgreSQL is away,
//! nor by a watcher who reads slowly, who is simply told later.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tonic::Status;
use weir_core::shutdown::Shutdown;
use weir_store::{ProfileEvent, Store, StoreError};

use super::convert::{of_names, profile, status};
use super::proto::WatchProfileResponse;

/// How soon watchers hear of a change.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Watchers of one process at most.
const MOST: usize = 10_000;

/// Watchers in one question, and changes for each.
const CHUNK: usize = 1000;
const CHANGES: u16 = 20;

/// Changes that wait for a watcher to read them. As many may come at once.
const WAITING: usize = 32;

type Told = Result<WatchProfileResponse, Status>;

/// Everybody who watches. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watches {
    store: Store,
    list: Arc<Mutex<List>>,
    /// Somebody has begun to watch.
    begun: Arc<Notify>,
}

#[derive(Default)]
struct List {
    watchers: Vec<Watcher>,
    next: u64,
    is_closed: bool,
}

struct Watcher {
    number: u64,
    user_id: String,
    /// The last change that was sent.
    known: i64,
    sender: mpsc::Sender<Told>,
}

impl Watches {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, list: Arc::default(), begun: Arc::default() }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch a profile: behind a revision, or with the profile as it is.
    pub(super) async fn begin(&self, user_id: &str, after: Option<i64>) -> Result<mpsc::Receiver<Told>, Status> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let known = match after {
            Some(revision) => revision,
            None => {
                let first = self.present(user_id).await.map_err(|error| status(&error.into()))?;
                let revision = first.revision;
                // It has room: nothing was sent yet.
                drop(sender.try_send(Ok(first)));
                revision
            }
        };
        let mut list = self.list();
        if list.is_closed {
            return Err(stopping());
        }
        if list.watchers.len() >= MOST {
            return Err(Status::resource_exhausted("too many profiles are watched here; try another server, or later"));
        }
        list.next += 1;
        let number = list.next;
        list.watchers.push(Watcher { number, user_id: user_id.to_owned(), known, sender });
        drop(list);
        self.begun.notify_one();
        Ok(receiver)
    }

    /// The profile as it is. The revision first: a change in between is told once more, and not missed.
    async fn present(&self, user_id: &str) -> Result<WatchProfileResponse, StoreError> {
        let revision = self.store.profile_history(user_id, None, 1).await?.first().map_or(0, |event| event.id);
        let profile = self.store.find_profile(user_id).await?.map(profile);
        Ok(WatchProfileResponse { revision, profile, cause: String::new() })
    }

    /// Tells watchers until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let watch = async {
            loop {
                while self.list().watchers.is_empty() {
                    self.begun.notified().await;
                }
                tick.tick().await;
                if let Err(error) = self.tell().await {
                    tracing::warn!(%error, "watchers of profiles wait: PostgreSQL");
                }
            }
        };
        shutdown.run_until_cancelled(watch).await;
        let mut list = self.list();
        list.is_closed = true;
        for watcher in list.watchers.drain(..) {
            // Who has no room for it sees the stream end.
            drop(watcher.sender.try_send(Err(stopping())));
        }
    }

    /// One look.
    async fn tell(&self) -> Result<(), StoreError> {
        let waiting: Vec<(u64, String, i64)> = {
            let mut list = self.list();
            list.watchers.retain(|watcher| !watcher.sender.is_closed());
            let ready = list.watchers.iter().filter(|watcher| watcher.sender.capacity() > 0);
            ready.map(|watcher| (watcher.number, watcher.user_id.clone(), watcher.known)).collect()
        };
        for chunk in waiting.chunks(CHUNK) {
            let known: Vec<(&str, i64)> = chunk.iter().map(|(_, id, known)| (id.as_str(), *known)).collect();
            let events = self.store.profile_changes(&known, CHANGES).await?;
            if !events.is_empty() {
                self.send(chunk, &events);
            }
        }
        Ok(())
    }

    /// Sends each watcher of the chunk what is new to them. The events are in their order; one may come several times.
    fn send(&self, chunk: &[(u64, String, i64)], events: &[ProfileEvent]) {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { return };
        let mut list = self.list();
        // Numbers grow along the list.
        let watchers = list.watchers.iter_mut().filter(|watcher| (first.0..=last.0).contains(&watcher.number));
        for watcher in watchers {
            for event in events.iter().filter(|event| event.user_id == watcher.user_id) {
                if event.id > watcher.known && watcher.sender.try_send(Ok(message(event))).is_ok() {
                    watcher.known = event.id;
                } else if event.id > watcher.known {
                    break;
                }
            }
        }
    }
}

fn message(event: &ProfileEvent) -> WatchProfileResponse {
    let profile = of_names(event.user_id.clone(), event.new.clone(), event.changed_at);
    WatchProfileResponse { revision: event.id, profile: Some(profile), cause: event.cause.clone() }
}

fn stopping() -> Status {
    Status::unavailable("this server stops; watch on behind the last revision that you have")
}
