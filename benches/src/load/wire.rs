//! One exchange of a request and its answer, over HTTP/1.1 as bytes and over HTTP/2 with hyper.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::make::{Maker, Target};

/// A connection of one sender, or a stream of one that it shares.
pub(crate) enum Wire {
    One(Http1),
    Two(Http2),
}

/// The status of an answer; its body is in the wire.
pub(crate) struct Answer {
    pub(crate) status: u16,
}

impl Wire {
    pub(crate) async fn exchange(&mut self, maker: &Maker) -> io::Result<Answer> {
        match self {
            Self::One(http1) => http1.exchange(maker.request()).await,
            Self::Two(http2) => http2.exchange(maker.body()).await,
        }
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        match self {
            Self::One(http1) => &http1.buffer[http1.body_from..http1.filled],
            Self::Two(http2) => &http2.body,
        }
    }

    /// Replaces a connection that has ended.
    pub(crate) async fn renew(&mut self) -> io::Result<()> {
        match self {
            Self::One(http1) => *http1 = Http1::connect(http1.address).await?,
            Self::Two(http2) => http2.sender = connect(http2.address).await?,
        }
        Ok(())
    }
}

/// HTTP/1.1 as bytes: cheaper than any client library, and the load shares its cores with what it measures.
pub(crate) struct Http1 {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    body_from: usize,
}

impl Http1 {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: vec![0; 2048], filled: 0, body_from: 0 })
    }

    /// Bytes of the last answer.
    pub(crate) fn answered(&self) -> usize {
        self.filled
    }

    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.filled = 0;
        loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
            let n = self.stream.read(&mut self.buffer[self.filled..]).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.filled += n;
            let Some(head) = Head::read(&self.buffer[..self.filled])? else { continue };
            if self.filled < head.body_from + head.length {
                continue;
            }
            self.body_from = head.body_from;
            if head.closes {
                self.stream = Self::connect(self.address).await?.stream;
            }
            return Ok(Answer { status: head.status });
        }
    }
}

/// What of an answer's head matters here.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) body_from: usize,
    pub(crate) length: usize,
    pub(crate) closes: bool,
}

impl Head {
    /// `None` until it is whole.
    pub(crate) fn read(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse::<usize>().ok();
        let status = bytes.get(9..12).and_then(number).ok_or_else(|| invalid("an answer without a status"))? as u16;
        let (mut length, mut closes) = (None, false);
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            if let Some(value) = value_of(line, b"content-length:") {
                length = number(value);
            } else if let Some(value) = value_of(line, b"connection:") {
                closes = value.trim_ascii().eq_ignore_ascii_case(b"close");
            }
        }
        let length = length.ok_or_else(|| invalid("an answer without Content-Length cannot be read here"))?;
        Ok(Some(Self { status, body_from: end + 4, length, closes }))
    }
}

fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then_some(value)
}

/// A stream at a time of an HTTP/2 connection.
pub(crate) struct Http2 {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    target: Target,
    body: Bytes,
}

impl Http2 {
    /// So many streams of one connection.
    pub(crate) async fn connect(address: SocketAddr, target: &Target, streams: usize) -> io::Result<Vec<Self>> {
        let sender = connect(address).await?;
        let stream = |_| Self { address, sender: sender.clone(), target: target.clone(), body: Bytes::new() };
        Ok((0..streams).map(stream).collect())
    }

    async fn exchange(&mut self, body: Bytes) -> io::Result<Answer> {
        let request = Request::post(format!("http://{}{}", self.target.host, self.target.path))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        let answer = self.sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        self.body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status })
    }
}

async fn connect(address: SocketAddr) -> io::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the last of its streams; what went wrong they are told themselves.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-TYPE: x\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{}";
        for cut in 0..answer.len() - 3 {
            assert_eq!(Head::read(&answer[..cut]).unwrap(), None);
        }
        let head = Head::read(answer).unwrap().unwrap();
        assert_eq!(head, Head { status: 202, body_from: answer.len() - 2, length: 12, closes: true });
    }

    #[test]
    fn an_answer_without_a_length_is_an_error() {
        assert!(Head::read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
