//! Finds PostgreSQL's programs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Result, StackError, program};

/// Debian keeps one folder per major version here, outside PATH.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The folder of `initdb` and `postgres`.
#[derive(Debug)]
pub(super) struct Installation {
    bin: PathBuf,
}

impl Installation {
    /// The one in PATH, else the newest. Data that exists is opened by the major `version` that created it, if that is
    /// still installed.
    pub(super) fn find(version: Option<&str>) -> Result<Installation> {
        let bin = version
            .map(|version| Path::new(DEBIAN).join(version).join("bin"))
            .filter(|bin| is_complete(bin))
            .or_else(in_path)
            .or_else(newest)
            .ok_or(StackError::Missing {
                program: "initdb and postgres",
                searched: "/usr/lib/postgresql/*/bin",
                remedy: "apt-get install postgresql",
            })?;
        Ok(Installation { bin })
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.bin.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }
}

fn is_complete(bin: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|name| program::is_executable(&bin.join(name)))
}

/// What PATH has may be a link to the real folder.
fn in_path() -> Option<PathBuf> {
    let real = fs::canonicalize(program::lookup("initdb")?).ok()?;
    real.parent().filter(|bin| is_complete(bin)).map(Path::to_owned)
}

fn newest() -> Option<PathBuf> {
    fs::read_dir(DEBIAN)
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let major: u32 = path.file_name()?.to_str()?.parse().ok()?;
            Some((major, path.join("bin")))
        })
        .filter(|(_, bin)| is_complete(bin))
        .max()
        .map(|(_, bin)| bin)
}
