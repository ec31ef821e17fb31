//! Where the data can live.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Account;
use crate::{Result, StackError};

/// For folders that the server's account cannot reach.
const ELSEWHERE: &str = "/var/lib/weir";
/// In such a folder: names the place of the data.
const LOCATION: &str = "location";

/// The folder for data, password and log: `dir` itself if the account can reach it. Once chosen it stays.
pub(super) fn choose(dir: &Path, account: Option<&Account>) -> Result<PathBuf> {
    let location = dir.join(LOCATION);
    if let Some(named) = elsewhere_of(dir) {
        return Ok(named);
    }
    match account {
        Some(account) if !dir.join("data").exists() && !is_reachable(dir, account) => move_out(dir, &location, account),
        _ => Ok(dir.to_owned()),
    }
}

/// The place that an earlier start chose for the data of `dir`, when that is not `dir` itself.
pub(crate) fn elsewhere_of(dir: &Path) -> Option<PathBuf> {
    Some(PathBuf::from(fs::read_to_string(dir.join(LOCATION)).ok()?.trim_end()))
}

fn move_out(dir: &Path, location: &Path, account: &Account) -> Result<PathBuf> {
    let home = elsewhere(dir);
    fs::create_dir_all(&home).map_err(StackError::at("create the folder", &home))?;
    set_mode(Path::new(ELSEWHERE), 0o711)?;
    set_mode(&home, 0o700)?;
    account.own(&home)?;
    fs::write(location, format!("{}\n", home.display())).map_err(StackError::at("write", location))?;
    tracing::info!(dir = %dir.display(), home = %home.display(), "PostgreSQL's data lives elsewhere");
    Ok(home)
}

fn set_mode(folder: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(StackError::at("set the permissions of", folder))
}

/// Whether the account may pass through the folder and all those above it.
pub(crate) fn is_reachable(dir: &Path, account: &Account) -> bool {
    dir.ancestors().all(|folder| fs::metadata(folder).is_ok_and(|meta| may_pass(&meta, account)))
}

fn may_pass(meta: &fs::Metadata, account: &Account) -> bool {
    let bit = if meta.uid() == account.uid {
        0o100
    } else if meta.gid() == account.gid {
        0o010
    } else {
        0o001
    };
    meta.mode() & bit != 0
}

/// One place for each folder, the same at every start.
fn elsewhere(dir: &Path) -> PathBuf {
    Path::new(ELSEWHERE).join(format!("{:016x}", fnv1a(dir.as_os_str().as_encoded_bytes())))
}

/// FNV-1a: `std`'s hash may change with the compiler, and with it the place of the data.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_below_a_closed_one_is_not_reachable() {
        let outer = tempfile::tempdir().expect("a folder");
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).expect("a folder");
        let stranger = Account { uid: 4_000_001, gid: 4_000_001 };
        let mode = |bits| fs::set_permissions(outer.path(), Permissions::from_mode(bits)).expect("chmod");
        mode(0o700);
        assert!(!is_reachable(&inner, &stranger));
        mode(0o711);
        assert!(is_reachable(&inner, &stranger));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
