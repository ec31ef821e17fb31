//! A small file system of our own, which can be filled.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Large enough for what a long run leaves in Redis' log, and only taken as it is used.
const SIZE: &str = "4g";

const FILLER: &str = "filler";

/// A mounted tmpfs; dropping it takes it away.
pub(crate) struct Tmpfs {
    folder: PathBuf,
}

impl Tmpfs {
    /// Whether this process may mount one.
    pub(crate) fn is_allowed() -> bool {
        let Ok(folder) = tempfile::tempdir() else { return false };
        Tmpfs::mount(folder.path()).is_ok()
    }

    pub(crate) fn mount(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=0700"), "tmpfs"]).arg(folder);
        let output = mount.output().context("mount cannot be run")?;
        if !output.status.success() {
            bail!("no small disk can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) -> Result<()> {
        let path = self.folder.join(FILLER);
        let mut file = File::create(&path).context("the filler cannot be made")?;
        // Large pieces first, then ever smaller ones, until not one byte fits.
        let mut piece = 64 << 20;
        let zeros = vec![0; piece];
        while piece > 0 {
            if file.write(&zeros[..piece]).is_err() {
                piece /= 4;
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub(crate) fn free(&self) -> Result<()> {
        fs::remove_file(self.folder.join(FILLER)).context("the filler cannot be removed")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a server that is about to end may still have files open.
        let ended = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if !ended.is_ok_and(|status| status.success()) {
            tracing::warn!(folder = %self.folder.display(), "the small disk stays mounted; umount it by hand");
        }
    }
}
