//! Finds programs.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Result, StackError};

/// Where PATH does not always lead.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program's full path, from PATH or the usual folders.
pub(crate) fn find(program: &'static str, remedy: &'static str) -> Result<PathBuf> {
    lookup(program).ok_or(StackError::Missing { program, searched: USUAL, remedy })
}

/// The same without an error.
pub(crate) fn lookup(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(env::split_paths(USUAL))
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
}

pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
