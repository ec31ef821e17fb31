//! Read, settle, move, bring back.

use std::time::Duration;

use weir_core::queue::QueueError;
use weir_core::queue::consume::{Entry, Lane, Target};
use weir_core::queue::letters::Shelf;
use weir_stack::testing::eventually;

use crate::support::{Place, SOON, dead, ids, letter, retry};

#[tokio::test]
async fn an_entry_is_read_as_it_was_written() {
    let place = Place::new().await;
    let written = place.fill(3).await;
    place.join("w").await;
    let entries = place.read(Lane::Ingest, "w", 10).await;
    assert_eq!(ids(&entries), written);
    let Entry { version, origin, crashes, replay, .. } = &entries[0];
    assert_eq!((version.as_str(), origin, *crashes, replay.as_str()), ("1", &written[0], 0, ""));
    assert!(entries[0].envelope.as_ref().unwrap().starts_with(b"{\"src\""));
    assert!(place.read(Lane::Ingest, "w", 10).await.is_empty());
    assert_eq!(ids(&place.queue.read_pending(0, Lane::Ingest, "w", 10).await.unwrap()), written);

    let pending = place.queue.pending("weir:{0}:ingest", &written[0]).await.unwrap().unwrap();
    assert_eq!((pending.0.as_str(), pending.2), ("w", 2));
    assert_eq!(place.queue.pending("weir:{0}:ingest", "1-1").await.unwrap(), None);
}

#[tokio::test]
async fn a_second_settle_changes_nothing() {
    let place = Place::new().await;
    place.fill(10).await;
    place.join("w").await;
    let entries = place.read(Lane::Ingest, "w", 6).await;
    let ids = ids(&entries);
    for _ in 0..2 {
        place.queue.settle(0, Lane::Ingest, "w", &ids[..4], &ids[4..5]).await.unwrap();
        let balance = place.balance().await;
        assert_eq!((balance.stored, balance.duplicate, balance.pending, balance.undelivered), (4, 1, 1, 4));
    }
    // Settled as something else the second time: what was counted stays.
    place.queue.settle(0, Lane::Ingest, "w", &[], &ids).await.unwrap();
    let balance = place.balance().await;
    assert_eq!((balance.stored, balance.duplicate, balance.pending), (4, 2, 0));
}

#[tokio::test]
async fn a_settle_of_thousands_is_one_call() {
    let place = Place::new().await;
    place.fill(3000).await;
    place.join("w").await;
    let entries = place.read(Lane::Ingest, "w", 3000).await;
    let ids = ids(&entries);
    place.queue.settle(0, Lane::Ingest, "w", &ids[..1700], &ids[1700..]).await.unwrap();
    let balance = place.balance().await;
    assert_eq!((balance.stored, balance.duplicate, balance.in_flight()), (1700, 1300, 0));
}

#[tokio::test]
async fn trimming_stops_below_what_is_pending_and_lag_stays_exact() {
    let place = Place::new().await;
    let written = place.fill(1000).await;
    place.join("w").await;
    let entries = place.read(Lane::Ingest, "w", 600).await;
    let ids = ids(&entries);
    let but_one: Vec<_> = ids.iter().filter(|id| **id != ids[349]).copied().collect();
    place.settle(Lane::Ingest, "w", &but_one).await;

    assert_eq!(place.lag("weir:{0}:ingest").await, Some(400));
    let balance = place.balance().await;
    assert_eq!((balance.pending, balance.undelivered), (1, 400));
    assert_eq!(place.length("weir:{0}:ingest").await, 1000 - 349);
    let rest = place.queue.read_pending(0, Lane::Ingest, "w", 10).await.unwrap();
    assert_eq!(rest[0].id, written[349]);
    assert!(rest[0].envelope.is_some());

    place.settle(Lane::Ingest, "w", &[ids[349]]).await;
    assert_eq!(place.lag("weir:{0}:ingest").await, Some(400));
    assert_eq!(place.read(Lane::Ingest, "w", 1000).await.len(), 400);
}

#[tokio::test]
async fn a_drained_stream_is_empty() {
    let place = Place::new().await;
    place.join("w").await;
    for n in [1, 7, 250] {
        place.fill(n).await;
        let entries = place.read(Lane::Ingest, "w", 1000).await;
        place.settle(Lane::Ingest, "w", &ids(&entries)).await;
        let balance = place.balance().await;
        assert_eq!((balance.ingest_length, balance.in_flight(), balance.oldest_age_ms), (0, 0, 0));
        assert_eq!(place.lag("weir:{0}:ingest").await, Some(0));
    }
    place.fill(3).await;
    assert_eq!(place.lag("weir:{0}:ingest").await, Some(3));
}

#[tokio::test]
async fn a_retry_comes_back_with_its_journey_when_it_is_due() {
    let place = Place::new().await;
    place.fill(2).await;
    place.join("w").await;
    let entries = place.read(Lane::Ingest, "w", 2).await;
    place.move_to("w", &entries[0], retry(Duration::ZERO)).await;
    place.move_to("w", &entries[1], retry(Duration::from_secs(3600))).await;
    let waiting = place.queue.waiting(0, 10).await.unwrap();
    assert_eq!(waiting.len(), 2);
    assert_eq!((&waiting[1].origin, waiting[1].journey.attempts), (&entries[1].id, 1));
    assert_eq!(waiting[1].envelope, *entries[1].envelope.as_ref().unwrap());
    assert!(waiting[1].due_ms > waiting[0].due_ms + 3_500_000);

    assert_eq!(place.queue.bring_back_due(0, 10).await.unwrap(), 1);
    let back = place.read(Lane::Retry, "w", 10).await.remove(0);
    assert_eq!((&back.origin, back.envelope, back.journey.attempts), (&entries[0].id, entries[0].envelope.clone(), 1));
    assert_eq!((back.version.as_str(), back.journey.log[0].error.as_str()), ("1", "a\nb"));
    let balance = place.balance().await;
    assert_eq!((balance.due, balance.pending, balance.retried), (1, 1, 2));
}

#[tokio::test]
async fn a_retry_keeps_an_envelope_of_any_bytes_and_the_replay_that_sent_it() {
    let place = Place::new().await;
    place.make_dead("w", 0).await;
    place.join("w").await;
    let written: Vec<u8> = (0..=255).chain(*b"\n\nlines\n").collect();
    let mut add = redis::cmd("XADD");
    add.arg("weir:{0}:retry").arg("*").arg(&["v", "1", "r", "replay-7", "o", "5-1", "e"]).arg(&written);
    let _: String = place.queue.command(&add).await.unwrap();
    let entry = place.read(Lane::Retry, "w", 1).await.remove(0);
    place.move_to("w", &entry, retry(Duration::ZERO)).await;
    assert_eq!(place.queue.waiting(0, 1).await.unwrap()[0].envelope, written);
    assert_eq!(place.queue.bring_back_due(0, 10).await.unwrap(), 1);
    let back = place.read(Lane::Retry, "w", 1).await.remove(0);
    assert_eq!((back.replay.as_str(), back.origin.as_str(), back.envelope), ("replay-7", "5-1", Some(written)));
}

#[tokio::test]
async fn two_schedulers_at_once_bring_an_entry_back_once() {
    let place = Place::new().await;
    place.join("w").await;
    for _ in 0..5 {
        place.fill(40).await;
        for entry in place.read(Lane::Ingest, "w", 40).await {
            place.move_to("w", &entry, retry(Duration::ZERO)).await;
        }
        let (one, two) = (place.elsewhere(), place.elsewhere());
        let both = tokio::join!(one.bring_back_due(0, 100), two.bring_back_due(0, 100));
        assert_eq!(both.0.unwrap() + both.1.unwrap(), 40);
        let back = place.read(Lane::Retry, "w", 100).await;
        assert_eq!(back.len(), 40);
        place.settle(Lane::Retry, "w", &ids(&back)).await;
        assert_eq!(place.balance().await.in_flight(), 0);
    }
}

#[tokio::test]
async fn at_most_the_limit_comes_back_and_the_earliest_first() {
    let place = Place::new().await;
    place.fill(3).await;
    place.join("w").await;
    let entries = place.read(Lane::Ingest, "w", 3).await;
    for (entry, delay) in entries.iter().zip([1000, 500, 0]) {
        place.move_to("w", entry, retry(Duration::from_millis(delay))).await;
    }
    for expected in [2, 1, 0] {
        eventually("it is due", SOON, async || place.queue.bring_back_due(0, 1).await.unwrap() == 1).await;
        assert_eq!(place.read(Lane::Retry, "w", 10).await[0].origin, entries[expected].id);
    }
}

#[tokio::test]
async fn entries_go_to_many_places_in_one_move() {
    let place = Place::new().await;
    place.fill(250).await;
    place.join("w").await;
    let entries = place.read(Lane::Ingest, "w", 250).await;
    let moves: Vec<_> = entries
        .iter()
        .enumerate()
        .map(|(at, entry)| {
            let target = match at % 3 {
                0 => retry(Duration::from_secs(9)),
                1 => dead(entry),
                _ => Target::Parked(Box::new(letter(entry))),
            };
            (entry, target)
        })
        .collect();
    for _ in 0..2 {
        place.queue.move_entries(0, Lane::Ingest, "w", &moves).await.unwrap();
        let balance = place.balance().await;
        assert_eq!((balance.due, balance.dead, balance.parked, balance.pending), (84, 83, 83, 0));
        assert_eq!((balance.dead_total, balance.retried, balance.ingest_length), (83, 84, 0));
    }
    let parked = place.queue.letters(0, Shelf::Parked, "-", 1).await.unwrap();
    assert_eq!((&parked[0].origin, &parked[0].envelope), (&entries[2].id, entries[2].envelope.as_ref().unwrap()));
}

#[tokio::test]
async fn without_a_lease_nothing_can_be_changed() {
    let place = Place::new().await;
    place.fill(4).await;
    let entries = place.read(Lane::Ingest, "nobody", 4).await;
    place.join("condemned").await;
    let others = place.fill(4).await;
    assert_eq!(place.read(Lane::Ingest, "condemned", 4).await.len(), others.len());
    place.queue.declare_dead(0, "condemned").await.unwrap();
    let before = place.balance().await;
    for name in ["nobody", "condemned"] {
        let settle = place.queue.settle(0, Lane::Ingest, name, &ids(&entries), &[]).await;
        let moved = place.queue.move_entries(0, Lane::Ingest, name, &[(&entries[0], dead(&entries[0]))]).await;
        let renew = place.queue.renew(0, Duration::from_secs(1), &[name.into()]).await;
        let reap = place.queue.reap(0, name, true).await.map(drop);
        let leave = place.queue.leave(0, name).await.map(drop);
        for result in [settle, moved, renew, reap, leave] {
            assert!(matches!(result, Err(QueueError::Fenced)), "{name}: {result:?}");
        }
    }
    let after = place.balance().await;
    assert_eq!((after.stored, after.dead, after.pending), (before.stored, before.dead, 8));
}

#[tokio::test]
async fn a_stream_of_a_wrong_type_stops_a_move_before_it_begins() {
    let place = Place::new().await;
    place.fill(2).await;
    place.join("w").await;
    let entries = place.read(Lane::Ingest, "w", 2).await;
    let () = place.ask(&["SET", "weir:{0}:dead", "rubbish"]).await;
    let error = place.queue.move_entries(0, Lane::Ingest, "w", &[(&entries[0], dead(&entries[0]))]).await.unwrap_err();
    assert!(matches!(error, QueueError::Deployment(_)), "{error:?}");
    let () = place.ask(&["DEL", "weir:{0}:dead"]).await;
    assert_eq!(place.balance().await.pending, 2);
}

#[tokio::test]
async fn an_entry_that_was_deleted_by_hand_comes_without_content() {
    let place = Place::new().await;
    let written = place.fill(2).await;
    place.join("w").await;
    place.read(Lane::Ingest, "w", 2).await;
    let () = place.ask(&["XDEL", "weir:{0}:ingest", &written[0]]).await;
    let pending = place.queue.read_pending(0, Lane::Ingest, "w", 10).await.unwrap();
    assert_eq!(ids(&pending), written);
    assert!(pending[0].envelope.is_none() && pending[1].envelope.is_some());
}
