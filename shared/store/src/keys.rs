//! Keys to the API: who may call it, and what they may.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;

use crate::{Class, Store, StoreError};

/// What the holder of a key may. Each role may what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read the monitoring.
    Monitor,
    /// Read everything.
    Read,
    /// Change profiles and employees.
    Write,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them, the weakest first.
    pub const ALL: [Self; 4] = [Self::Monitor, Self::Read, Self::Write, Self::Admin];

    /// As it is stored and written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| "is none of monitor, read, write, admin".to_owned())
    }
}

/// A key that is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its row.
    pub id: i64,
    /// For people.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// The part of the key by which it is found.
    pub prefix: String,
    /// SHA-256 of the whole key.
    pub hash: Vec<u8>,
}

/// A key as operators see it: nothing of it could be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Its row.
    pub id: i64,
    /// For people.
    pub name: String,
    /// What it allows.
    pub role: String,
    /// The part of the key by which it is found.
    pub prefix: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last used, a minute behind at most; none if it never was.
    pub last_used_at: Option<OffsetDateTime>,
    /// Since when it is of no use any more.
    pub revoked_at: Option<OffsetDateTime>,
}

impl Store {
    /// Keeps a new key, of which only the hash is stored, and returns its row's id.
    ///
    /// # Errors
    /// Of [`Class::Message`] if the prefix is taken: make another key.
    pub async fn add_key(&self, name: &str, role: Role, prefix: &str, hash: &[u8]) -> Result<i64, StoreError> {
        let id = sqlx::query_scalar!(
            "INSERT INTO api_keys (name, role, prefix, hash) VALUES ($1, $2, $3, $4) RETURNING id",
            name,
            role.as_str(),
            prefix,
            hash
        );
        let added = self.on_connection(async |connection| Ok(id.fetch_one(connection).await?)).await;
        added.map_err(|error| if error.is_taken() { StoreError { class: Class::Message, ..error } } else { error })
    }

    /// The key with this prefix, unless it was revoked.
    pub async fn find_key(&self, prefix: &str) -> Result<Option<StoredKey>, StoreError> {
        let row = sqlx::query!(
            "SELECT id, name, role, prefix, hash FROM api_keys WHERE prefix = $1 AND revoked_at IS NULL",
            prefix
        );
        let row = self.on_connection(async |connection| Ok(row.fetch_optional(connection).await?)).await?;
        let Some(row) = row else { return Ok(None) };
        let role = row.role.parse().map_err(|_| {
            StoreError::new(
                Class::Deployment,
                format!("api_keys: the role of key {} is not known to this version", row.id),
            )
        })?;
        Ok(Some(StoredKey { id: row.id, name: row.name, role, prefix: row.prefix, hash: row.hash }))
    }

    /// All keys, oldest first, those that were revoked among them.
    pub async fn list_keys(&self) -> Result<Vec<ListedKey>, StoreError> {
        let rows = sqlx::query_as!(
            ListedKey,
            "SELECT id, name, role, prefix, created_at, last_used_at, revoked_at FROM api_keys ORDER BY id"
        );
        self.on_connection(async |connection| Ok(rows.fetch_all(connection).await?)).await
    }

    /// Takes a key's use away, for good. It names the keys that were revoked by this call: none if there is no such key,
    /// or if it was revoked before.
    pub async fn revoke_key(&self, prefix: &str) -> Result<Option<ListedKey>, StoreError> {
        let row = sqlx::query_as!(
            ListedKey,
            "UPDATE api_keys SET revoked_at = now() WHERE prefix = $1 AND revoked_at IS NULL
             RETURNING id, name, role, prefix, created_at, last_used_at, revoked_at",
            prefix
        );
        self.on_connection(async |connection| Ok(row.fetch_optional(connection).await?)).await
    }

    /// Notes that a key was used just now.
    pub async fn note_key_use(&self, id: i64) -> Result<(), StoreError> {
        let noted = sqlx::query!("UPDATE api_keys SET last_used_at = now() WHERE id = $1", id);
        self.on_connection(async |connection| Ok(noted.execute(connection).await?)).await?;
        Ok(())
    }
}
