//! `weir key`: who may call the API.

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;
use time::OffsetDateTime;
use weir_api::ApiKey;
use weir_store::{ListedKey, Role, Store};

use crate::Ending;
use crate::cli::Output;
use crate::cli::consent::{self, Preview};
use crate::context::Context;
use crate::output;

/// Make, list and revoke keys to the API
///
/// Roles, each of which may what the ones before it may: monitor reads the monitoring; read reads everything; write
/// changes profiles and employees; admin may everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir key create --role read back-office
  weir key list
  weir key revoke 8fK2mQ0x")]
pub(crate) struct Key {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    Create(Create),
    /// List all keys, revoked ones too; nothing of them could be used
    #[command(after_help = "Example: weir key list --output json")]
    List,
    Revoke(Revoke),
}

/// Make a key and show it, this once
///
/// Only a hash of it is kept. It goes to standard output, the remark about it does not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir key create --role read back-office
  KEY=$(weir key create --role monitor grafana)")]
struct Create {
    /// Name for people: who uses it
    name: String,
    /// What it allows: monitor, read, write or admin
    #[arg(long, value_name = "ROLE")]
    role: Role,
}

/// Revoke a key for good; it is refused everywhere within five seconds
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir key revoke 8fK2mQ0x --yes")]
struct Revoke {
    /// The key's prefix, as `weir key list` shows it
    prefix: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// A new key, with the key itself.
#[derive(Debug, Serialize)]
struct Created<'a> {
    name: &'a str,
    role: &'static str,
    prefix: &'a str,
    key: &'a str,
}

/// A key as it is listed.
#[derive(Debug, Serialize)]
struct Line {
    prefix: String,
    name: String,
    role: String,
    created_at: String,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

impl Key {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        match self.act {
            Act::Create(create) => create.run(context).await,
            Act::List => list(context).await,
            Act::Revoke(revoke) => revoke.run(context).await,
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> Result<Ending> {
        let name = self.name.trim();
        let is_plain = !name.is_empty() && name.chars().count() <= 100 && !name.chars().any(char::is_control);
        if !is_plain {
            bail!("the name of a key has 1 to 100 characters, none of them a control character");
        }
        let store = context.store().await?;
        let key = ApiKey::random();
        store.add_key(name, self.role, key.prefix(), &key.hash()).await?;
        store.close().await;
        match context.output {
            Output::Json => {
                output::json(&Created { name, role: self.role.as_str(), prefix: key.prefix(), key: key.expose() });
            }
            Output::Table => output::line(key.expose()),
        }
        output::remark(format_args!(
            "This is the only time that the key is shown. Role {}; send it as `Authorization: Bearer weir_…`; \
             `weir key revoke {}` ends it.",
            self.role,
            key.prefix()
        ));
        Ok(Ending::Done)
    }
}

async fn list(context: &Context) -> Result<Ending> {
    let store = context.store().await?;
    let lines: Vec<Line> = store.list_keys().await?.into_iter().map(Line::of).collect();
    store.close().await;
    if lines.is_empty() && context.output == Output::Table {
        output::line("there are no keys: make one with `weir key create --role ROLE NAME`");
        return Ok(Ending::Done);
    }
    let heading = ["prefix", "name", "role", "created", "last used", "revoked"];
    output::rows(context.output, &heading, &lines, |line| {
        let or_dash = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".into());
        vec![
            line.prefix.clone(),
            line.name.clone(),
            line.role.clone(),
            line.created_at.clone(),
            or_dash(&line.last_used_at),
            or_dash(&line.revoked_at),
        ]
    });
    Ok(Ending::Done)
}

impl Revoke {
    async fn run(self, context: &Context) -> Result<Ending> {
        let store = context.store().await?;
        let Some(key) = find(&store, &self.prefix).await? else {
            let prefix = output::escape(&self.prefix);
            output::remark(format_args!("No valid key has the prefix {prefix}; `weir key list` shows all."));
            return Ok(Ending::Negative);
        };
        let question = format!("Revoke the key {} ({}, {})? It cannot be given back.", key.prefix, key.name, key.role);
        consent::ask(&question, self.yes, Preview::None)?;
        let revoked = store.revoke_key(&key.prefix).await?;
        store.close().await;
        let Some(key) = revoked else {
            output::remark("Somebody else has revoked it just now.");
            return Ok(Ending::Negative);
        };
        let line = Line::of(key);
        let shown = [("prefix", line.prefix.clone()), ("name", line.name.clone()), ("role", line.role.clone())];
        output::record(context.output, &line, &shown);
        output::remark("Revoked: it is refused everywhere within five seconds.");
        Ok(Ending::Done)
    }
}

/// The valid key that is meant: by its prefix, or by itself, as somebody would paste it who finds it leaked.
async fn find(store: &Store, named: &str) -> Result<Option<weir_store::StoredKey>> {
    let whole = ApiKey::parse(named);
    let prefix = whole.as_ref().map_or(named, ApiKey::prefix);
    Ok(store.find_key(prefix).await?)
}

impl Line {
    fn of(key: ListedKey) -> Self {
        Self {
            prefix: key.prefix,
            name: key.name,
            role: key.role,
            created_at: moment(key.created_at),
            last_used_at: key.last_used_at.map(moment),
            revoked_at: key.revoked_at.map(moment),
        }
    }
}

fn moment(time: OffsetDateTime) -> String {
    output::time(u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default())
}
