//! What a message costs in Redis, and that it is given back.

use weir_core::queue::consume::Lane;
use weir_core::queue::enqueue::{Bounds, NewEntry};

use crate::support::{BOUNDS, Place, ids, message};

async fn used(place: &Place) -> f64 {
    let () = place.ask(&["MEMORY", "PURGE"]).await;
    place.info("memory", "used_memory").await as f64
}

/// Appends `n` messages with ids of 32 hex digits, as large as messages are.
async fn flood(place: &Place, bounds: Bounds, n: usize) {
    let enqueuer = place.enqueuer_with(bounds);
    for _ in 0..n / 2000 {
        let batch: Vec<NewEntry> = (0..2000)
            .map(|_| {
                let mut entry = message(&format!("{:032x}", rand::random::<u128>()), "text");
                entry.envelope.resize(240, b' ');
                entry
            })
            .collect();
        assert!(enqueuer.enqueue(&batch).await.iter().all(Result::is_ok));
    }
}

async fn drain(place: &Place) {
    loop {
        let entries = place.read(Lane::Ingest, "w", 1000).await;
        if entries.is_empty() {
            return;
        }
        place.settle(Lane::Ingest, "w", &ids(&entries)).await;
    }
}

#[tokio::test]
async fn a_drained_queue_gives_its_memory_back_and_an_id_costs_at_most_50_bytes() {
    const N: usize = 200_000;
    let place = Place::new().await;
    place.join("w").await;
    flood(&place, BOUNDS, 2000).await;
    drain(&place).await;

    let base = used(&place).await;
    flood(&place, BOUNDS, N).await;
    let full = used(&place).await;
    assert!(full - base > 250.0 * N as f64, "a stream that holds {N} messages: {}", full - base);
    drain(&place).await;
    assert_eq!(place.balance().await.ingest_length, 0);

    let per_id = (used(&place).await - base) / N as f64;
    assert!((16.0..=50.0).contains(&per_id), "{per_id:.1} bytes an id");
    for bucket in place.buckets().await {
        let () = place.ask(&["DEL", &bucket]).await;
    }
    let left = used(&place).await - base;
    assert!(left < 1e6, "the stream keeps {left} bytes");
}

#[tokio::test]
async fn an_id_of_a_later_epoch_costs_at_most_50_bytes() {
    const N: usize = 120_000;
    let place = Place::new().await;
    place.join("w").await;
    let bounds = Bounds { remembered: N as u64, ..BOUNDS };
    flood(&place, bounds, N).await;
    drain(&place).await;
    let base = used(&place).await;
    flood(&place, bounds, N).await;
    drain(&place).await;
    let per_id = (used(&place).await - base) / N as f64;
    assert!((16.0..=50.0).contains(&per_id), "{per_id:.1} bytes an id");
}
