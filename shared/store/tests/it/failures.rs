use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use sqlx::postgres::PgConnectOptions;
use weir_store::{Class, DialogCache, DialogKey, Fate, NewEvent, Store, StoreError, StoreOptions};

use weir_stack::testing::eventually;
use weir_stack::{Direction, FaultProxy};

use crate::support::{Fixture, message, messages, stored_id};

async fn refused(f: &Fixture, bad: NewEvent) -> StoreError {
    let error = f.store.persist(&f.cache, &[message(0), bad, message(2)]).await.expect_err("a refused batch");
    assert_eq!(f.count("event_keys").await, 0, "all or nothing");
    assert_eq!(f.count("clients").await, 0, "all or nothing");
    error
}

#[tokio::test]
async fn a_nul_in_a_text_is_the_messages_fault() {
    let f = Fixture::new().await;
    let error = refused(&f, NewEvent { text: Some("secret\0text".to_owned()), ..message(1) }).await;
    assert_eq!((error.class, error.sqlstate.as_deref()), (Class::Message, Some("22021")));
    assert!(!error.text.contains("secret"), "{}", error.text);
}

#[tokio::test]
async fn a_nul_in_json_is_the_messages_fault() {
    let f = Fixture::new().await;
    let extra = RawValue::from_string(r#"{"secret": "\u0000"}"#.to_owned()).unwrap();
    let error = refused(&f, NewEvent { extra: Some(extra), ..message(1) }).await;
    assert_eq!((error.class, error.sqlstate.as_deref()), (Class::Message, Some("22P05")));
    assert!(!error.text.contains("secret"), "{}", error.text);
}

#[tokio::test]
async fn an_id_too_long_for_its_index_is_the_messages_fault() {
    let f = Fixture::new().await;
    // Random enough not to be compressed.
    let id: String = (0..600).map(|n| message(n).key.simple().to_string()).collect();
    let error = refused(&f, NewEvent { external_client_id: id, ..message(1) }).await;
    assert_eq!((error.class, error.sqlstate.as_deref()), (Class::Message, Some("54000")));
}

#[tokio::test]
async fn a_missing_partition_is_the_deployments_fault() {
    let f = Fixture::new().await;
    let error = refused(&f, NewEvent { send_at: time::macros::datetime!(2222-02-02 2:22 UTC), ..message(1) }).await;
    assert_eq!((error.class, error.sqlstate.as_deref()), (Class::Deployment, Some("23514")));
    assert!(error.text.contains("messages"), "{}", error.text);
}

#[tokio::test]
async fn the_good_rows_of_a_refused_batch_can_be_stored_without_the_bad_one() {
    let f = Fixture::new().await;
    refused(&f, NewEvent { text: Some("\0".to_owned()), ..message(1) }).await;
    f.persist(&[message(0), message(2)]).await;
    assert_eq!(f.count("messages").await, 2);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_a_timeout() {
    let f = Fixture::with(|options| {
        options.statement_timeout = Duration::from_millis(200);
        options.lock_timeout = Duration::from_secs(5);
    })
    .await;
    let _held = hold_messages(&f).await;
    let error = f.store.persist(&f.cache, &messages(0..2)).await.expect_err("a timeout");
    assert_eq!(error.class, Class::Dependency);
    assert!(error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn a_lock_that_is_not_given_is_a_dependency() {
    let f = Fixture::with(|options| options.lock_timeout = Duration::from_millis(100)).await;
    let _held = hold_messages(&f).await;
    let error = f.store.persist(&f.cache, &messages(0..2)).await.expect_err("no lock");
    assert_eq!((error.class, error.sqlstate.as_deref()), (Class::Dependency, Some("55P03")));
    assert!(!error.is_timeout());
}

async fn hold_messages(f: &Fixture) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut transaction = f.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE messages IN SHARE MODE").execute(&mut *transaction).await.unwrap();
    transaction
}

#[tokio::test]
async fn a_table_that_is_not_there_is_the_deployments_fault() {
    let store = crate::support::unmigrated().await;
    let error = store.persist(&DialogCache::new(1), &[message(1)]).await.expect_err("no schema");
    assert_eq!((error.class, error.sqlstate.as_deref()), (Class::Deployment, Some("42P01")));
}

#[tokio::test]
async fn a_server_that_is_down_is_a_dependency_and_no_reason_not_to_start() {
    let port = weir_stack::free_port().expect("a free port");
    let mut options = StoreOptions::new(SecretString::from(format!("postgres://u:hidden@127.0.0.1:{port}/weir")));
    options.acquire_timeout = Duration::from_millis(300);
    let store = Store::connect_lazy(&options).expect("a store without a server");
    for error in [store.ping().await.unwrap_err(), Store::connect(&options).await.unwrap_err()] {
        assert_eq!(error.class, Class::Dependency);
        assert!(!format!("{error:?}").contains("hidden"));
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_the_deployments_fault() {
    let server = weir_stack::testing::postgres().await;
    let options = StoreOptions::new(SecretString::from(server.url("no_such_database")));
    let error = Store::connect(&options).await.unwrap_err();
    assert_eq!((error.class, error.sqlstate.as_deref()), (Class::Deployment, Some("3D000")));
}

#[tokio::test]
async fn a_connection_that_the_server_ended_is_a_dependency_once() {
    let f = Fixture::with(|options| options.max_connections = 1).await;
    let own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(f.pool()).await.unwrap();
    let other = Store::connect(&f.options).await.unwrap();
    sqlx::query("SELECT pg_terminate_backend($1, 5000)").bind(own).execute(other.pool()).await.unwrap();
    if let Err(error) = f.store.persist(&f.cache, &[message(1)]).await {
        assert_eq!(error.class, Class::Dependency, "{error:?}");
    }
    f.persist(&[message(1)]).await;
}

#[tokio::test]
async fn options_and_errors_do_not_print_the_password() {
    let options = StoreOptions::new(SecretString::from("postgres://u:hidden@h/d"));
    assert!(!format!("{options:?}").contains("hidden"));
    let store = Store::connect_lazy(&options).unwrap();
    assert!(!format!("{store:?}").contains("hidden"), "{store:?}");
    for url in ["not a url: hidden", "postgres://u:hidden@h:port/d", "postgres://u:hidden@h/d?sslmode=hidden"] {
        let error = Store::connect_lazy(&StoreOptions::new(SecretString::from(url))).unwrap_err();
        assert_eq!(error.class, Class::Deployment);
        assert!(!error.text.contains("hidden"), "{}", error.text);
    }
}

/// The same database through a proxy, on a single connection and with a deadline of 1.1 s.
async fn through_proxy(f: &Fixture) -> (Store, FaultProxy) {
    let direct: PgConnectOptions = f.options.url.expose_secret().parse().unwrap();
    let proxy = FaultProxy::start(([127, 0, 0, 1], direct.get_port()).into()).await;
    let port_of = |port: u16| format!(":{port}/");
    let url = f.options.url.expose_secret().replace(&port_of(direct.get_port()), &port_of(proxy.addr().port()));
    let options = StoreOptions {
        max_connections: 1,
        acquire_timeout: Duration::from_millis(500),
        statement_timeout: Duration::from_millis(200),
        ..StoreOptions::new(SecretString::from(url))
    };
    (Store::connect(&options).await.expect("a store behind a proxy"), proxy)
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_by_the_next_try() {
    let f = Fixture::new().await;
    let (store, proxy) = through_proxy(&f).await;
    let (faults, first) = (proxy.faults(), AtomicBool::new(true));
    proxy.watch("COMMIT", Direction::Request, move || faults.swallow_replies(first.swap(false, Ordering::SeqCst)));
    let error = store.persist(&f.cache, &[message(1)]).await.expect_err("no answer");
    assert_eq!(error.class, Class::Dependency);
    assert!(error.text.contains("unknown"), "{}", error.text);
    assert!(f.cache.get(&DialogKey::of(&message(1))).is_none());
    proxy.swallow_replies(false);
    let fates = store.persist(&f.cache, &[message(1)]).await.expect("a connection in place of the lost one");
    assert!(matches!(fates.fates[..], [Fate::AlreadyStored { .. }]));
}

#[tokio::test]
async fn calls_that_are_given_up_leave_their_place_in_the_pool() {
    let f = Fixture::new().await;
    let (store, proxy) = through_proxy(&f).await;
    for _ in 0..3 {
        // Before, a call would wait for the connection and not for an answer.
        eventually("the connection is free", Duration::from_secs(10), async || store.pool().num_idle() == 1).await;
        proxy.swallow_replies(true);
        let given_up = tokio::time::timeout(Duration::from_millis(50), store.ping()).await;
        assert!(given_up.is_err());
        proxy.swallow_replies(false);
        eventually("a connection in place of the lost one", Duration::from_secs(10), async || {
            store.ping().await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_cut_before_its_commit_stores_nothing() {
    let f = Fixture::new().await;
    let (store, proxy) = through_proxy(&f).await;
    let faults = proxy.faults();
    proxy.watch("COMMIT", Direction::Request, move || faults.cut());
    let error = store.persist(&f.cache, &[message(1)]).await.expect_err("a cut connection");
    assert_eq!(error.class, Class::Dependency, "{error:?}");
    stored_id(&f.persist(&[message(1)]).await[0]);
}
