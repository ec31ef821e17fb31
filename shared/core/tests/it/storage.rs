//! The log of Redis is damaged on disk.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use weir_core::queue::enqueue::{Enqueued, NewEntry};
use weir_stack::StackError;
use weir_stack::testing::eventually;

use crate::support::{Place, SOON, message, new_id};

/// The file that Redis appends to.
fn log(place: &Place) -> PathBuf {
    let files = fs::read_dir(place.redis.dir().join("appendonlydir")).unwrap().map(|file| file.unwrap().path());
    let mut logs: Vec<_> = files.filter(|file| file.to_string_lossy().ends_with(".incr.aof")).collect();
    logs.sort();
    logs.pop().expect("an append-only file")
}

fn size(place: &Place) -> u64 {
    fs::metadata(log(place)).unwrap().len()
}

fn batch(name: &str, n: usize) -> Vec<NewEntry> {
    (0..n).map(|i| message(&format!("{name}{i}"), "x")).collect()
}

async fn enqueue(place: &Place, batch: &[NewEntry]) -> Vec<Enqueued> {
    let results = place.enqueuer().enqueue(batch).await;
    results.into_iter().map(Result::unwrap).collect()
}

async fn answers(place: &Place) {
    eventually("Redis answers", SOON, async || place.queue.balance().await.is_ok()).await;
}

#[tokio::test]
async fn a_log_whose_end_is_cut_off_loses_the_last_batch_whole_and_nothing_else() {
    // In two partitions: a batch is two calls in one transaction.
    let mut place = Place::with_partitions(2).await;
    let first = batch("first", 100);
    enqueue(&place, &first).await;
    let before = size(&place);
    let last = batch("last", 50);
    enqueue(&place, &last).await;
    let whole = size(&place);
    for (round, cut) in [whole - 1, (before + whole) / 2, before + 40, before + 1].into_iter().enumerate() {
        place.redis.kill().await;
        fs::OpenOptions::new().write(true).open(log(&place)).unwrap().set_len(cut).unwrap();
        place.redis.restart().await.expect("a log without its end is read");
        answers(&place).await;
        let balance = place.balance().await;
        assert_eq!((balance.accepted, balance.undelivered), (100, 100), "round {round}");
        let again = enqueue(&place, &first).await;
        assert!(again.iter().all(|one| matches!(one, Enqueued::Duplicate(_))), "round {round}");
        let anew = enqueue(&place, &last).await;
        assert!(anew.iter().all(|one| matches!(one, Enqueued::New(_))), "no half of it is remembered: round {round}");
        assert_eq!(place.balance().await.accepted, 150);
        // What was written anew is as long as what was cut off, up to the numbers in it.
        assert!(size(&place) > before + 40);
    }
}

#[tokio::test]
async fn a_log_that_is_broken_in_the_middle_stops_redis_until_somebody_decides() {
    let mut place = Place::new().await;
    let mut middle = 0;
    for n in 0..20 {
        if n == 10 {
            middle = size(&place) as usize;
        }
        new_id(&place.enqueuer().enqueue(&[message(&n.to_string(), "x")]).await[0]);
    }
    place.redis.kill().await;
    let (file, mut bytes) = (log(&place), fs::read(log(&place)).unwrap());
    let at = middle + bytes[middle..].windows(3).position(|window| window == b"\r\n*").unwrap() + 2;
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();

    let error = place.redis.restart().await.expect_err("it must not go on as if nothing were missing");
    assert!(matches!(error, StackError::Ended { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("redis-check-aof --fix"), "the way out is quoted: {text}");

    // The first way: the bytes as they were, from a replica or a backup.
    let damaged = bytes.clone();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();
    place.redis.restart().await.unwrap();
    answers(&place).await;
    assert_eq!(place.balance().await.accepted, 20);

    // The second one gives up everything from the damage on.
    place.redis.kill().await;
    fs::write(&file, &damaged).unwrap();
    let mut fix = Command::new("redis-check-aof");
    fix.arg("--fix").arg(file.with_file_name("appendonly.aof.manifest")).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut fix = fix.spawn().expect("redis-check-aof, which comes with Redis");
    std::io::Write::write_all(&mut fix.stdin.take().unwrap(), b"y\n").unwrap();
    assert!(fix.wait().unwrap().success());
    place.redis.restart().await.unwrap();
    answers(&place).await;
    let kept = place.balance().await.accepted;
    assert!((10..20).contains(&kept), "{kept}");
}
