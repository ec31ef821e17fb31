//! A small disk for one test.

use std::ops::Deref;

use super::{Scratch, scratch};
use crate::SmallDisk;

/// A [`SmallDisk`] in a folder of its own, which is unmounted at the latest after the end of the process.
#[derive(Debug)]
pub struct TestDisk {
    disk: SmallDisk,
    _folder: Scratch,
}

/// Mounts a disk of so many megabytes, which takes root. Otherwise it is `None`, and the reason is printed.
#[expect(clippy::print_stderr, reason = "a test that is skipped has to say so")]
pub fn small_disk(megabytes: u32) -> Option<TestDisk> {
    let folder = scratch();
    match SmallDisk::mount(folder.path(), megabytes) {
        Ok(disk) => Some(TestDisk { disk, _folder: folder }),
        Err(error) => {
            eprintln!("SKIPPED: no small disk: {error}");
            None
        }
    }
}

impl Deref for TestDisk {
    type Target = SmallDisk;

    fn deref(&self) -> &SmallDisk {
        &self.disk
    }
}
