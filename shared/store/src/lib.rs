//! What Weir's processes agree on through PostgreSQL: all SQL of the product, and nothing but SQL and its types.
//!
//! A message comes here once it has left the queue. A worker [opens](Store::connect_lazy) the store from its
//! [`StoreOptions`] and hands over batches of [`NewEvent`]; [`Store::persist`] makes each batch one transaction (keys,
//! then clients and dialogs that the [`DialogCache`] does not know, then messages and what changes them, profiles, the clients
//! that changed, counts) and answers with one [`Fate`] per event. A failure is a [`StoreError`] whose [`Class`] says whose fault it is. The
//! schema is made by `migrations/`, never silently: [`Store::migrate_up`], [`Store::ensure_partitions`]. Operators look
//! things up with [`Store::find_message`] and at the server with [`Store::server_settings`]. Callers of the API are known by
//! [`Store::find_key`]; they read pages of what is stored, and read and change profiles and employees.

mod lease;
mod options;
mod store;

mod cache;
mod event;
mod persist;
mod profiles;
mod tally;

mod alerts;
mod employees;
mod monitoring;

mod class;
mod error;
mod scrub;

mod migrate;
mod partitions;

mod browse;
mod keys;
mod search;

mod drill;
mod inspect;
mod lookup;

#[cfg(feature = "testing")]
pub mod testing;

pub use alerts::{Alert, AlertChange, AlertFacts, AlertFilter, AlertView, Finding, Verdict};
pub use browse::{Client, Dialog, KeptMessage, Message, Moment};
pub use cache::{DialogCache, DialogKey, KnownDialog};
pub use class::Class;
pub use drill::{FoundPerson, FoundRow, LoneKey, POISON_TEXT};
pub use employees::{
    Backfill, BackfillKind, BackfillStep, Employee, EmployeeFilter, EmployeePatch, FullName, NewEmployee, UndoStep,
};
pub use error::StoreError;
pub use event::{Effect, Fate, NewEvent, News, Person, Place};
pub use inspect::ServerSettings;
pub use keys::{ListedKey, Role, StoredKey};
pub use lookup::StoredMessage;
pub use migrate::MigrationStatus;
pub use monitoring::{CacheCounts, Period, ProfileCounts, ProfileDay, Resolution, WebhookCounts};
pub use options::StoreOptions;
pub use persist::Persisted;
pub use profiles::{
    Cause, Freshness, NOBODY, NameSource, Names, Profile, ProfileChange, ProfileEvent, ProfileFilter, ProfilePlace,
    ProfileStats,
};
pub use search::{FoundMessage, MessageFilter, SearchError, SearchPage};
pub use store::Store;
pub use tally::FailureCount;
