//! Gateways on sockets that somebody else has bound.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use weir_stack::{Process, tied_command_with};

use crate::http::{accepts, body, request};
use crate::support::{NOBODY, PATIENCE, Stack, WEIR};

fn gateway_on(stack: &Stack, sockets: &[TcpListener]) -> Process {
    let mut command = tied_command_with(sockets, WEIR.as_ref(), "KILL").expect("setpriv");
    let handed =
        command.get_envs().find(|(name, _)| *name == "LISTEN_FDS").and_then(|(_, value)| value.map(Into::into));
    let handed: std::ffi::OsString = handed.expect("it is told how many");
    stack.surround(&mut command).env("LISTEN_FDS", handed).arg("gateway").stdin(Stdio::null());
    command.stderr(std::fs::File::create(stack.log()).expect("a log"));
    Process::spawn(command).expect("a process")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_takes_the_sockets_that_it_is_handed_and_binds_none() {
    let mut stack = Stack::new().await;
    stack.set("WEIR_GATEWAY_LISTEN", NOBODY);
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a socket"));
    let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("an address").port());
    for run in 0..2 {
        // Asked before the gateway is there: both wait in the queue.
        let posts = ports.map(|port| {
            let message = body(&format!("m{run}-{port}"), "c", "x");
            tokio::spawn(async move { request(port, "POST", "/api/v1/webhook", &message).await })
        });
        let gateway = gateway_on(&stack, &sockets);
        for post in posts {
            assert_eq!(post.await.expect("no panic").expect("an answer").status, 202);
        }
        accepts(ports[0]).await;
        let status = gateway.stop(weir_stack::Signal::TERM, PATIENCE).await;
        assert!(status.success(), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_listening_socket_is_refused_with_a_clear_word() {
    let stack = Stack::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let connected = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let file = std::fs::File::open("/dev/null").expect("a file");
    for (wrong, reason) in [(OwnedFd::from(connected), "does not listen"), (OwnedFd::from(file), "not a socket")] {
        let gateway = gateway_on(&stack, &[listener.try_clone().expect("a socket"), TcpListener::from(wrong)]);
        let status = tokio::time::timeout(PATIENCE, gateway.wait()).await.expect("it ends");
        let log = std::fs::read_to_string(stack.log()).expect("a log");
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("socket 2") && log.contains(reason) && log.contains("LISTEN_FDS"), "{log}");
    }
}
