//! A network between gateway and Redis that is slow, silent, or loses what was answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use weir_stack::Direction;
use weir_stack::testing::eventually;

use crate::support::{House, Reply, SOON, WEBHOOK, message};

/// Posts messages of these ids at once; gives the replies by id.
async fn post_all(house: &House, ids: impl Iterator<Item = String>) -> BTreeMap<String, Reply> {
    let mut posts = JoinSet::new();
    for id in ids {
        let client = house.gateway.client.clone();
        posts.spawn(async move { (client.post(WEBHOOK, &message(&id)).await, id) });
    }
    posts.join_all().await.into_iter().map(|(reply, id)| (id, reply)).collect()
}

/// The same, each again and again until it is known to be there: the guard may find out only now that its connection
/// has ended too.
async fn post_until_known(house: &House, ids: impl Iterator<Item = String>) -> BTreeMap<String, Reply> {
    let mut known = post_all(house, ids).await;
    loop {
        let refused: Vec<_> = known.iter().filter(|(_, reply)| reply.status == 503).map(|(id, _)| id.clone()).collect();
        if refused.is_empty() {
            return known;
        }
        house.gateway.ready().await;
        known.extend(post_all(house, refused.into_iter()).await);
    }
}

/// What is in the stream: message ids by the sender's id, which must be there once.
async fn stream(house: &House) -> BTreeMap<String, String> {
    let mut stream = BTreeMap::new();
    for entry in house.entries().await {
        let envelope: serde_json::Value = serde_json::from_slice(&entry.fields["e"]).unwrap();
        let id = envelope["id"].as_str().unwrap().to_owned();
        assert!(stream.insert(id.clone(), format!("0-{}", entry.id)).is_none(), "{id} is there twice");
    }
    stream
}

/// Connections that the gateway holds open to Redis, as the kernel sees it: a proxy that stalls sees no end of one.
fn connections(house: &House) -> usize {
    const ESTABLISHED: &str = "01";
    let to = format!("0100007F:{:04X}", house.proxy().addr().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let open = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        (words.next(), words.next()) == (Some(to.as_str()), Some(ESTABLISHED))
    };
    table.lines().filter(open).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_makes_batches_larger_and_refuses_nobody() {
    const POSTS: usize = 256;
    let house = House::with_proxy(&[]).await;
    house.post(&message("warm")).await.accepted();
    let least = Duration::from_millis(200);
    house.proxy().delay(least, Duration::from_millis(100));
    let (before, started) = (house.calls().await, Instant::now());
    let replies = post_all(&house, (0..POSTS).map(|i| i.to_string())).await;
    assert!(started.elapsed() >= least, "the delay was felt");
    for reply in replies.values() {
        reply.accepted();
    }
    let calls = house.calls().await - before;
    assert!(calls <= POSTS as u64 / 16, "{calls} calls for {POSTS} messages");
    assert!(connections(&house) <= 2, "{} connections", connections(&house));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_slow_network_more_than_may_be_in_flight_is_refused_at_once() {
    let house = House::with_proxy(&[("limit.in_flight", "20")]).await;
    house.post(&message("warm")).await.accepted();
    house.proxy().delay(Duration::from_millis(500), Duration::ZERO);
    let replies = post_all(&house, (0..200).map(|i| i.to_string())).await;
    let accepted = replies.values().filter(|reply| reply.status == 202).count();
    assert!(accepted >= 20, "{accepted} accepted");
    assert!(accepted < 200, "nothing was shed");
    for reply in replies.values().filter(|reply| reply.status != 202) {
        reply.is_unavailable("in-flight");
    }
    assert_eq!(stream(&house).await.len(), 1 + accepted, "what was refused was not written");
}

/// Senders that post again and again until they are told to stop.
struct Flood {
    senders: JoinSet<()>,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

impl Flood {
    fn start(house: &House, senders: usize, answers: &'static [u16]) -> Self {
        let mut flood = Self { senders: JoinSet::new(), stop: Arc::default(), refused: Arc::default() };
        for sender in 0..senders {
            let client = house.gateway.client.clone();
            let (refused, stop) = (flood.refused.clone(), flood.stop.clone());
            flood.senders.spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    let reply = client.post(WEBHOOK, &message(&format!("s{sender}-{number}"))).await;
                    assert!(answers.contains(&reply.status), "{reply:?}");
                    refused.fetch_add((reply.status == 503).into(), Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            });
        }
        flood
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.senders.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_becomes_slow_under_overload_still_gets_large_batches() {
    const IN_FLIGHT: usize = 1_200;
    let house = House::with_proxy(&[("limit.in_flight", &IN_FLIGHT.to_string())]).await;
    let flood = Flood::start(&house, IN_FLIGHT * 3 / 2, &[202, 503]);
    eventually("somebody is refused", SOON, async || flood.refused() > 0).await;
    house.proxy().delay(Duration::from_millis(200), Duration::ZERO);
    // Two batches are out and a third one gathers: a third of all each, and of the 512 that are always let in no more than
    // half.
    let seen = async || (house.calls().await, house.ask::<u64>(&["XLEN", "weir:{0}:ingest"]).await);
    let mut before = seen().await;
    eventually("batches are large", SOON, async || {
        let now = seen().await;
        let (calls, messages) = (now.0 - before.0, now.1 - before.1);
        if calls < 10 {
            return false;
        }
        before = now;
        messages / calls > IN_FLIGHT as u64 / 4
    })
    .await;
    flood.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_falls_silent_costs_one_batch_timeout_and_no_pile_of_connections() {
    let limits = [("limit.in_flight", "64"), ("gateway.batch_timeout", "500ms"), ("gateway.replica_timeout", "100ms")];
    let house = House::with_proxy(&limits).await;
    house.post(&message("warm")).await.accepted();
    house.proxy().stall(true);
    let flood = Flood::start(&house, 128, &[503]);
    // As long as it takes to be told "not ready" again and again: every one of those makes the guard connect anew.
    house.gateway.waits_for("Redis cannot be reached").await;
    let (enough, mut most) = (flood.refused() + 5_000, 0);
    eventually("refusals go on", SOON, async || {
        most = most.max(connections(&house));
        flood.refused() > enough
    })
    .await;
    flood.end().await;
    assert!(most <= 3, "{most} connections at once");
    house.proxy().stall(false);
    house.gateway.ready().await;
    house.post(&message("after")).await.accepted();
    assert!(stream(&house).await.len() <= 2 + 64, "no more than what was in flight can have arrived");
}

/// How many messages lose their answer: a few hundred, or as many as are asked for by hand.
fn ambiguous() -> usize {
    std::env::var("WEIR_TEST_AMBIGUOUS").ok().map_or(400, |count| count.parse().expect("a number of messages"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_unknown_and_the_retry_names_the_entry_that_was_written() {
    const AT_ONCE: usize = 100;
    let house = House::with_proxy(&[("gateway.batches", "1")]).await;
    house.post(&message("warm")).await.accepted();
    let (replies_left, faults) = (Arc::new(AtomicUsize::new(0)), house.proxy().faults());
    let left = replies_left.clone();
    // The reply of the function that appends: Redis has done all of it, and the connection ends before we hear so.
    house.proxy().watch("*3\r\n$2\r\nOK\r\n", Direction::Reply, move || {
        if left.load(Ordering::SeqCst) > 0 && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            faults.cut();
        }
    });
    let (mut lost_answers, mut posted) = (0, 0);
    while lost_answers < ambiguous() {
        let ids: Vec<_> = (posted..posted + AT_ONCE).map(|number| format!("m{number}")).collect();
        posted += AT_ONCE;
        // The first batch is whoever came first; the second one gathers the others while that is out.
        replies_left.store(2, Ordering::SeqCst);
        let replies = post_all(&house, ids.iter().cloned()).await;
        replies_left.store(0, Ordering::SeqCst);
        house.gateway.ready().await;
        let stream = stream(&house).await;
        for (id, reply) in &replies {
            match (reply.status, stream.get(id)) {
                (202, Some(entry)) => assert_eq!(&reply.accepted(), entry),
                (503, Some(_)) => assert_eq!(reply.problem(), "unknown", "it is there: {reply:?}"),
                (503, None) => {}
                (_, entry) => panic!("{id} {entry:?}: {reply:?}"),
            }
        }
        let refused = replies.into_iter().filter(|(_, reply)| reply.status == 503).map(|(id, _)| id);
        for (id, retried) in post_until_known(&house, refused).await {
            match stream.get(&id) {
                Some(entry) => {
                    assert_eq!(&retried.duplicate(), entry);
                    lost_answers += 1;
                }
                None => assert!([200, 202].contains(&retried.status), "{retried:?}"),
            }
        }
    }
    assert_eq!(stream(&house).await.len(), posted + 1, "every id is one entry");
}
