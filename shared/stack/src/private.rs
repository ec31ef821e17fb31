//! Files that only their owner may read, and the passwords in them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rand::RngExt;
use rand::distr::Alphanumeric;

use crate::{Result, StackError};

/// About 190 bits; letters and digits only, so it needs no quoting anywhere.
const PASSWORD_LENGTH: usize = 32;

/// Replaces a file as a whole, readable by its owner only from the first moment.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("draft");
    write_draft(&draft, text).and_then(|()| fs::rename(&draft, path)).map_err(StackError::at("write", path))
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    // A draft that a crash left behind could have other permissions.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The password in this file; a new random one is put there if the file does not exist.
pub(crate) fn password(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let password = random_password();
            write(path, &format!("{password}\n"))?;
            Ok(password)
        }
        Err(error) => Err(StackError::at("read the password in", path)(error)),
    }
}

fn random_password() -> String {
    rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH).map(char::from).collect()
}

/// A password as it may stand in a URL.
pub(crate) fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
