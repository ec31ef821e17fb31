//! The key with which people try the API of their own `weir up`. It lies in the data folder, readable by its owner alone, and is
//! made anew when the database does not know it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use weir_api::ApiKey;
use weir_store::{Role, Store};

const FILE: &str = "development.key";

/// What the database calls it.
const NAME: &str = "development";

/// The key: the one of last time, or a new one.
pub(crate) async fn key(data: &Path, store: &Store) -> Result<ApiKey> {
    let path = data.join(FILE);
    let known = fs::read_to_string(&path).ok().and_then(|text| ApiKey::parse(text.trim()));
    if let Some(key) = known
        && store.find_key(key.prefix()).await?.is_some_and(|stored| stored.hash == key.hash())
    {
        return Ok(key);
    }
    let key = ApiKey::random();
    store.add_key(NAME, Role::Admin, key.prefix(), &key.hash()).await?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", key.expose())
    };
    write().with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(key)
}
