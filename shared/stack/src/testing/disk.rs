//! A disk that is small enough to be filled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Scratch, scratch};

/// A file system in memory, of a given size, in a folder of its own. It is unmounted when this is dropped, or after the
/// end of the process.
#[derive(Debug)]
pub struct SmallDisk {
    dir: Scratch,
}

impl SmallDisk {
    /// Mounts one of `megabytes`, which takes root. Otherwise it is `None`, and the reason is printed.
    #[expect(clippy::print_stderr, reason = "a test that is skipped has to say so")]
    pub fn mount(megabytes: u32) -> Option<Self> {
        let dir = scratch();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "weir-test"]).arg(dir.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self { dir }),
            Ok(output) => {
                eprintln!("SKIPPED: no small disk: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: no small disk: mount: {error}");
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the space that is left.
    ///
    /// # Panics
    /// If that fails for another reason than a full disk.
    pub fn fill(&self) {
        let (file, chunk) = (self.filler(), vec![0; 4096]);
        let mut file = fs::File::create(file).expect("a file");
        while let Ok(written) = std::io::Write::write(&mut file, &chunk) {
            assert!(written > 0, "a disk takes something or fails");
        }
    }

    /// Gives it back.
    ///
    /// # Panics
    /// If it was not filled.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("the disk was filled");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server in it may take a moment to end.
        let unmounted = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        debug_assert!(unmounted.is_ok_and(|status| status.success()), "the small disk stays mounted");
    }
}
