//! `weir dlq edit`.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use weir_core::dead_letter::DeadLetter;
use weir_core::message::Message;
use weir_core::queue::Queue;
use weir_core::queue::letters::Shelf;
use weir_gateway::decode::{self, DecodeError};

use super::place::Place;
use super::render::hidden_text;
use super::{author, redis_now_ms, show};
use crate::Ending;
use crate::cli::Output;
use crate::context::Context;
use crate::output;

/// Correct the message in a dead letter
///
/// Changes fields with --field, or opens the message as JSON in $EDITOR. The result must be a message that the gateway
/// would accept. Source and external message id stay: they make it the same message. The letter keeps the message as
/// it came, and stays a dead letter until it is replayed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq edit 3/1732233600000-12 --field client_phone=+79194961182 --reason 'a digit was missing'
  weir dlq edit 3/1732233600000-12 --reason 'asked by support' --dry-run")]
pub(super) struct Edit {
    /// Place, external message id or message id of the letter
    id: String,
    /// A field and its new value: external_client_id, client_phone, message_text or send_at; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    field: Vec<String>,
    /// Why, for the audit stream
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Show the phone and the text in the difference
    #[arg(long)]
    reveal: bool,
}

/// Fields that make it the same message.
const IDENTITY: [&str; 2] = ["source", "external_message_id"];

/// Fields that `--field` can change.
const EDITABLE: [&str; 4] = ["external_client_id", "client_phone", "message_text", "send_at"];

/// One field that changed.
#[derive(Debug, PartialEq, Serialize)]
struct Change {
    field: String,
    before: Value,
    after: Value,
}

/// How an edit ended.
#[derive(Debug, Serialize)]
struct Summary {
    place: String,
    new_place: Option<String>,
    changes: Vec<Change>,
    dry_run: bool,
}

impl Edit {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        if self.reason.trim().is_empty() {
            bail!("--reason is empty: say why the message is changed");
        }
        let queue = super::open_queue(context).await?;
        let Some(letter) = find(&queue, &self.id).await? else {
            output::remark(format_args!("There is no dead letter {}.", output::escape(&self.id)));
            return Ok(Ending::Negative);
        };
        let message = message(&letter)?;
        let before = external(&message)?;
        let after = if self.field.is_empty() { in_editor(&before)? } else { with_fields(&before, &self.field)? };
        let envelope = validate(&message, &after, (redis_now_ms(&queue).await? / 1000) as i64)?;
        let changes = changes(&before, &external(&serde_json::from_slice(&envelope)?)?);
        if changes.is_empty() {
            bail!("nothing would change: the message is like that already");
        }
        let mut summary = self.summary(&letter, changes);
        if !self.dry_run {
            let new = queue.amend(letter.partition, &author(Some(&self.reason)), &letter.entry, &envelope).await?;
            let Some(entry) = new else {
                bail!(
                    "{} was replayed, purged or edited by somebody else meanwhile; nothing was changed",
                    summary.place
                )
            };
            summary.new_place = Some(Place { entry, ..Place::of(&letter) }.to_string());
        }
        summary.print(context.output);
        Ok(Ending::Done)
    }

    fn summary(&self, letter: &DeadLetter, changes: Vec<Change>) -> Summary {
        let changes = if self.reveal { changes } else { changes.into_iter().map(Change::masked).collect() };
        Summary { place: Place::of(letter).to_string(), new_place: None, changes, dry_run: self.dry_run }
    }
}

async fn find(queue: &Queue, id: &str) -> Result<Option<DeadLetter>> {
    match show::find(queue, id, false).await? {
        Some((Shelf::Parked, letter)) => bail!(
            "{} is parked, not dead: it waits for a worker that knows entry version {}; only dead letters can be edited",
            Place::of(&letter),
            letter.version
        ),
        found => Ok(found.map(|(_, letter)| letter)),
    }
}

fn message(letter: &DeadLetter) -> Result<Message<'_>> {
    letter.message().with_context(|| {
        let place = Place::of(letter);
        format!(
            "{place} holds no message whose fields could be edited; `weir dlq export --entry {place} FILE`, correct \
             the file and `weir dlq import` it"
        )
    })
}

/// The message as the sender would write it, with the source.
fn external(message: &Message<'_>) -> Result<Map<String, Value>> {
    let mut object = Map::new();
    object.insert("source".into(), message.source.as_ref().into());
    object.insert("external_message_id".into(), message.external_message_id.as_ref().into());
    object.insert("external_client_id".into(), message.external_client_id.as_ref().into());
    object.insert("client_phone".into(), message.client_phone.as_ref().into());
    object.insert("message_text".into(), message.message_text.as_ref().into());
    object.insert("send_at".into(), message.send_at.into());
    if let Some(extra) = message.extra {
        let extra: Map<String, Value> = serde_json::from_str(extra.get()).context("its unknown fields are broken")?;
        for (name, value) in extra {
            object.entry(name).or_insert(value);
        }
    }
    Ok(object)
}

fn with_fields(before: &Map<String, Value>, fields: &[String]) -> Result<Map<String, Value>> {
    let mut after = before.clone();
    for field in fields {
        let Some((name, value)) = field.split_once('=') else { bail!("--field {field}: write NAME=VALUE") };
        if IDENTITY.contains(&name) {
            bail!("--field {name}: it makes this the same message, so it cannot be changed");
        }
        if !EDITABLE.contains(&name) {
            bail!("--field {name}: there is no such field; the fields are {}", EDITABLE.join(", "));
        }
        let value = match (name, value.parse::<i64>()) {
            ("send_at", Ok(seconds)) => Value::from(seconds),
            _ => Value::from(value),
        };
        after.insert(name.to_owned(), value);
    }
    Ok(after)
}

/// Lets the operator edit the message as JSON, in a file that only they can read.
fn in_editor(before: &Map<String, Value>) -> Result<Map<String, Value>> {
    let editor = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR"));
    let Ok(editor) = editor else { bail!("no $EDITOR is set: set it, or give --field NAME=VALUE") };
    let path = std::env::temp_dir().join(format!("weir-edit-{:016x}.json", rand::random::<u64>()));
    let write = |bytes: &[u8]| -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        std::io::Write::write_all(&mut file, bytes)
    };
    write(&serde_json::to_vec_pretty(before)?).with_context(|| format!("{} cannot be written", path.display()))?;
    // Through the shell, because $EDITOR may hold options.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(&path).status();
    let text = fs::read(&path);
    drop(fs::remove_file(&path));
    if !status.with_context(|| format!("{editor} cannot be started"))?.success() {
        bail!("{editor} ended with an error; nothing was changed");
    }
    let after: Value = serde_json::from_slice(&text?).context("the edited text is no JSON; nothing was changed")?;
    match after {
        Value::Object(after) => Ok(after),
        _ => bail!("the edited text is no JSON object; nothing was changed"),
    }
}

/// The new envelope, when the gateway would accept the message and it is still the same one.
fn validate(message: &Message<'_>, after: &Map<String, Value>, now: i64) -> Result<Vec<u8>> {
    let mut after = after.clone();
    let source = after.remove("source");
    if source.as_ref().and_then(Value::as_str) != Some(&*message.source)
        || after.get("external_message_id").and_then(Value::as_str) != Some(&*message.external_message_id)
    {
        bail!("source and external_message_id make this the same message, so they cannot be changed");
    }
    let body = serde_json::to_vec(&after)?;
    let decoded =
        decode::decode(&body, now).map_err(|error| anyhow::anyhow!("nothing was changed: {}", words(error)))?;
    let mut edited = decoded.message(&message.source, &message.traceparent);
    if value_of(edited.extra) == value_of(message.extra) {
        // As the sender wrote it: reading and writing numbers could change them.
        edited.extra = message.extra;
    }
    Ok(edited.encode())
}

fn value_of(raw: Option<&RawValue>) -> Option<Value> {
    serde_json::from_str(raw?.get()).ok()
}

fn words(error: DecodeError) -> String {
    match error {
        DecodeError::NotAnObject(text) => text,
        DecodeError::Invalid(faults) => {
            let faults: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.field, fault.message)).collect();
            faults.join("; ")
        }
    }
}

fn changes(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Change> {
    let value = |object: &Map<String, Value>, name: &str| object.get(name).cloned().unwrap_or(Value::Null);
    let mut names: Vec<&String> = before.keys().collect();
    names.extend(after.keys().filter(|name| !before.contains_key(*name)));
    let change = |name: &String| Change { field: name.clone(), before: value(before, name), after: value(after, name) };
    names.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

impl Change {
    /// Without personal data.
    fn masked(self) -> Self {
        let mask = |value: Value| match (self.field.as_str(), &value) {
            (_, Value::Null) | ("external_client_id" | "send_at", _) => value,
            ("client_phone", Value::String(phone)) => output::mask_phone(phone).into(),
            (_, Value::String(text)) => hidden_text(text).into(),
            _ => "(hidden)".into(),
        };
        Self { before: mask(self.before), after: mask(self.after), field: self.field }
    }
}

impl Summary {
    fn print(&self, form: Output) {
        if form == Output::Json {
            return output::json(self);
        }
        output::line(format_args!("letter {}", self.place));
        for Change { field, before, after } in &self.changes {
            output::line(format_args!("- {}: {}", output::escape(field), output::escape(&before.to_string())));
            output::line(format_args!("+ {}: {}", output::escape(field), output::escape(&after.to_string())));
        }
        match &self.new_place {
            Some(place) => {
                output::line(format_args!("edited; it is now {place}, and keeps the message as it came"));
                output::line(format_args!("send it again with: weir dlq replay --entry {place}"));
            }
            None => output::line("dry run: nothing was changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> DeadLetter {
        let envelope = r#"{"src":"messenger","id":"1a","client":"c","phone":"+79194961182","text":"hi","sent":1640995200,"extra":{"lang":"ru","n":1234567890123456789012},"trace":"t"}"#;
        DeadLetter { envelope: envelope.into(), ..DeadLetter::default() }
    }

    fn edit(fields: &[&str]) -> Result<Vec<u8>> {
        let letter = letter();
        let message = message(&letter)?;
        let fields: Vec<_> = fields.iter().map(|field| (*field).to_owned()).collect();
        validate(&message, &with_fields(&external(&message)?, &fields)?, 1_700_000_000)
    }

    #[test]
    fn only_what_was_named_changes() {
        let envelope = edit(&["message_text=a=b", "client_phone=+7 (919) 496-11-83"]).unwrap();
        let message: Message<'_> = serde_json::from_slice(&envelope).unwrap();
        assert_eq!((&*message.message_text, &*message.client_phone), ("a=b", "+79194961183"));
        assert_eq!(
            (&*message.source, &*message.external_message_id, message.send_at),
            ("messenger", "1a", 1_640_995_200)
        );
        assert_eq!(
            (message.extra.unwrap().get(), &*message.traceparent),
            (r#"{"lang":"ru","n":1234567890123456789012}"#, "t")
        );
    }

    #[test]
    fn a_wrong_value_is_refused_by_name() {
        for (field, reason) in [
            ("external_message_id=2", "same message"),
            ("source=max", "same message"),
            ("colour=red", "no such field"),
            ("client_phone", "NAME=VALUE"),
            ("client_phone=+7", "client_phone must be E.164"),
            ("message_text=", "message_text must have"),
            ("send_at=tomorrow", "send_at must be whole Unix seconds"),
            ("send_at=1", "send_at must be between"),
        ] {
            let error = edit(&[field]).unwrap_err().to_string();
            assert!(error.contains(reason), "{field}: {error}");
        }
    }

    #[test]
    fn a_difference_shows_no_personal_data() {
        let change = |field: &str, before: &str, after: &str| {
            Change { field: field.into(), before: before.into(), after: after.into() }.masked()
        };
        assert_eq!(change("message_text", "hi", "hello").after, Value::from("(5 characters)"));
        assert_eq!(change("client_phone", "+79194961182", "+79194961183").before, Value::from("…1182"));
        assert_eq!(change("external_client_id", "a", "b").after, Value::from("b"));
    }
}
