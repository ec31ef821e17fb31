//! Log lines on their way to standard error, which may be slow, stuck or on a full disk. Nobody waits for it: a thread
//! writes, lines gather in bounded memory, and what does not fit or cannot be written is counted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that may wait to be written: some thousand lines.
const ROOM: usize = 1 << 20;

/// How long the end of a process waits for its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

static STDERR: OnceLock<&'static Lines> = OnceLock::new();

/// Lines that wait for a thread that writes them.
pub(crate) struct Lines {
    waiting: Mutex<Waiting>,
    more: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// Of the lines, and of those that the thread has taken and not written yet.
    bytes: usize,
}

/// The lines on their way to standard error.
pub(crate) fn to_stderr() -> &'static Lines {
    STDERR.get_or_init(|| match io::stderr().as_fd().try_clone_to_owned() {
        // Not through the handle of the standard library: whoever is stuck there holds its lock.
        Ok(own) => Lines::start(File::from(own)),
        Err(_) => Lines::start(io::stderr()),
    })
}

/// Writes a line to standard error in its turn, as the log does: without waiting.
pub fn say(line: &str) {
    to_stderr().push(format!("{line}\n").into_bytes());
}

/// Waits until everything that was logged is written; not for long, should standard error be stuck.
pub fn flush() {
    if let Some(lines) = STDERR.get() {
        lines.flush(LAST_LINES);
    }
}

/// Lines that were lost so far.
pub fn dropped() -> u64 {
    STDERR.get().map_or(0, |lines| lines.dropped.load(Ordering::Relaxed))
}

impl Lines {
    /// Starts the thread, which runs as long as the process.
    fn start(out: impl Write + Send + 'static) -> &'static Self {
        let lines: &'static Self = Box::leak(Box::new(Self {
            waiting: Mutex::default(),
            more: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
        }));
        let write = move || lines.write_to(out);
        thread::Builder::new().name("log".into()).spawn(write).expect("the system allows a thread for the log");
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Vec<u8>) {
        let mut waiting = self.lock();
        if waiting.bytes + line.len() > ROOM {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        self.more.notify_one();
    }

    /// Waits until nothing waits any more.
    fn flush(&self, limit: Duration) {
        drop(self.written.wait_timeout_while(self.lock(), limit, |waiting| waiting.bytes > 0));
    }

    fn write_to(&self, mut out: impl Write) {
        let mut told = 0;
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() {
                waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let batch = std::mem::take(&mut waiting.lines);
            drop(waiting);
            let mut well = true;
            for line in batch {
                well = out.write_all(&line).is_ok();
                if !well {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                self.lock().bytes -= line.len();
            }
            self.written.notify_all();
            let dropped = self.dropped.load(Ordering::Relaxed);
            if well && dropped > told {
                tracing::warn!(lines = dropped - told, "log lines were lost: standard error was stuck or full");
                told = dropped;
            }
        }
    }
}

/// The subscriber writes each line whole.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Takes lines only while its gate is open.
    struct Gate(Arc<Mutex<()>>, mpsc::Sender<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            drop(self.0.lock().unwrap());
            self.1.send(line.to_vec()).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_no_time() {
        let gate = Arc::new(Mutex::new(()));
        let (sender, read) = mpsc::channel();
        let closed = gate.lock().unwrap();
        let lines = Lines::start(Gate(gate.clone(), sender));
        let line = vec![b'x'; 1024];
        for _ in 0..2 * ROOM / line.len() {
            lines.push(line.clone());
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), (ROOM / line.len()) as u64);
        lines.flush(Duration::from_millis(10));
        drop(closed);
        lines.flush(PATIENCE);
        assert_eq!(read.try_iter().count(), ROOM / line.len());
        lines.push(line);
        read.recv_timeout(PATIENCE).expect("it goes on");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let lines = Lines::start(full);
        (0..10).for_each(|_| lines.push(b"x\n".to_vec()));
        lines.flush(PATIENCE);
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 10);
    }
}
