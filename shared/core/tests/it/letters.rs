//! What operators do with dead and parked letters.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_core::dead_letter::DeadLetter;
use weir_core::queue::consume::{Lane, Target};
use weir_core::queue::letters::{Author, Shelf};

use crate::support::{Place, dead, ids, letter, retry};

fn author() -> Author {
    Author { who: "olga".into(), why: "ticket 7".into() }
}

fn refs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

/// The acts of the audit stream, as `act from count`.
async fn acts(place: &Place) -> Vec<String> {
    let entries = place.queue.audit(0, 100).await.unwrap();
    let act = |entry: weir_core::queue::consume::StreamEntry| {
        let text = |name: &str| String::from_utf8(entry.fields.get(name).cloned().unwrap_or_default()).unwrap();
        assert_eq!((text("who").as_str(), text("why").as_str()), ("olga", "ticket 7"));
        format!("{} {} {}", text("act"), text("from"), text("count"))
    };
    entries.into_iter().map(act).collect()
}

#[tokio::test]
async fn a_replay_moves_each_letter_once_and_keeps_its_origin() {
    let place = Place::new().await;
    place.join("w").await;
    let letters = place.make_dead("w", 5).await;
    let before = place.queue.letters(0, Shelf::Dead, "-", 10).await.unwrap();
    let moved = place.queue.replay(0, Shelf::Dead, "r1", &author(), &refs(&letters[..3])).await.unwrap();
    assert!(moved.iter().all(Option::is_some));
    let again = place.queue.replay(0, Shelf::Dead, "r2", &author(), &refs(&letters[1..4])).await.unwrap();
    assert_eq!(again.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);

    let balance = place.balance().await;
    assert_eq!((balance.dead, balance.dead_total, balance.undelivered), (1, 5, 4));
    let back = place.read(Lane::Retry, "w", 10).await;
    for (entry, letter) in back.iter().zip(&before) {
        assert_eq!((&entry.origin, entry.envelope.as_ref().unwrap()), (&letter.origin, &letter.envelope));
        assert_eq!((entry.journey.attempts, entry.crashes, entry.version.as_str()), (0, 0, "1"));
    }
    assert_eq!(back.iter().map(|entry| entry.replay.as_str()).collect::<Vec<_>>(), ["r1", "r1", "r1", "r2"]);
    assert_eq!(acts(&place).await, ["replay dead 3", "replay dead 1"]);
}

#[tokio::test]
async fn a_letter_that_dies_again_names_its_replay_even_after_retries() {
    let place = Place::new().await;
    place.join("w").await;
    let letters = place.make_dead("w", 1).await;
    place.queue.replay(0, Shelf::Dead, "r1", &author(), &refs(&letters)).await.unwrap();
    let entry = place.read(Lane::Retry, "w", 1).await.remove(0);
    place.move_to("w", &entry, retry(Duration::ZERO)).await;
    place.queue.bring_back_due(0, 1).await.unwrap();
    let entry = place.read(Lane::Retry, "w", 1).await.remove(0);
    place.move_to("w", &entry, dead(&entry)).await;
    assert_eq!(place.queue.letters(0, Shelf::Dead, "-", 9).await.unwrap()[0].replay, "r1");
}

#[tokio::test]
async fn two_replays_at_once_move_each_letter_once() {
    let place = Place::new().await;
    place.join("w").await;
    let letters = place.make_dead("w", 200).await;
    let (one, two) = (place.elsewhere(), place.elsewhere());
    let run = async |queue: weir_core::queue::Queue, name: &str| {
        let mut moved = 0;
        for some in letters.chunks(7) {
            let new = queue.replay(0, Shelf::Dead, name, &author(), &refs(some)).await.unwrap();
            moved += new.iter().flatten().count();
        }
        moved
    };
    let (a, b) = tokio::join!(run(one, "a"), run(two, "b"));
    assert_eq!(a + b, 200);
    assert_eq!(place.balance().await.dead, 0);
    let back = place.read(Lane::Retry, "w", 1000).await;
    assert_eq!(back.len(), 200);
    assert_eq!(back.iter().map(|entry| &entry.origin).collect::<BTreeSet<_>>().len(), 200);
}

#[tokio::test]
async fn a_parked_letter_comes_back_with_its_version() {
    let place = Place::new().await;
    place.join("w").await;
    place.fill(1).await;
    let mut entry = place.read(Lane::Ingest, "w", 1).await.remove(0);
    entry.version = "99".into();
    place.move_to("w", &entry, Target::Parked(Box::new(letter(&entry)))).await;
    assert_eq!(place.balance().await.parked, 1);
    let parked = place.queue.letters(0, Shelf::Parked, "-", 9).await.unwrap();
    place.queue.replay(0, Shelf::Parked, "r1", &author(), &[&parked[0].entry]).await.unwrap();
    let back = place.read(Lane::Retry, "w", 1).await;
    assert_eq!((back[0].version.as_str(), &back[0].origin), ("99", &entry.id));
    assert_eq!(place.balance().await.parked, 0);
    assert_eq!(acts(&place).await, ["replay parked 1"]);
}

#[tokio::test]
async fn a_purge_counts_what_was_there() {
    let place = Place::new().await;
    place.join("w").await;
    let letters = place.make_dead("w", 4).await;
    assert_eq!(place.queue.purge(0, Shelf::Dead, &author(), &refs(&letters[..3])).await.unwrap(), 3);
    assert_eq!(place.queue.purge(0, Shelf::Dead, &author(), &refs(&letters[1..3])).await.unwrap(), 0);
    let balance = place.balance().await;
    assert_eq!((balance.dead, balance.purged, balance.dead_total), (1, 3, 4));
    assert_eq!(acts(&place).await, ["purge dead 3"]);
}

#[tokio::test]
async fn an_edited_letter_keeps_what_came_first() {
    let place = Place::new().await;
    place.join("w").await;
    let letters = place.make_dead("w", 1).await;
    let before = place.queue.letters(0, Shelf::Dead, "-", 9).await.unwrap().remove(0);
    let second = place.queue.amend(0, &author(), &letters[0], b"two").await.unwrap().unwrap();
    assert_eq!(place.queue.amend(0, &author(), &letters[0], b"lost").await.unwrap(), None);
    let third = place.queue.amend(0, &author(), &second, b"three").await.unwrap().unwrap();

    let after = place.queue.letters(0, Shelf::Dead, "-", 9).await.unwrap();
    assert_eq!(after.len(), 1);
    let DeadLetter { entry, envelope, original, edited, origin, class, journey, .. } = &after[0];
    assert_eq!(
        (entry, envelope.as_slice(), original, edited.as_str()),
        (&third, &b"three"[..], &before.envelope, "olga")
    );
    assert_eq!((origin, class, journey.attempts), (&before.origin, &before.class, before.journey.attempts));
    assert_eq!(place.balance().await.dead, 1);
    assert_eq!(acts(&place).await, ["edit  ", "edit  "]);

    place.queue.replay(0, Shelf::Dead, "r", &author(), &[third.as_str()]).await.unwrap();
    let back = place.read(Lane::Retry, "w", 1).await.remove(0);
    assert_eq!((back.envelope.as_deref(), &back.origin), (Some(&b"three"[..]), &before.origin));
}

#[tokio::test]
async fn exported_letters_can_be_imported_elsewhere() {
    let (here, there) = (Place::new().await, Place::new().await);
    here.join("w").await;
    here.make_dead("w", 3).await;
    let exported = here.queue.letters(0, Shelf::Dead, "-", 9).await.unwrap();
    assert_eq!(there.queue.import(0, &author(), &exported).await.unwrap(), 3);
    let imported = there.queue.letters(0, Shelf::Dead, "-", 9).await.unwrap();
    for (old, new) in exported.iter().zip(&imported) {
        assert_eq!((&old.envelope, &old.origin, &old.error), (&new.envelope, &new.origin, &new.error));
    }
    let balance = there.balance().await;
    assert_eq!((balance.imported, balance.dead, balance.accepted), (3, 3, 0));
    assert_eq!(acts(&there).await, ["import  3"]);

    there.join("w").await;
    there.queue.replay(0, Shelf::Dead, "r", &author(), &[imported[0].entry.as_str()]).await.unwrap();
    let back = there.read(Lane::Retry, "w", 9).await;
    there.settle(Lane::Retry, "w", &ids(&back)).await;
    assert_eq!(there.balance().await.stored, 1);
}

#[tokio::test]
async fn letters_are_listed_page_by_page() {
    let place = Place::new().await;
    place.join("w").await;
    let all = place.make_dead("w", 5).await;
    let first = place.queue.letters(0, Shelf::Dead, "-", 2).await.unwrap();
    let next = place.queue.letters(0, Shelf::Dead, &format!("({}", first[1].entry), 9).await.unwrap();
    let seen: Vec<_> = first.into_iter().chain(next).map(|letter| letter.entry).collect();
    assert_eq!(seen, all);
}
