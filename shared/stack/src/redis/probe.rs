//! Asks a redis-server whether it is ready: AUTH and PING, nothing more.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that loads replies between two pieces of its data.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) enum Answer {
    Ready,
    /// It reads its data set into memory and will be ready after that.
    Loading,
    /// No answer, or not that of our server; says why.
    Nothing(String),
}

pub(super) async fn ping(port: u16, password: &str) -> Answer {
    match timeout(PATIENCE, exchange(port, password)).await {
        Ok(Ok(reply)) => read_reply(&reply),
        Ok(Err(error)) => Answer::Nothing(error.to_string()),
        Err(_) => Answer::Nothing("it accepts connections but does not reply".into()),
    }
}

async fn exchange(port: u16, password: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let auth = format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len());
    stream.write_all(auth.as_bytes()).await?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
    let mut reply = Vec::new();
    while reply.iter().filter(|&&byte| byte == b'\n').count() < 2 {
        if stream.read_buf(&mut reply).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

/// One line for AUTH, one for PING.
fn read_reply(reply: &str) -> Answer {
    let mut lines = reply.lines();
    match (lines.next(), lines.next()) {
        (Some("+OK"), Some("+PONG")) => Answer::Ready,
        (Some("+OK"), Some(error)) if error.starts_with("-LOADING") => Answer::Loading,
        (Some(refusal), _) if refusal.starts_with('-') => Answer::Nothing(refusal.to_owned()),
        (_, Some(refusal)) if refusal.starts_with('-') => Answer::Nothing(refusal.to_owned()),
        _ => Answer::Nothing("something that is not Redis answers there".into()),
    }
}
