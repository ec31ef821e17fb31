//! PostgreSQL answers, and refuses: it is a standby, full, busy, or gives way to somebody else. That is nobody's fault.

use std::time::Duration;

use weir_stack::testing::{eventually, own_postgres, unique_name};
use weir_store::testing::{self, Session};
use weir_store::{StoreOptions, testing::execute};

use crate::support::{PATIENCE, World, message, messages};

impl World {
    /// What a worker needs to reach the database, with locks that are given up soon.
    fn options(&self, lock_timeout: Duration) -> StoreOptions {
        StoreOptions {
            acquire_timeout: Duration::from_secs(2),
            lock_timeout,
            ..StoreOptions::new(self.database.clone().into())
        }
    }

    fn database_name(&self) -> &str {
        self.database.rsplit('/').next().expect("a name")
    }

    async fn sql(&self, sql: &str) {
        execute(&self.database, sql).await.expect("a statement");
    }

    /// Ends the sessions that are storing messages, as an administrator does; gives how many.
    async fn end_sessions(&self) -> i64 {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event = 'PgSleep'";
        self.number(end).await
    }

    /// Waits until a worker's session waits for a lock that another one holds.
    async fn somebody_waits_for_a_lock(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND application_name = 'weir' AND wait_event_type = 'Lock'";
        eventually("the worker waits for a lock", PATIENCE, async || self.number(waiting).await > 0).await;
    }

    /// Transactions that have stored messages.
    async fn transactions(&self) -> i64 {
        self.number("SELECT count(DISTINCT xmin::text) FROM messages").await
    }

    /// Milliseconds on the clock of Redis.
    async fn clock(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.queue.command(&redis::cmd("TIME")).await.expect("a time");
        seconds * 1000 + micros / 1000
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_waited_for_until_it_is_promoted() {
    let mut postgres = own_postgres().await;
    let database = testing::migrated_database(|name| postgres.url(name), &unique_name()).await.unwrap();
    let world = World::with_database(database, &[]).await;
    let worker = world.start();
    world.accept_new(&messages(0..100)).await;
    world.drained().await;
    postgres.stop().await;
    std::fs::write(postgres.real_dir().join("data/standby.signal"), "").unwrap();
    postgres.restart().await.unwrap();
    assert_eq!(world.number("SELECT pg_is_in_recovery()::int::bigint").await, 1);
    world.accept_new(&messages(100..500)).await;
    world.paused(&worker, "read-only transaction").await;
    world.nobody_was_blamed().await;
    world.sql("SELECT pg_promote()").await;
    let balance = world.drained().await;
    assert_eq!((balance.stored, world.rows().await), (500, 500));
    world.nobody_was_blamed().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_leads_to_a_standby_is_given_up_for_a_new_one() {
    let world = World::new().await;
    let read_only =
        |on| format!(r#"ALTER DATABASE "{}" SET default_transaction_read_only = {on}"#, world.database_name());
    world.sql(&read_only("on")).await;
    let worker = world.start();
    world.accept_new(&messages(0..100)).await;
    world.paused(&worker, "read-only transaction").await;
    // From now on sessions may write that begin anew, as behind an address that leads to the new primary.
    world.sql(&format!("BEGIN READ WRITE; {}; COMMIT", read_only("off"))).await;
    assert_eq!(world.drained().await.stored, 100);
    world.nobody_was_blamed().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_locks_is_waited_for_and_no_claim_is_lost_meanwhile() {
    let world = World::new().await;
    let mut somebody = Session::open(&world.database).await.unwrap();
    somebody.run("BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let options = world.options(Duration::from_millis(200));
    let (one, two) = (world.start_store(World::config(), &options), world.start_store(World::config(), &options));
    let lease = World::config().lease.as_millis() as u64;
    let begin = world.clock().await;
    world.accept_new(&messages(0..3000)).await;
    world.paused(&one, "lock timeout").await;
    world.paused(&two, "lock timeout").await;
    eventually("two leases have passed", PATIENCE, async || world.clock().await > begin + 2 * lease).await;
    assert!(world.balance().await.pending > 0);
    world.nobody_was_blamed().await;
    somebody.run("ROLLBACK").await.unwrap();
    let balance = world.drained().await;
    assert_eq!((balance.stored, world.rows().await), (3000, 3000));
    world.nobody_was_blamed().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_costs_the_transaction_and_nothing_else() {
    let world = World::new().await;
    // The worker waits first, so its session is the one that looks for a deadlock, and gives way.
    world.sql(&format!(r#"ALTER DATABASE "{}" SET deadlock_timeout = '2s'"#, world.database_name())).await;
    let mut batch = messages(0..100);
    batch.sort_by_key(|message| message.key().0);
    let hold = |at: usize| {
        let key = batch[at].key().0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!(
            "INSERT INTO event_keys (id, send_at, fingerprint, entry_ms, entry_seq, partition) VALUES ('{key}', now(), 0, 0, 0, 0)"
        )
    };
    // Of one partition, so that both keys are in one batch.
    let first = &batch[0];
    let of_first = |message: &weir_core::message::Message<'_>| {
        message.key().partition(world.queue.partitions()) == first.key().partition(world.queue.partitions())
    };
    let last = batch.iter().rposition(of_first).unwrap();
    let mut somebody = Session::open(&world.database).await.unwrap();
    somebody.run(&format!("SET deadlock_timeout = '60s'; BEGIN; {}", hold(last))).await.unwrap();
    world.accept_new(&batch).await;
    let worker = world.start();
    world.somebody_waits_for_a_lock().await;
    somebody.run(&hold(0)).await.expect("the worker gives way");
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    eventually("PostgreSQL has counted it", PATIENCE, async || world.number(deadlocks).await == 1).await;
    somebody.run("ROLLBACK").await.unwrap();
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.duplicate, world.rows().await), (100, 0, 100));
    assert_eq!(world.transactions().await, 2, "one for each partition: repeated as a whole");
    world.nobody_was_blamed().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_cannot_be_serialized_is_repeated_as_a_whole() {
    let world = World::new().await;
    world
        .sql(&format!(
            r#"ALTER DATABASE "{}" SET default_transaction_isolation = 'serializable'"#,
            world.database_name()
        ))
        .await;
    let worker = world.start();
    world.accept_new(&messages(0..50)).await;
    world.drained().await;
    let before = world.transactions().await;
    let mut somebody = Session::open(&world.database).await.unwrap();
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
    let update = "UPDATE clients SET last_seen_at = last_seen_at WHERE external_client_id = 'c7'";
    somebody.run(&format!("{begin}; {update}")).await.unwrap();
    let mut newer = messages(1000..1050);
    for message in &mut newer {
        message.client_phone = "+79990000000".into();
    }
    world.accept_new(&newer).await;
    world.somebody_waits_for_a_lock().await;
    // Whoever has read the row before cannot change it now.
    somebody.run("COMMIT").await.unwrap();
    let balance = world.drained().await;
    assert_eq!((balance.stored, world.rows().await), (100, 100));
    assert_eq!(world.transactions().await, before + 2, "one for each partition: repeated as a whole");
    assert_eq!(world.number("SELECT count(*) FROM clients WHERE phone = '+79990000000'").await, 50);
    let rollbacks = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    eventually("a transaction was given up", PATIENCE, async || world.number(rollbacks).await > 0).await;
    world.nobody_was_blamed().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_or_going_down_uses_up_no_attempt() {
    let world = World::new().await;
    world
        .sql(
            "CREATE TABLE trouble (code text); \
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE c text; BEGIN \
             SELECT code INTO c FROM trouble; \
             IF c IS NOT NULL THEN RAISE EXCEPTION 'trouble %', c USING ERRCODE = c; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER fail BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .await;
    let worker = world.start();
    let mut number = 0;
    // Disk full, out of memory, too many connections, three ways of going down, gave way.
    for code in ["53100", "53200", "53300", "57P01", "57P02", "57P03", "40001", "40P01"] {
        world.sql(&format!("TRUNCATE trouble; INSERT INTO trouble VALUES ('{code}')")).await;
        world.accept_new(&messages(number..number + 10)).await;
        number += 10;
        world.paused(&worker, code).await;
        world.nobody_was_blamed().await;
        world.sql("TRUNCATE trouble").await;
        assert_eq!(world.drained().await.stored, number as u64, "{code}");
    }
    assert_eq!(world.rows().await, number as i64);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_connections_left_is_waited_for() {
    let world = World::new().await;
    let role = unique_name();
    world
        .sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; \
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}; ALTER ROLE {role} CONNECTION LIMIT 0"
        ))
        .await;
    let host = world.database.rsplit('@').next().unwrap();
    let worker = world.start_on(World::config(), &format!("postgres://{role}:x@{host}"));
    world.accept_new(&messages(0..100)).await;
    world.paused(&worker, "or the server takes no more").await;
    world.nobody_was_blamed().await;
    world.sql(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    assert_eq!(world.drained().await.stored, 100);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_an_administrator_ends_again_and_again_lose_and_double_nothing() {
    let world = World::new().await;
    // Storing takes long enough for somebody to end it half-way.
    world
        .sql(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$; \
             CREATE TRIGGER dawdle AFTER INSERT ON messages FOR EACH STATEMENT EXECUTE FUNCTION dawdle()",
        )
        .await;
    let worker = world.start();
    let mut ended = 0;
    for chunk in 0..10 {
        world.accept_new(&messages(chunk * 300..chunk * 300 + 300)).await;
        let goal = ended + 1;
        eventually("a session is ended", PATIENCE, async || {
            ended += world.end_sessions().await;
            ended >= goal
        })
        .await;
    }
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.duplicate, world.rows().await), (3000, 0, 3000));
    world.nobody_was_blamed().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_find_no_free_connection_wait_and_do_not_block_each_other() {
    let world = World::new().await;
    let mut somebody = Session::open(&world.database).await.unwrap();
    somebody.run("BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let options = StoreOptions {
        max_connections: 1,
        acquire_timeout: Duration::from_millis(300),
        ..world.options(Duration::from_secs(30))
    };
    world.accept_new(&messages(0..2000)).await;
    let mut config = World::config();
    config.batches = 4;
    let worker = world.start_store(config, &options);
    world.somebody_waits_for_a_lock().await;
    world.paused(&worker, "no connection became free").await;
    world.nobody_was_blamed().await;
    somebody.run("ROLLBACK").await.unwrap();
    let balance = world.drained().await;
    assert_eq!((balance.stored, world.rows().await), (2000, 2000));
    // One that came and went meanwhile did not cost the worker its connection for good.
    world.accept_new(&[message(9999)]).await;
    assert_eq!(world.drained().await.stored, 2001);
    world.nobody_was_blamed().await;
    worker.stop().await;
}
