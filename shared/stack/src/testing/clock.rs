//! A clock that a test can set, for processes that it starts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Scratch, scratch};

/// Laid over the C library's own functions by `LD_PRELOAD`.
const SOURCE: &str = include_str!("clock.c");

/// The time of day of the processes that are started with its [variables](Clock::env). Their monotonic clock goes on as
/// ever, as it does when somebody sets the clock of a machine.
#[derive(Debug)]
pub struct Clock {
    dir: Scratch,
}

impl Clock {
    /// A clock that is right. Takes a C compiler, as building Weir does.
    ///
    /// # Panics
    /// If it cannot be compiled.
    pub fn new() -> Self {
        let dir = scratch();
        fs::write(dir.path().join("clock.c"), SOURCE).expect("a source file");
        let mut compile = Command::new("cc");
        compile.args(["-O1", "-shared", "-fPIC", "-o", "clock.so", "clock.c"]).current_dir(dir.path());
        let compiled = compile.output().expect("cc runs; on Debian it is in the package gcc");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let clock = Self { dir };
        fs::write(clock.file(), 0_i64.to_ne_bytes()).expect("a file for the clock");
        clock
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }

    /// The variables of a process that goes by this clock.
    pub fn env(&self) -> [(String, String); 2] {
        let path = |name| self.dir.path().join(name).display().to_string();
        [("LD_PRELOAD".to_owned(), path("clock.so")), ("WEIR_TEST_CLOCK".to_owned(), path("offset"))]
    }

    /// Sets the clock to so many seconds after the time of day, or before it; the processes see it at once.
    ///
    /// # Panics
    /// If its file cannot be written.
    pub fn set(&self, seconds: i64) {
        use std::os::unix::fs::FileExt as _;
        let file = fs::OpenOptions::new().write(true).open(self.file()).expect("the file of the clock");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("the clock is set");
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
