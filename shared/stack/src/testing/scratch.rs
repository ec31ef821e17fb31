//! A folder for one test.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::cleaner;
use crate::postgres::{Account, is_reachable};

/// A folder that is removed when this is dropped, or after the end of the process if it never is.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

/// An empty folder for one test. Its path is short, and every account can pass through it (PostgreSQL's, when the tests
/// run as root) while only ours can list it.
///
/// # Panics
/// If the folder or its cleaner cannot be created.
pub fn scratch() -> Scratch {
    let dir = tempfile::Builder::new().prefix("weir-").rand_bytes(8).tempdir_in(base()).expect("a folder for a test");
    cleaner::announce(dir.path()).expect("a cleaner for a test's folder");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).expect("permissions of a test's folder");
    Scratch { dir }
}

/// The folder for temporary files, unless PostgreSQL's account cannot reach it.
fn base() -> PathBuf {
    let usual = fs::canonicalize(env::temp_dir()).unwrap_or_else(|_| env::temp_dir());
    match Account::to_switch_to() {
        Ok(Some(account)) if !is_reachable(&usual, &account) => "/tmp".into(),
        _ => usual,
    }
}
