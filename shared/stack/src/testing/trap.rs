//! A panic on purpose, in code that cannot be told to panic.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Subscriber, set_default};
use tracing::{Dispatch, Event, Metadata};

/// Panics where a log line is written, on the thread that set it, for tests on a runtime of one thread; and on threads that
/// take over where their parent's lines go, if it was set before them. Ends when it is dropped.
pub struct Trap {
    sprung: Arc<AtomicUsize>,
    _guard: DefaultGuard,
    /// With a single subscriber in the process, a thread without any that comes to a line first would have it left out
    /// everywhere.
    _second: Dispatch,
}

impl Trap {
    /// Panics the first `times` times that a line contains each of `parts`. A line is its message and fields, as in
    /// `message=stored class="data" `.
    pub fn set(times: usize, parts: &'static [&'static str]) -> Self {
        let sprung = Arc::new(AtomicUsize::new(0));
        let second = Dispatch::new(Wire { times: 0, parts, sprung: sprung.clone() });
        let guard = set_default(Wire { times, parts, sprung: sprung.clone() });
        Self { sprung, _guard: guard, _second: second }
    }

    /// How often it has panicked.
    pub fn sprung(&self) -> usize {
        self.sprung.load(Ordering::SeqCst)
    }
}

struct Wire {
    times: usize,
    parts: &'static [&'static str],
    sprung: Arc<AtomicUsize>,
}

impl Subscriber for Wire {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("weir")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        if self.parts.iter().all(|part| line.0.contains(part)) && self.sprung.load(Ordering::SeqCst) < self.times {
            self.sprung.fetch_add(1, Ordering::SeqCst);
            panic!("a trap: {}", line.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}
