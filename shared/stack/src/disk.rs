//! A disk that is small enough to be filled.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, mounted over a folder. Its space is taken only as it is used. Dropping it unmounts it, with
/// all that is in it.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many megabytes over a folder, which is made if it is not there. It takes root.
    ///
    /// # Errors
    /// When the system does not let us, with its reason.
    pub fn mount(folder: &Path, megabytes: u32) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0711"), "weir"]).arg(folder);
        let output = mount.output()?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Takes all the space that is left, to the last byte.
    ///
    /// # Errors
    /// When the file that takes it cannot be made.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.filler())?;
        // Large pieces first, then ever smaller ones.
        let mut piece = 16 << 20;
        let zeros = vec![0; piece];
        while piece > 0 {
            if !file.write(&zeros[..piece]).is_ok_and(|written| written > 0) {
                piece /= 4;
            }
        }
        Ok(())
    }

    /// Gives the space back that [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.filler())
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is about to end may still have files open.
        let ended = Command::new("umount").arg("-l").arg(&self.folder).status();
        if !ended.is_ok_and(|status| status.success()) {
            tracing::warn!(folder = %self.folder.display(), "a small disk stays mounted; umount it by hand");
        }
    }
}
