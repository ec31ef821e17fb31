//! Processes that are killed at the worst moment, to the byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use weir_core::queue::Queue;
use weir_stack::testing::eventually;
use weir_stack::{Direction, FaultProxy};
use weir_stack::{Process, Signal, free_port};

use crate::http::{accepts, body, request};
use crate::letters::{entries, plant};
use crate::support::{PATIENCE, Stack};

/// A stack whose commands and roles reach Redis through a proxy.
async fn through_a_proxy() -> (Stack, FaultProxy) {
    let mut stack = Stack::new().await;
    let redis = stack.redis.url();
    let proxy = FaultProxy::start(([127, 0, 0, 1], stack.redis.port()).into()).await;
    stack.set(
        "WEIR_REDIS_URL",
        &redis.replace(&format!(":{}/", stack.redis.port()), &format!(":{}/", proxy.addr().port())),
    );
    (stack, proxy)
}

async fn post(port: u16, id: &str) -> Option<(u16, String)> {
    let answer = request(port, "POST", "/api/v1/webhook", &body(id, id, "x")).await.ok()?;
    Some((answer.status, answer.body["message_id"].as_str().unwrap_or_default().to_owned()))
}

async fn dead(process: &Process) {
    eventually("the gateway is dead", PATIENCE, async || process.exited().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_between_the_reply_of_redis_and_its_answer_makes_one_row() {
    let (stack, proxy) = through_a_proxy().await;
    let port = free_port().unwrap();
    let gateway = Arc::new(stack.start_gateway_on(port));
    accepts(port).await;
    let on_its_way = Arc::new(AtomicBool::new(false));
    let seen = on_its_way.clone();
    proxy.watch(b"\"id\":\"the-one\"".to_vec(), Direction::Request, move || seen.store(true, Ordering::SeqCst));
    let (victim, faults) = (gateway.clone(), proxy.faults());
    // The reply of the function that appends.
    proxy.watch(b"*3\r\n$2\r\nOK\r\n".to_vec(), Direction::Reply, move || {
        if on_its_way.load(Ordering::SeqCst) && victim.exited().is_none() {
            victim.signal(Signal::KILL);
            faults.cut();
        }
    });
    assert_eq!(post(port, "the-one").await, None, "nobody was told anything");
    dead(&gateway).await;
    assert_eq!(stack.balance().await.accepted, 1, "Redis had answered");

    let _next = stack.start_gateway_on(port);
    accepts(port).await;
    let (status, first) = post(port, "the-one").await.unwrap();
    assert_eq!(status, 200);
    let _worker = stack.start_worker(&stack.database);
    assert_eq!(stack.drained().await.stored, 1);
    assert_eq!(stack.rows().await, 1);
    assert_eq!(post(port, "the-one").await.unwrap(), (200, first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_before_its_batch_is_written_has_told_nobody_a_2xx() {
    let (stack, proxy) = through_a_proxy().await;
    let port = free_port().unwrap();
    let gateway = Arc::new(stack.start_gateway_on(port));
    accepts(port).await;
    let (victim, faults) = (gateway.clone(), proxy.faults());
    proxy.watch(b"\"id\":\"n49\"".to_vec(), Direction::Request, move || {
        if victim.exited().is_none() {
            victim.signal(Signal::KILL);
            faults.cut();
        }
    });
    let posts: Vec<_> = (0..50).map(|n| tokio::spawn(async move { post(port, &format!("n{n}")).await })).collect();
    let mut told = Vec::new();
    for (n, answer) in posts.into_iter().enumerate() {
        told.extend(answer.await.unwrap().map(|(status, message_id)| (n, status, message_id)));
    }
    dead(&gateway).await;
    assert!(told.iter().all(|(n, status, _)| *n != 49 && *status == 202), "{told:?}");
    assert_eq!(stack.balance().await.accepted, stack.balance().await.undelivered);

    let _next = stack.start_gateway_on(port);
    accepts(port).await;
    for n in 0..50 {
        let (status, message_id) = post(port, &format!("n{n}")).await.unwrap();
        match told.iter().find(|(before, ..)| *before == n) {
            Some((_, _, before)) => assert_eq!((status, &message_id), (200, before)),
            None => assert!([200, 202].contains(&status), "{status}"),
        }
    }
    let _worker = stack.start_worker(&stack.database);
    assert_eq!(stack.drained().await.stored, 50);
    assert_eq!(stack.rows().await, 50);
}

/// Kills a replay at its call number `call`: before Redis has it, or once Redis has done it and nobody was told.
async fn kill_a_replay(stack: &Stack, proxy: &FaultProxy, queue: &Queue, call: usize, done: bool) {
    let mut command = stack.weir(&["dlq", "replay", "--all", "--yes", "--rate", "50/s", "--wait", "0s"]);
    let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    let (calls, asked, faults) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)), proxy.faults());
    let kill = move || {
        rustix::process::kill_process(pid, Signal::KILL).expect("it runs, or nobody has waited for it yet");
        faults.cut();
    };
    let (answered, kill_later) = (asked.clone(), kill.clone());
    proxy.watch(format!("{}_replay", queue.library()), Direction::Request, move || {
        if calls.fetch_add(1, Ordering::SeqCst) + 1 == call {
            if done { asked.store(true, Ordering::SeqCst) } else { kill() }
        }
    });
    proxy.watch(b"$".to_vec(), Direction::Reply, move || {
        if answered.swap(false, Ordering::SeqCst) {
            kill_later();
        }
    });
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it is dead").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_killed_at_any_point_moves_each_letter_once_and_can_be_run_again() {
    let (stack, proxy) = through_a_proxy().await;
    let queue = stack.prepared().await;
    let ids: Vec<String> = (0..200).map(|n| format!("m{n}")).collect();
    plant(&queue, &ids.iter().map(String::as_str).collect::<Vec<_>>(), |_| {}).await;
    for (call, done) in [(1, false), (1, true), (4, false), (3, true)] {
        kill_a_replay(&stack, &proxy, &queue, call, done).await;
        let (moved, left) = (entries(&queue, "retry").await.len(), entries(&queue, "dead").await.len());
        assert_eq!(moved + left, 200, "at call {call}");
        assert_eq!(stack.balance().await.drift(), 0);
    }
    assert!(!entries(&queue, "dead").await.is_empty(), "it was killed before its end");
    stack.run(&["dlq", "replay", "--all", "--yes", "--rate", "unlimited", "--wait", "0s"]).await.code(0);
    let mut origins: Vec<_> =
        entries(&queue, "retry").await.into_iter().map(|(_, fields)| fields["e"].clone()).collect();
    origins.sort();
    origins.dedup();
    assert_eq!((origins.len(), entries(&queue, "retry").await.len()), (200, 200));
    stack.start_worker_and_drain().await;
    assert_eq!(stack.rows().await, 200);
}

impl Stack {
    async fn start_worker_and_drain(&self) {
        let _worker = self.start_worker(&self.database);
        self.drained().await;
    }
}
