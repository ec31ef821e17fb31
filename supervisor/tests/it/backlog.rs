//! More comes in than is stored.

use std::path::Path;

use weir_stack::Signal;
use weir_stack::testing::{eventually, scratch};

use crate::http::{accepts, body, request};
use crate::support::{PATIENCE, Stack};
use crate::up::{Up, number, signal, stack};

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_the_gateway_accepts_up_to_its_limit_refuses_then_and_all_is_stored_in_the_end() {
    let mut stack = Stack::new().await;
    stack.set("WEIR_LIMIT_BACKLOG", "400");
    let (_gateway, port) = stack.start_gateway().await;
    // More than each of the four partitions may hold.
    let posts = (0..1200).map(|number| {
        tokio::spawn(async move {
            let message = body(&format!("m{number}"), &format!("c{}", number % 97), "x");
            request(port, "POST", "/api/v1/webhook", &message).await.expect("an answer")
        })
    });
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (number, post) in posts.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = post.await.expect("no panic");
        match answer.status {
            202 => accepted.push(number),
            503 => {
                assert_eq!(answer.body["type"], "urn:weir:problem:backlog", "{answer:?}");
                refused.push(number);
            }
            _ => panic!("{answer:?}"),
        }
    }
    // What comes in one batch is taken whole: the limit may be passed by a part of what came at the same moment.
    let count = accepted.len() as u64;
    assert!((400..1200).contains(&count), "{count} accepted");
    let balance = stack.balance().await;
    assert_eq!((balance.accepted, balance.backlog(), balance.lost), (count, count, 0));

    let _worker = stack.start_worker(&stack.database);
    assert_eq!(stack.drained().await.stored, count);
    accepts(port).await;
    let again = body(&format!("m{}", refused[0]), &format!("c{}", refused[0] % 97), "x");
    assert_eq!(request(port, "POST", "/api/v1/webhook", &again).await.expect("an answer").status, 202);
    stack.drained().await;
    assert_eq!(stack.rows().await, i64::try_from(count + 1).expect("a number"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_makes_the_supervisor_start_another_worker() {
    let data = scratch();
    let up = Up::start_with(&data, &["--workers", "1..3"], &[("WEIR_LIMIT_PER_ADDRESS", "off")]);
    accepts(up.port).await;
    let pids = |role: &str| -> Vec<u64> {
        let stack = stack(&data);
        let all = stack["processes"].as_array().expect("processes").iter();
        all.filter(|process| process["role"] == role).filter_map(|process| process["pid"].as_u64()).collect()
    };
    eventually("one worker runs", PATIENCE, async || pids("worker").len() == 1).await;
    let stuck = pids("worker")[0];
    // Not asleep before it has read: it would then be as one that never came.
    let first = request(up.port, "POST", "/api/v1/webhook", &body("first", "c", "x")).await.expect("an answer");
    assert_eq!(first.status, 202);
    eventually("it works", PATIENCE, async || number(&data, "SELECT count(*) FROM messages").await == 1).await;
    signal(stuck, Signal::STOP);
    for batch in 0..3 {
        let messages: Vec<_> =
            (0..1000).map(|n| body(&format!("b{batch}n{n}"), &format!("c{batch}-{n}"), "x")).collect();
        let messages = format!("[{}]", messages.join(","));
        let answer = request(up.port, "POST", "/api/v1/webhook/batch", &messages).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    eventually("another worker stores it", PATIENCE, async || {
        pids("worker").len() > 1 && number(&data, "SELECT count(*) FROM messages").await >= 1000
    })
    .await;
    assert!(Path::new(&format!("/proc/{stuck}")).exists(), "it was not its death that brought the other one");
    signal(stuck, Signal::CONT);
    eventually("all is stored", PATIENCE, async || number(&data, "SELECT count(*) FROM messages").await == 3001).await;
    assert!(pids("worker").len() <= 3);
    up.stop(&data).await;
}
