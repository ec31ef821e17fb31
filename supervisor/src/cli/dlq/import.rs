//! `weir dlq import`.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead, BufReader, Cursor, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use weir_core::dead_letter::DeadLetter;
use weir_core::message::MessageKey;
use weir_core::queue::Queue;
use weir_core::queue::letters::Author;

use super::filter::{Filter, Selection};
use super::scan::Order;
use super::{author, record};
use crate::Ending;
use crate::cli::Output;
use crate::cli::consent::{self, Preview};
use crate::context::Context;
use crate::output;

/// Letters, and bytes of letters, in one call: Redis does nothing else meanwhile.
const CHUNK: usize = 100;
const CHUNK_BYTES: usize = 1 << 20;

/// Mistakes shown at once.
const SHOWN: usize = 20;

/// Put exported dead letters back
///
/// Checks every line before the first letter is added. A letter that is among the dead ones already is left out, so
/// that the same file can be imported again. Parked letters come back as dead ones.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq import letters.ndjson --dry-run
  weir dlq import letters.ndjson --reason 'back from the incident of May 3' --yes
  zcat letters.ndjson.gz | weir dlq import - --yes")]
pub(super) struct Import {
    /// File that `weir dlq export` wrote, or - for standard input
    file: PathBuf,
    /// Only check the file and count
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Why, for the audit stream
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What became of the lines.
#[derive(Debug, Default, Serialize)]
struct Counts {
    lines: u64,
    imported: u64,
    there_already: u64,
    dry_run: bool,
}

/// The lines, which can be read again.
enum Lines<'a> {
    File(&'a Path),
    Memory(Vec<u8>),
}

impl Import {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        let lines = Lines::open(&self.file)?;
        let queue = super::open_queue(context).await?;
        check(&lines, queue.partitions())?;
        let mut known = known(&queue).await?;
        let mut counts = count(&lines, &queue, &known)?;
        if self.dry_run {
            counts.dry_run = true;
        } else if counts.imported > 0 {
            let question = format!("Import {}?", output::counted(counts.imported, "dead letter"));
            consent::ask(&question, self.yes, Preview::DryRun)?;
            queue.prepare().await?;
            let author = author(self.reason.as_deref());
            counts.imported = import(&lines, &queue, &author, &mut known).await?;
        }
        counts.print(context.output);
        Ok(Ending::Done)
    }
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        if path != Path::new("-") {
            return Ok(Self::File(path));
        }
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        Ok(Self::Memory(bytes))
    }

    /// Gives every line that is not empty, with its number.
    fn read(&self, mut take: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
        let reader: Box<dyn BufRead + '_> = match self {
            Self::File(path) => {
                let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
                Box::new(BufReader::new(file))
            }
            Self::Memory(bytes) => Box::new(Cursor::new(bytes)),
        };
        for (index, line) in reader.lines().enumerate() {
            let line = line.with_context(|| format!("line {} cannot be read as text", index + 1))?;
            if !line.trim().is_empty() {
                take(index + 1, &line)?;
            }
        }
        Ok(())
    }

    fn letters(&self, partitions: u16, mut take: impl FnMut(DeadLetter)) -> Result<()> {
        self.read(|number, line| {
            let letter = read(line, partitions).map_err(|error| anyhow::anyhow!("line {number}: {error}"))?;
            take(letter);
            Ok(())
        })
    }
}

/// The letter of a line, in the partition where it belongs in this queue.
fn read(line: &str, partitions: u16) -> Result<DeadLetter, String> {
    let letter = record::read(line)?;
    let partition = if letter.external_message_id.is_empty() {
        letter.partition
    } else {
        MessageKey::new(&letter.source, &letter.external_message_id).partition(partitions)
    };
    if partition >= partitions {
        return Err(format!("partition {partition} does not exist here, they are 0 to {}", partitions - 1));
    }
    Ok(DeadLetter { partition, ..letter })
}

/// Refuses the file when a line is wrong, naming what is.
fn check(lines: &Lines<'_>, partitions: u16) -> Result<()> {
    let (mut mistakes, mut more) = (Vec::new(), 0);
    lines.read(|number, line| {
        match read(line, partitions) {
            Ok(_) => {}
            Err(error) if mistakes.len() < SHOWN => mistakes.push(format!("line {number}: {error}")),
            Err(_) => more += 1,
        }
        Ok(())
    })?;
    if mistakes.is_empty() {
        return Ok(());
    }
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    bail!("nothing was imported, the file has mistakes:\n  {}{more}", mistakes.join("\n  "))
}

/// What makes a letter the same: where its message was accepted, and the envelope that came.
type Identity = (u16, String, u64);

fn identity(letter: &DeadLetter) -> Identity {
    let came = if letter.original.is_empty() { &letter.envelope } else { &letter.original };
    let mut hasher = DefaultHasher::new();
    came.hash(&mut hasher);
    (letter.partition, letter.origin.clone(), hasher.finish())
}

/// The letters that are there.
async fn known(queue: &Queue) -> Result<HashSet<Identity>> {
    let selection = Selection::new(&Filter::default(), queue).await?;
    let mut scan = selection.scan(queue, Order::OldestFirst);
    let mut known = HashSet::new();
    while let Some(letter) = scan.next().await? {
        known.insert(identity(&letter));
    }
    Ok(known)
}

/// What an import would do.
fn count(lines: &Lines<'_>, queue: &Queue, known: &HashSet<Identity>) -> Result<Counts> {
    let (mut counts, mut fresh) = (Counts::default(), HashSet::new());
    lines.letters(queue.partitions(), |letter| {
        let identity = identity(&letter);
        let is_new = !known.contains(&identity) && fresh.insert(identity);
        counts.lines += 1;
        *(if is_new { &mut counts.imported } else { &mut counts.there_already }) += 1;
    })?;
    Ok(counts)
}

async fn import(lines: &Lines<'_>, queue: &Queue, author: &Author, known: &mut HashSet<Identity>) -> Result<u64> {
    let mut chunks: BTreeMap<u16, Vec<Vec<DeadLetter>>> = BTreeMap::new();
    lines.letters(queue.partitions(), |letter| {
        if known.insert(identity(&letter)) {
            push(chunks.entry(letter.partition).or_default(), letter);
        }
    })?;
    let mut imported = 0;
    for (partition, chunks) in chunks {
        for chunk in chunks {
            imported += queue.import(partition, author, &chunk).await.with_context(|| {
                format!("{imported} letters were imported, then it failed; import the file again for the rest")
            })?;
        }
    }
    Ok(imported)
}

fn push(chunks: &mut Vec<Vec<DeadLetter>>, letter: DeadLetter) {
    let size = |letter: &DeadLetter| letter.envelope.len() + letter.original.len() + letter.error.len();
    let has_room = |chunk: &Vec<DeadLetter>| {
        chunk.len() < CHUNK && chunk.iter().map(size).sum::<usize>() + size(&letter) <= CHUNK_BYTES
    };
    match chunks.last_mut().filter(|chunk| has_room(chunk)) {
        Some(chunk) => chunk.push(letter),
        None => chunks.push(vec![letter]),
    }
}

impl Counts {
    fn print(&self, form: Output) {
        let verb = if self.dry_run { "would be imported" } else { "imported" };
        let lines = [
            ("lines", self.lines.to_string()),
            (verb, self.imported.to_string()),
            ("there already", self.there_already.to_string()),
        ];
        output::record(form, self, &lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(origin: &str, envelope: &str) -> DeadLetter {
        DeadLetter { origin: origin.into(), envelope: envelope.into(), ..DeadLetter::default() }
    }

    #[test]
    fn an_edited_letter_is_still_the_same() {
        let edited = DeadLetter { original: "a".into(), ..letter("1-1", "b") };
        assert_eq!(identity(&letter("1-1", "a")), identity(&edited));
        assert_ne!(identity(&letter("1-1", "a")), identity(&letter("1-1", "b")));
        assert_ne!(identity(&letter("1-1", "a")), identity(&letter("1-2", "a")));
    }

    #[test]
    fn a_chunk_is_bounded_in_letters_and_in_bytes() {
        let mut chunks = Vec::new();
        for _ in 0..CHUNK + 1 {
            push(&mut chunks, letter("1-1", "a"));
        }
        let large = "x".repeat(CHUNK_BYTES);
        push(&mut chunks, letter("1-1", &large));
        push(&mut chunks, letter("1-1", "a"));
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [100, 1, 1, 1]);
    }
}
