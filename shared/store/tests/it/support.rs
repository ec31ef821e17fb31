//! One database per test, and messages to put into it.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;
use weir_store::{DialogCache, Effect, Fate, NewEvent, Place, Store, StoreOptions};

/// The moment at which the messages of these tests are accepted: 2026-07-01T00:00:00Z.
pub(crate) const ACCEPTED_MS: i64 = 1_782_864_000_000;

/// A store on a database of its own.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) cache: DialogCache,
    pub(crate) options: StoreOptions,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut StoreOptions)) -> Self {
        let server = weir_stack::testing::postgres().await;
        let name = weir_stack::testing::unique_name();
        let url = weir_store::testing::migrated_database(|db| server.url(db), &name).await.expect("a database");
        let mut options = StoreOptions::new(SecretString::from(url));
        adjust(&mut options);
        let store = Store::connect(&options).await.expect("a store");
        Self { store, cache: DialogCache::new(100_000), options }
    }

    pub(crate) async fn persist(&self, batch: &[NewEvent]) -> Vec<Fate> {
        self.store.persist(&self.cache, batch).await.expect("a stored batch").fates
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.store.pool()
    }

    /// Waits until so many sessions wait for a lock.
    pub(crate) async fn until_so_many_wait(&self, sessions: i64) {
        weir_stack::testing::eventually("sessions wait for a lock", Duration::from_secs(60), async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                           AND datname = current_database()";
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(self.pool()).await.unwrap() == sessions
        })
        .await;
    }

    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(query).fetch_one(self.pool()).await.expect("a count")
    }
}

/// A store on an empty database that no migration has touched.
pub(crate) async fn unmigrated() -> Store {
    let server = weir_stack::testing::postgres().await;
    let name = weir_stack::testing::unique_name();
    let maintenance = PgPool::connect(&server.url("postgres")).await.expect("the server");
    let create = sqlx::AssertSqlSafe(format!(r#"CREATE DATABASE "{name}""#));
    sqlx::query(create).execute(&maintenance).await.expect("an empty database");
    let options = StoreOptions::new(SecretString::from(server.url(&name)));
    Store::connect(&options).await.expect("a store")
}

/// Message number `n` of client `n`, with a key and an entry of its own.
pub(crate) fn message(n: usize) -> NewEvent {
    let number = i64::try_from(n).expect("a small number");
    NewEvent {
        key: key(n),
        source: Arc::from("messenger"),
        external_message_id: format!("message-{n}"),
        external_client_id: format!("client-{n}"),
        client_phone: None,
        external_dialog_id: String::new(),
        text: Some(format!("text {n}")),
        extra: None,
        send_at: OffsetDateTime::from_unix_timestamp(1_640_995_200 + number).expect("a time"),
        trace_id: None,
        fingerprint: number,
        place: Place { partition: 1, ms: ACCEPTED_MS, seq: number },
        effect: Effect::Message,
        news: None,
    }
}

/// Keys in no order, as digests are.
pub(crate) fn key(n: usize) -> Uuid {
    let n = (n as u128).wrapping_add(1);
    Uuid::from_u128(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
}

pub(crate) fn messages(numbers: std::ops::Range<usize>) -> Vec<NewEvent> {
    numbers.map(message).collect()
}

/// The same message, read from another entry: a repeat that slipped through the queue's filter.
pub(crate) fn again(message: &NewEvent) -> NewEvent {
    let place = Place { seq: message.place.seq + 1_000_000, ..message.place };
    NewEvent { place, ..message.clone() }
}

pub(crate) fn later(message: &NewEvent, by: Duration) -> NewEvent {
    let ms = message.place.ms + i64::try_from(by.as_millis()).expect("a short time");
    let mut later = message.clone();
    later.place.ms = ms;
    later.send_at += by;
    later
}

pub(crate) fn stored_id(fate: &Fate) -> i64 {
    match fate {
        Fate::Stored { message_id: Some(message_id) } => *message_id,
        other => panic!("not stored: {other:?}"),
    }
}
