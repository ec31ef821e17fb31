//! Tells an HTTP/2 client that sends requests from one that sends frames for their own sake.
//!
//! h2 bounds what a frame may cost in memory, and CONTINUATION frames and small DATA frames in number. It answers any
//! number of PINGs and SETTINGS and takes back any number of requests, so these are counted here.

use std::time::Duration;

use tokio::time::Instant;

/// Length, type, flags and stream of a frame (RFC 9113, 4.1).
const HEADER: usize = 9;

/// What every connection begins with.
const PREFACE: u32 = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// How much idle talk a client is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Frames in hand.
    pub burst: f64,
    /// More of them each second.
    pub per_second: f64,
    /// More of them with each request.
    pub per_request: f64,
}

/// The client sends more than it needs.
#[derive(Debug)]
pub struct Flood;

/// Reads frame headers as they pass. A request earns some frames of idle talk, taking one back costs twice as many: who takes
/// back less than half of the requests is never a flood.
pub struct FrameMeter {
    allowance: Allowance,
    skip: u32,
    header: [u8; HEADER],
    have: usize,
    left: f64,
    last: Option<Instant>,
}

impl FrameMeter {
    /// A meter for a connection of which nothing was read yet.
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, skip: PREFACE, header: [0; HEADER], have: 0, left: allowance.burst, last: None }
    }

    /// Looks at bytes that were read at `now`.
    ///
    /// # Errors
    /// When there were more frames for their own sake than are allowed.
    pub fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        let passed = self.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.left = (self.left + passed.as_secs_f64() * self.allowance.per_second).min(self.allowance.burst);
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEADER - self.have);
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEADER {
                self.have = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, ..] = self.header;
        self.skip = u32::from_be_bytes([0, high, middle, low]);
        self.left += match kind {
            HEADERS => self.allowance.per_request,
            DATA if self.skip > 0 => 0.0,
            RST_STREAM => -2.0 * self.allowance.per_request,
            _ => -1.0,
        };
        if self.left < 0.0 { Err(Flood) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { burst: 1000.0, per_second: 100.0, per_request: 1.0 };

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(HEADER + usize::from(length), 7);
        frame
    }

    /// Feeds the frames of a connection in pieces of so many bytes, all at one moment.
    fn is_flood(frames: &[Vec<u8>], piece: usize) -> bool {
        let bytes = [vec![b'x'; PREFACE as usize], frames.concat()].concat();
        let (mut meter, now) = (FrameMeter::new(ALLOWANCE), Instant::now());
        bytes.chunks(piece).any(|piece| meter.read(piece, now).is_err())
    }

    #[test]
    fn frames_for_their_own_sake_are_a_flood_however_they_are_cut() {
        for kind in [DATA, RST_STREAM, 2, 4, 6, 8, 9, 99] {
            let length = if kind == DATA { 0 } else { 8 };
            for piece in [1, 7, 9, 16_384] {
                assert!(is_flood(&vec![frame(kind, length); 1001], piece), "{kind} in pieces of {piece}");
                assert!(!is_flood(&vec![frame(kind, length); 500], piece), "{kind} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn requests_are_none_and_earn_what_belongs_to_them() {
        let request = [frame(HEADERS, 20), frame(DATA, 100), frame(8, 4)].concat();
        assert!(!is_flood(&vec![request; 10_000], 4096));
        let taken_back = [frame(HEADERS, 20), frame(RST_STREAM, 4)].concat();
        assert!(is_flood(&vec![taken_back; 1001], 4096));
    }

    #[test]
    fn a_connection_that_lives_long_may_ping_for_ever() {
        let (mut meter, mut now) = (FrameMeter::new(ALLOWANCE), Instant::now());
        meter.read(&[b'x'; PREFACE as usize], now).unwrap();
        for _ in 0..10_000 {
            meter.read(&frame(6, 8), now).unwrap();
            now += Duration::from_millis(20);
        }
    }
}
