use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_core::message::MessageId;
use weir_core::queue::consume::Lane;
use weir_core::queue::letters::{Author, Shelf};
use weir_store::testing;

use crate::planting::{Hand, accept, max_message, message, persist, row};
use crate::support::House;

async fn state(house: &House, id: &str) -> Value {
    house.get(&format!("/api/v1/messages/{id}")).await.is(200)
}

fn is_at(state: &Value, phase: &str, id: MessageId) {
    assert_eq!((&state["state"], &state["message_id"]), (&json!(phase), &json!(id.to_string())), "{state}");
    assert!(state["accepted_at"].is_string(), "{state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_found_in_every_place_where_one_can_be() {
    let house = House::new().await;
    house.get("/api/v1/messages/m-1").await.is_problem(404, "not-found");
    let id = accept(&house.queue, &message("m-1")).await;
    is_at(&state(&house, "m-1").await, "queued", id);

    let hand = Hand::join(&house.queue).await;
    let held = hand.read(Lane::Ingest).await;
    is_at(&state(&house, "m-1").await, "queued", id);

    hand.delay(&held).await;
    let waits = state(&house, "m-1").await;
    is_at(&waits, "retrying", id);
    assert!(waits["attempts"] == 1 && waits["next_attempt_at"].is_string(), "{waits}");

    // An hour passes.
    let keys = house.queue.keys(id.partition);
    let members: Vec<String> = house.queue.command(redis::cmd("ZRANGE").arg(&keys.due).arg(0).arg(-1)).await.unwrap();
    house.queue.command::<i64>(redis::cmd("ZADD").arg(&keys.due).arg(1).arg(&members[0])).await.unwrap();
    assert_eq!(house.queue.bring_back_due(id.partition, 10).await.unwrap(), 1);
    let due = state(&house, "m-1").await;
    is_at(&due, "retrying", id);
    assert!(due["attempts"] == 1 && due["next_attempt_at"].is_null(), "{due}");

    hand.bury(&hand.read(Lane::Retry).await).await;
    let dead = state(&house, "m-1").await;
    is_at(&dead, "dead", id);
    assert!(dead["error_class"] == "data" && dead["failed_at"].is_string(), "{dead}");

    let letter = house.queue.letters(id.partition, Shelf::Dead, "-", 1).await.unwrap().pop().unwrap();
    let author = Author { who: "test".into(), why: "test".into() };
    house.queue.purge(id.partition, Shelf::Dead, &author, &[&letter.entry]).await.unwrap();
    is_at(&state(&house, "m-1").await, "gone", id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_message_and_a_stored_one_are_found() {
    let house = House::new().await;
    let hand = Hand::join(&house.queue).await;
    let parked = accept(&house.queue, &message("parked")).await;
    hand.park(&hand.read(Lane::Ingest).await).await;
    is_at(&state(&house, "parked").await, "parked", parked);

    let stored = accept(&house.queue, &message("client-1--1")).await;
    let held = hand.read(Lane::Ingest).await;
    persist(&house.store, &[row("messenger", "client-1", "", 1, None)]).await;
    hand.settle(&held).await;
    let state = state(&house, "client-1--1").await;
    assert_eq!((&state["state"], &state["source"]), (&json!("stored"), &json!("messenger")), "{state}");
    assert_ne!(state["message_id"], stored.to_string(), "this test stores it under another entry");
    assert!(state["stored_at"].is_string() && state["id"].is_i64() && state["dialog_id"].is_i64(), "{state}");
    assert_eq!(state["sent_at"], "2026-07-01T00:00:01.000000Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_max_is_found_by_its_own_id() {
    let house = House::new().await;
    let id = accept(&house.queue, &max_message("mid.7")).await;
    let queued = state(&house, "mid.7").await;
    is_at(&queued, "queued", id);
    assert_eq!(queued["source"], "max");
    // The same id at the messenger comes first, unless MAX is asked for.
    persist(&house.store, &[row("messenger", "c", "d", 1, None), row("max", "c", "d", 1, None)]).await;
    assert_eq!(state(&house, "c-d-1").await["source"], "messenger");
    assert_eq!(state(&house, "c-d-1?source=max").await["source"], "max");
    house.get("/api/v1/messages/c-d-1?source=elsewhere").await.is_problem(404, "not-found");
    house.get("/api/v1/messages/c-d-1?source=No%20Source").await.is_problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_message_is_found_when_nobody_remembers_its_id_any_more() {
    let house = House::new().await;
    let hand = Hand::join(&house.queue).await;
    let id = accept(&house.queue, &message("old")).await;
    hand.bury(&hand.read(Lane::Ingest).await).await;
    // The memory of ids ends a day after.
    let mut forget = redis::cmd("DEL");
    for partition in 0..house.queue.partitions() {
        let pattern = format!("weir:{{{partition}}}:seen:*");
        let keys: Vec<String> = house.queue.command(redis::cmd("KEYS").arg(pattern)).await.unwrap();
        for key in keys {
            forget.arg(key);
        }
    }
    house.queue.command::<i64>(&forget).await.unwrap();
    is_at(&state(&house, "old").await, "dead", id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciliation_tells_of_a_thousand_ids_in_their_order() {
    let house = House::new().await;
    let rows: Vec<_> = (0..900).map(|n| row("messenger", "client", "d", n, None)).collect();
    persist(&house.store, &rows).await;
    let hand = Hand::join(&house.queue).await;
    accept(&house.queue, &message("dead")).await;
    hand.bury(&hand.read(Lane::Ingest).await).await;
    accept(&house.queue, &message("queued")).await;
    let mut ids: Vec<String> = rows.iter().map(|row| row.external_message_id.clone()).collect();
    ids.extend(["dead".to_owned(), "queued".to_owned(), "never sent".to_owned(), "Ж\u{1F600}".to_owned()]);
    ids.extend((0..96).map(|n| format!("unknown-{n}")));
    ids.rotate_right(17);
    let answer = house.post("/api/v1/messages/lookup", &json!({"ids": ids})).await.is(200);
    let items = answer["items"].as_array().unwrap();
    assert_eq!((items.len(), &answer["incomplete"]), (1000, &json!(false)));
    for (id, item) in ids.iter().zip(items) {
        let expected = match id.as_str() {
            "dead" => "dead",
            "queued" => "queued",
            id if id.starts_with("client-d-") => "stored",
            _ => "unknown",
        };
        assert_eq!((&item["external_message_id"], &item["state"]), (&json!(id), &json!(expected)));
    }
    let more: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    house.post("/api/v1/messages/lookup", &json!({"ids": more})).await.is_problem(422, "invalid");
    house.post("/api/v1/messages/lookup", &json!({"ids": []})).await.is_problem(422, "invalid");
    let bad =
        house.post("/api/v1/messages/lookup", &json!({"ids": ["a", "b\u{0}", ""]})).await.is_problem(422, "invalid");
    assert_eq!((&bad["errors"][0]["field"], &bad["errors"][1]["field"]), (&json!("ids[1]"), &json!("ids[2]")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_found_in_the_source_that_knows_them_and_without_their_phone() {
    let house = House::new().await;
    persist(&house.store, &[row("max", "42", "77", 1, Some("+79190000001"))]).await;
    let answer = house.get("/api/v1/clients/42").await;
    assert!(!String::from_utf8_lossy(&answer.body).contains("9190000001"), "{answer:?}");
    let client = answer.is(200);
    assert_eq!((&client["source"], &client["external_client_id"]), (&json!("max"), &json!("42")), "{client}");
    house.get("/api/v1/clients/42?source=messenger").await.is_problem(404, "not-found");
    house.get("/api/v1/clients/43").await.is_problem(404, "not-found");
    house.get("/api/v1/clients/%00").await.is_problem(422, "invalid");
}

/// All ids of a list, page by page.
async fn all_pages(house: &House, path: &str, cursor: &str, id: &str) -> Vec<String> {
    let (mut ids, mut next) = (Vec::new(), String::new());
    for _ in 0..1000 {
        let page = house.get(&format!("{path}{next}")).await.is(200);
        let items = page["items"].as_array().unwrap();
        // The search gives up on a page after a while.
        assert!(!items.is_empty() || path.contains("/search?"), "{path}{next} is behind the last one");
        ids.extend(items.iter().map(|item| item[id].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(place) => next = format!("&{cursor}={place}"),
            None => return ids,
        }
    }
    panic!("{path} has no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_dialogs_have_each_of_them_once() {
    let house = House::new().await;
    let rows: Vec<_> = (0..25).map(|n| row("messenger", "client", &format!("d{n:02}"), n, None)).collect();
    persist(&house.store, &rows).await;
    persist(&house.store, &[row("messenger", "client", "", 99, None), row("messenger", "other", "x", 1, None)]).await;
    let ids = all_pages(&house, "/api/v1/clients/client/dialogs?limit=13", "cursor", "external_dialog_id").await;
    let expected: Vec<String> = std::iter::once(String::new()).chain((0..25).map(|n| format!("d{n:02}"))).collect();
    assert_eq!(ids, expected);
    house.get("/api/v1/clients/nobody/dialogs").await.is_problem(404, "not-found");
    house.get("/api/v1/clients/client/dialogs?cursor=nonsense").await.is_problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_dialog_have_each_message_once_newest_first() {
    let house = House::new().await;
    // Some were sent at the same time.
    let mut rows: Vec<_> = (0..60).map(|n| row("messenger", "client", "d", n, None)).collect();
    rows.iter_mut().enumerate().for_each(|(n, row)| row.send_at = crate::planting::sent(n / 3 * 1_000_000));
    persist(&house.store, &rows).await;
    persist(&house.store, &[row("messenger", "client", "other", 1, None)]).await;
    let dialogs = house.get("/api/v1/clients/client/dialogs").await.is(200);
    let dialog = dialogs["items"][0]["id"].as_i64().unwrap();
    let path = format!("/api/v1/dialogs/{dialog}/messages?limit=12");
    let ids = all_pages(&house, &path, "before", "external_message_id").await;
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (60, 60));
    let numbers: Vec<usize> =
        ids.iter().map(|id| id.rsplit('-').next().unwrap().parse::<usize>().unwrap() / 3).collect();
    assert!(numbers.is_sorted_by(|a, b| a >= b), "{numbers:?}");
    let page = house.get(&format!("{path}&before=2026-07-01T00:00:01Z")).await.is(200);
    let first: BTreeSet<_> =
        page["items"].as_array().unwrap().iter().map(|item| item["text"].clone().to_string()).collect();
    assert_eq!(first, ["\"text 0\"", "\"text 1\"", "\"text 2\""].map(str::to_owned).into());
    assert!(page["next"].is_null());
    house.get("/api/v1/dialogs/0/messages").await.is_problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_shows_what_became_of_it_at_its_provider() {
    let house = House::new().await;
    persist(&house.store, &[row("max", "42", "77", 1, None)]).await;
    let change = "UPDATE messages SET edited_at = '2026-07-02T00:00:00Z', removed_at = '2026-07-03T00:00:00Z', \
                  extra = '{\"attachments\": [{\"type\": \"image\"}]}'";
    testing::execute(&house.database, change).await.unwrap();
    let state = state(&house, "42-77-1").await;
    let expected = (&json!("2026-07-02T00:00:00.000000Z"), &json!("2026-07-03T00:00:00.000000Z"));
    assert_eq!((&state["edited_at"], &state["removed_at"]), expected);
    let page = house.get(&format!("/api/v1/dialogs/{}/messages", state["dialog_id"])).await.is(200);
    let message = &page["items"][0];
    assert_eq!((&message["edited_at"], &message["removed_at"]), expected);
    assert_eq!(message["extra"], json!({"attachments": [{"type": "image"}]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_finds_by_phone_time_and_source_and_by_all_of_them() {
    let house = House::new().await;
    let (mine, other) = (Some("+79190000001"), Some("+79190000002"));
    let mut rows: Vec<_> = (0..30).map(|n| row("messenger", "a", "", n, mine)).collect();
    rows.extend((0..30).map(|n| row("max", "b", "77", n, mine)));
    rows.extend((0..30).map(|n| row("messenger", "c", "", n, other)));
    rows.iter_mut().enumerate().for_each(|(n, row)| row.place.seq = i64::try_from(n).unwrap());
    persist(&house.store, &rows).await;
    let search = async |query: &str| {
        all_pages(&house, &format!("/api/v1/search?limit=7&{query}"), "cursor", "external_message_id").await
    };
    let period = "from=2026-07-01T00:00:10Z&to=2026-07-01T00:00:20Z";
    for (query, count) in [
        ("phone=%2B79190000001".to_owned(), 60),
        ("phone=+79190000001&source=max".to_owned(), 30),
        (format!("phone=79190000001&{period}"), 20),
        (format!("phone=79190000001&source=max&{period}"), 10),
        (period.to_owned(), 30),
        (format!("source=messenger&{period}"), 20),
        (format!("source=max&{period}"), 10),
        ("phone=%2B79190000009".to_owned(), 0),
        ("from=2026-06-01T00:00:00Z".to_owned(), 90),
    ] {
        let ids = search(&query).await;
        assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (count, count), "{query}");
    }
    let newest = house.get(&format!("/api/v1/search?{period}&limit=3")).await.is(200);
    for hit in newest["items"].as_array().unwrap() {
        assert_eq!(hit["sent_at"], "2026-07-01T00:00:19.000000Z");
        assert!(hit["source"].is_string() && hit["external_client_id"].is_string(), "{hit}");
    }
    for wrong in ["phone=12", "phone=abcdefgh", "from=yesterday", "to=1", "cursor=x", "source=A", "limit=501"] {
        let problem = house.get(&format!("/api/v1/search?{wrong}")).await.is_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], wrong.split('=').next().unwrap(), "{wrong}");
    }
}
