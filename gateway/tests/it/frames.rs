//! HTTP/2 by hand: frames as a hostile client writes them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Gateway, SOON, WEBHOOK};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A setting's frame: 4 is the initial window.
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// The header block of a POST of JSON to the sample's path, and more headers.
pub(crate) fn post_block(more: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // RFC 7541: `:method POST` and `:scheme http` are in the static table, the others are literals.
    let mut block = [&[0x83, 0x86, 0x04][..], &text(WEBHOOK), &[0x01], &text("x")].concat();
    for (name, value) in [("content-type", "application/json")].iter().chain(more) {
        block.extend([&[0][..], &text(name), &text(value)].concat());
    }
    block
}

/// A whole POST.
pub(crate) fn post(stream: u32, body: &str) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, stream, &post_block(&[])), frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
}

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Begins with the answer's `:status`, which h2 always writes as one byte of the static table or as three digits.
    pub(crate) fn has_status(&self, status: u16) -> bool {
        let known = [(200, 0x88), (204, 0x89), (400, 0x8c), (404, 0x8d), (500, 0x8e)];
        let digits = status.to_string();
        self.kind == HEADERS
            && (known.iter().any(|(code, byte)| *code == status && self.payload.first() == Some(byte))
                || self.payload.windows(3).any(|three| three == digits.as_bytes())
                || self.payload.windows(4).any(|four| four == huffman(&digits)))
    }
}

/// Three digits as h2 writes a `:status`: index 8 with the value in Huffman code (RFC 7541, appendix B).
fn huffman(digits: &str) -> [u8; 4] {
    let mut bits = String::new();
    for digit in digits.chars() {
        let code = match digit {
            '0' => "00000",
            '1' => "00001",
            '2' => "00010",
            digit => {
                bits += &format!("{:06b}", 0b01_1001 + u32::from(digit) - u32::from('3'));
                continue;
            }
        };
        bits += code;
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let bytes: Vec<u8> =
        bits.as_bytes().chunks(8).map(|byte| byte.iter().fold(0, |n, bit| n * 2 + (bit - b'0'))).collect();
    let length = 0x80 | u8::try_from(bytes.len()).unwrap();
    [0x48, length, bytes[0], bytes.get(1).copied().unwrap_or_default()]
}

/// A connection that has said the preface and its settings.
pub(crate) struct Http2(pub(crate) TcpStream);

impl Http2 {
    pub(crate) async fn connect(gateway: &Gateway, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&[PREFACE, settings].concat()).await.unwrap();
        Self(stream)
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next frame; none when the other side has closed or reset the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(SOON, async {
            let mut header = [0; 9];
            self.0.read_exact(&mut header).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
        })
        .await
        .expect("a frame or an end")
    }

    /// Reads until a frame is such a one.
    pub(crate) async fn until(&mut self, what: &str, mut is: impl FnMut(&Frame) -> bool) -> Frame {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            if is(&frame) {
                return frame;
            }
            seen.push(frame);
        }
        panic!("closed before {what}: {seen:?}");
    }

    /// Reads to the end of the connection; gives what came.
    pub(crate) async fn rest(mut self) -> Vec<Frame> {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            seen.push(frame);
        }
        seen
    }

    /// Writes the same bytes again and again until the other side has had enough.
    pub(crate) async fn flood(mut self, bytes: &[u8]) {
        let (mut read, mut write) = self.0.split();
        let writing = async { while write.write_all(bytes).await.is_ok() {} };
        // What comes back is taken, so that nobody waits for us.
        let reading = async {
            let mut taken = vec![0; 64 << 10];
            while read.read(&mut taken).await.is_ok_and(|n| n > 0) {}
        };
        let both = async { tokio::join!(writing, reading) };
        tokio::time::timeout(SOON * 3, both).await.expect("the flood is ended");
    }
}
