//! Asks a redis-server whether it is ready: AUTH and PING, nothing more.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that loads replies between two pieces of its data.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) enum Answer {
    Ready,
    /// It reads its data set into memory and will be ready after that.
    Loading,
    /// No answer, or not that of our server; says why.
    Nothing(String),
}

pub(crate) async fn ping(port: u16, password: &str) -> Answer {
    match timeout(PATIENCE, exchange(port, password)).await {
        Ok(Ok(reply)) => read_reply(&reply),
        Ok(Err(error)) => Answer::Nothing(error.to_string()),
        Err(_) => Answer::Nothing("it accepts connections but does not reply".into()),
    }
}

/// The raw reply to one command, after that to AUTH. It needs no reading of replies: the server answers what it has got
/// and then closes a connection whose other side has been closed.
pub(crate) async fn request(port: u16, password: &str, words: &[&str]) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let mut text = String::new();
        for words in [&["AUTH", password], words] {
            text += &format!("*{}\r\n", words.len());
            text.extend(words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())));
        }
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    };
    timeout(PATIENCE, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
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
