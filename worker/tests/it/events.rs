//! Events of MAX: what each does to messages, profiles, history and counts.

use weir_core::event::{Content, Event, MessageChange, User};
use weir_core::queue::enqueue::{Enqueued, Enqueuer, NewEntry};
use weir_core::queue::letters::Shelf;
use weir_stack::testing::eventually;
use weir_store::{Cause, ProfileChange, Store, StoreOptions, testing};

use crate::support::{PATIENCE, World, bounds};

/// 2026-04-01T00:00:00Z.
const AT: i64 = 1_775_001_600_000;

fn event(id: &str, kind: &'static str, at_ms: i64, message: Option<MessageChange<'static>>) -> Event<'static> {
    Event {
        source: "max".into(),
        id: id.to_owned().into(),
        kind: kind.into(),
        at_ms,
        message,
        user: None,
        traceparent: "".into(),
    }
}

fn content(mid: &str, text: &str) -> Content<'static> {
    Content {
        id: mid.to_owned().into(),
        client: "7".into(),
        dialog: "182".into(),
        text: Some(text.to_owned().into()),
        sent_ms: AT,
        extra: None,
    }
}

fn created(mid: &str, text: &str) -> Event<'static> {
    event(&format!("mc:{mid}"), "message_created", AT, Some(MessageChange::Created(content(mid, text))))
}

fn edited(mid: &str, text: &str, after: i64) -> Event<'static> {
    let of = format!("mc:{mid}").into();
    let change = MessageChange::Edited { of, content: content(mid, text) };
    event(&format!("me:{mid}:{after}"), "message_edited", AT + after, Some(change))
}

fn removed(mid: &str, after: i64) -> Event<'static> {
    event(
        &format!("mr:{mid}"),
        "message_removed",
        AT + after,
        Some(MessageChange::Removed { of: format!("mc:{mid}").into() }),
    )
}

fn named(id: &str, first: &str, last: &str) -> Option<User<'static>> {
    let name = |name: &str| Some(name.to_owned().into());
    Some(User { id: id.to_owned().into(), first_name: name(first), last_name: name(last), phone: None })
}

/// Something that tells of a person and of no message.
fn started(id: &str, user: Option<User<'static>>, after: i64) -> Event<'static> {
    Event { user, ..event(&format!("bot_started:{id}:{after}"), "bot_started", AT + after, None) }
}

impl World {
    async fn accept_events(&self, events: &[Event<'_>]) {
        let entries: Vec<NewEntry> = events.iter().map(NewEntry::from).collect();
        for result in Enqueuer::new(self.queue.clone(), bounds()).enqueue(&entries).await {
            assert!(matches!(result, Ok(Enqueued::New(_))), "{result:?}");
        }
    }

    /// Each event in a batch of its own, one after the other.
    async fn process(&self, events: &[Event<'_>]) {
        for event in events {
            self.accept_events(std::slice::from_ref(event)).await;
            self.drained().await;
        }
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        testing::texts(&self.database, sql).await.expect("texts")
    }

    /// Messages as `id|text|milliseconds to the edit|… to the removal`.
    async fn messages(&self) -> Vec<String> {
        let since = |at: &str| format!("coalesce(((extract(epoch FROM {at}) * 1000)::bigint - {AT})::text, '-')");
        let sql = format!(
            "SELECT concat_ws('|', external_message_id, coalesce(text, '-'), {}, {}) FROM messages ORDER BY 1",
            since("edited_at"),
            since("removed_at")
        );
        self.texts(&sql).await
    }

    async fn profiles(&self) -> Vec<String> {
        let sql = "SELECT concat_ws('|', user_id, coalesce(max_first_name, '-'), coalesce(max_last_name, '-'), \
                   coalesce(phone, '-'), source, has_full_name) FROM profiles ORDER BY 1";
        self.texts(sql).await
    }

    /// Counts that are not 0, over all times and shards.
    async fn tallies(&self) -> Vec<String> {
        let sql = "SELECT concat_ws(' ', what, sum(n)) FROM tallies WHERE what <> 'events.ms' GROUP BY what \
                   HAVING sum(n) <> 0 ORDER BY 1";
        self.texts(sql).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_message_becomes_rows_and_its_sender_a_profile() {
    let world = World::new().await;
    let worker = world.start();
    world.process(&[Event { user: named("7", "Анна", "Ким"), ..created("m1", "Привет") }]).await;
    assert_eq!(world.messages().await, ["m1|Привет|-|-"]);
    let row = "SELECT concat_ws('|', c.source, c.external_client_id, d.external_dialog_id) FROM messages m \
               JOIN dialogs d ON d.id = m.dialog_id JOIN clients c ON c.id = d.client_id";
    assert_eq!(world.texts(row).await, ["max|7|182"]);
    assert_eq!(world.profiles().await, ["7|Анна|Ким|-|webhook|t"]);
    let history = "SELECT concat_ws('|', user_id, cause, old IS NULL, new->>'max_first_name') FROM profile_history";
    assert_eq!(world.texts(history).await, ["7|webhook|t|Анна"]);
    let expected = [
        "events.message_created 1",
        "events.people 1",
        "profiles 1",
        "profiles.fresh 1",
        "profiles.full 1",
        "profiles.named 1",
        "profiles.source.webhook 1",
    ];
    assert_eq!(world.tallies().await, expected);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_removals_change_their_message_in_whatever_order_they_come() {
    let world = World::new().await;
    let worker = world.start();
    let edit = |after| edited("m1", &format!("after {after}"), after);
    world.process(&[created("m1", "first"), edit(20), edit(10), removed("m1", 30)]).await;
    assert_eq!(world.messages().await, ["m1|after 20|20|30"]);
    // All before the message.
    world.process(&[removed("m2", 30), edited("m2", "b", 20), edited("m2", "a", 10)]).await;
    assert_eq!(world.number("SELECT count(*) FROM early_changes").await, 3);
    world.process(&[created("m2", "first")]).await;
    eventually("what was early is applied", PATIENCE, async || {
        world.messages().await.last().is_some_and(|message| message == "m2|b|20|30")
    })
    .await;
    assert_eq!(world.number("SELECT count(*) FROM early_changes").await, 0);
    // In one batch, in either order: whichever is stored first, the end is the same.
    world
        .accept_events(&[edited("m3", "a", 10), created("m3", "first"), removed("m3", 5), edited("m3", "b", 20)])
        .await;
    eventually("one batch", PATIENCE, async || {
        world.messages().await.last().is_some_and(|message| message == "m3|b|20|5")
    })
    .await;
    let balance = world.drained().await;
    assert_eq!((balance.accepted, balance.stored, balance.dead), (12, 12, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_event_never_overwrites_a_newer_profile() {
    let world = World::new().await;
    let worker = world.start();
    let anna = |name: &str, after| started("7", named("7", name, "Ким"), after);
    world.process(&[anna("new", 20), anna("old", 10)]).await;
    assert_eq!(world.profiles().await, ["7|new|Ким|-|webhook|t"]);
    // The same name again, later: what lies between is old too.
    world.process(&[anna("new", 40), anna("between", 30)]).await;
    assert_eq!(world.profiles().await, ["7|new|Ким|-|webhook|t"]);
    world.accept_events(&[anna("last", 60), anna("late", 50)]).await;
    world.drained().await;
    assert_eq!(world.profiles().await, ["7|last|Ким|-|webhook|t"]);
    assert_eq!(world.number("SELECT count(*) FROM profile_history").await, 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_a_witness_against_names_that_come_too_late() {
    let world = World::new().await;
    let workers = [world.start(), world.start()];
    let says = |mid: &str, name: &str, after: i64| {
        let mut event = Event { user: named("7", name, "Ким"), at_ms: AT + after, ..created(mid, "text") };
        if let Some(MessageChange::Created(content)) = &mut event.message {
            content.sent_ms = AT + after;
        }
        event
    };
    world.process(&[says("m1", "Anna", 1000), says("m2", "Anna", 9000)]).await;
    // Nothing but the message remembers that she was called so at nine seconds.
    let names_at = format!("SELECT ((extract(epoch FROM names_at) * 1000)::bigint - {AT})::text FROM profiles");
    assert_eq!(world.texts(&names_at).await, ["1000"]);
    world.process(&[says("late", "Olga", 5000), started("7", named("7", "Inna", "Ким"), 6000)]).await;
    assert_eq!(world.profiles().await, ["7|Anna|Ким|-|webhook|t"]);
    assert_eq!(world.number("SELECT count(*) FROM profile_history").await, 1);
    // Sent before the last message, told after it.
    let Some(MessageChange::Created(mut content)) = says("m3", "", 8000).message else { panic!("a message") };
    content.id = "m3".into();
    let told = Event { message: Some(MessageChange::Created(content)), ..says("m3", "Vera", 20_000) };
    world.process(&[told]).await;
    assert_eq!(world.profiles().await, ["7|Vera|Ким|-|webhook|t"]);
    world.process(&[says("m4", "Nina", 30_000)]).await;
    assert_eq!(world.profiles().await, ["7|Nina|Ким|-|webhook|t"]);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_a_message_leave_their_key_and_whoever_is_merely_seen_a_nameless_profile() {
    let world = World::new().await;
    let worker = world.start();
    let seen = User { id: "8".into(), first_name: None, last_name: None, phone: None };
    world.process(&[started("7", named("7", "Анна", ""), 0), started("8", Some(seen), 0), started("9", None, 0)]).await;
    assert_eq!(world.number("SELECT count(*) FROM event_keys WHERE message_id IS NULL").await, 3);
    assert_eq!(world.profiles().await, ["7|Анна|-|-|webhook|f", "8|-|-|-|default|f"]);
    assert_eq!(world.number("SELECT count(*) FROM profile_history").await, 1);
    // Being seen does not take a name away.
    let seen = User { id: "7".into(), first_name: None, last_name: None, phone: Some("+79990000000".into()) };
    world.process(&[started("7", Some(seen), 10)]).await;
    assert_eq!(world.profiles().await[0], "7|Анна|-|+79990000000|webhook|f");
    let expected = [
        "events.bot_started 4",
        "events.people 3",
        "profiles 2",
        "profiles.fresh 2",
        "profiles.named 1",
        "profiles.source.default 1",
        "profiles.source.webhook 1",
    ];
    assert_eq!(world.tallies().await, expected);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_workers_and_repeats_count_and_change_everything_once() {
    let world = World::new().await;
    let workers = [world.start(), world.start(), world.start()];
    let events: Vec<Event<'_>> = (0..600)
        .map(|n| {
            let user = named(&format!("u{}", n % 20), &format!("name {n}"), "x");
            Event { user, at_ms: AT + n, ..created(&format!("m{n}"), "text") }
        })
        .collect();
    for chunk in events.chunks(50) {
        world.accept_events(chunk).await;
    }
    world.drained().await;
    world.forget_ids().await;
    world.accept_events(&events).await;
    let balance = world.drained().await;
    assert_eq!((balance.stored, balance.duplicate, balance.dead), (600, 600, 0));
    let newest: Vec<String> = (0..20).map(|n| format!("u{n}|name {}|x|-|webhook|t", 580 + n)).collect();
    let mut expected = newest;
    expected.sort();
    assert_eq!(world.profiles().await, expected);
    let tallies = world.tallies().await;
    assert!(
        tallies.contains(&"events.message_created 600".into()) && tallies.contains(&"profiles 20".into()),
        "{tallies:?}"
    );
    assert!(tallies.contains(&"profiles.fresh 20".into()) && tallies.contains(&"profiles.source.webhook 20".into()));
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_counted_is_copied_and_dead_events_are_among_it() {
    let world = World::new().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 60;
    let tallies = [(("malformed".to_owned(), now), 3), (("unknown".to_owned(), now - 3 * 1440), 2)].into();
    world.queue.tally(1, &tallies).await.unwrap();
    let workers = [world.start(), world.start()];
    world.accept_events(&[created("poison", "\0")]).await;
    eventually("the letter", PATIENCE, async || world.letters(Shelf::Dead).await.len() == 1).await;
    let letter = world.letters(Shelf::Dead).await.remove(0);
    assert_eq!((&*letter.source, &*letter.external_message_id), ("max", "mc:poison"));
    eventually("all is copied", PATIENCE, async || {
        world.tallies().await == ["failed.dead 1", "failed.malformed 3", "failed.unknown 2"]
    })
    .await;
    eventually("what is old is dropped", PATIENCE, async || {
        world.queue.tallies(1).await.is_ok_and(|tallies| !tallies.keys().any(|(reason, _)| reason == "unknown"))
    })
    .await;
    world.queue.tally(1, &[(("malformed".to_owned(), now), 2)].into()).await.unwrap();
    eventually("more of it too", PATIENCE, async || {
        world.tallies().await == ["failed.dead 1", "failed.malformed 5", "failed.unknown 2"]
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}

impl World {
    /// What the cache holds of somebody.
    async fn cached(&self, user_id: &str) -> String {
        let mut ask = redis::cmd("GET");
        ask.arg(format!("profile:user:{user_id}"));
        self.queue.command::<Option<String>>(&ask).await.expect("a reply").unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_gets_what_changes_and_what_it_has_missed() {
    let world = World::new().await;
    let worker = world.start();
    world.process(&[started("7", named("7", "Anna", "Kim"), 0)]).await;
    eventually("the change is there", PATIENCE, async || world.cached("7").await.contains("Anna")).await;
    worker.stop().await;

    // A worker that died between its commit and the cache: nothing but PostgreSQL knows.
    let store = Store::connect(&StoreOptions::new(world.database.clone().into())).await.expect("a store");
    let told = |id: &str, name: &str| ProfileChange {
        user_provided_name: Some(Some(name.into())),
        ..ProfileChange::new(id, Cause::UserInput, "somebody")
    };
    store.change_profiles(&[told("7", "Olga"), told("8", "Vera")]).await.expect("changed");
    assert!(!world.cached("7").await.contains("Olga"), "nobody has told the cache");
    let worker = world.start();
    eventually("what it missed is there", PATIENCE, async || {
        world.cached("7").await.contains("Olga") && world.cached("8").await.contains("Vera")
    })
    .await;
    let mark = async || world.profile_cache().mark().await.expect("an answer");
    eventually("all so far is there", PATIENCE, async || mark().await.is_some()).await;
    worker.stop().await;
}
