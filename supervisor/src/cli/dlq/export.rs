//! `weir dlq export`.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use weir_core::queue::Queue;

use super::filter::{Filter, Selection};
use super::record;
use super::scan::Order;
use crate::Ending;
use crate::cli::Output;
use crate::context::Context;
use crate::output;

/// Write dead letters to a file, one JSON object a line
///
/// The file holds the messages whole, phones and texts included: only its owner can read it. The letters stay where
/// they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dlq export letters.ndjson
  weir dlq export --class conflict - | gzip > conflicts.ndjson.gz")]
pub(super) struct Export {
    /// File to make, or - for standard output
    file: PathBuf,
    #[command(flatten)]
    filter: Filter,
}

impl Export {
    pub(super) async fn run(self, context: &Context) -> Result<Ending> {
        let queue = super::open_queue(context).await?;
        let selection = Selection::new(&self.filter, &queue).await?;
        if self.file == Path::new("-") {
            let count = match write_letters(&queue, &selection, &mut io::stdout().lock()).await {
                Err(error) if is_closed_pipe(&error) => return Ok(Ending::Done),
                result => result?,
            };
            output::remark(format_args!("{} exported.", output::counted(count, self.filter.noun())));
            return Ok(Ending::Done);
        }
        let count = to_file(&queue, &selection, &self.file).await?;
        let file = self.file.display().to_string();
        match context.output {
            Output::Json => output::json(&serde_json::json!({ "exported": count, "file": file })),
            Output::Table => {
                output::line(format_args!("{} exported to {file}", output::counted(count, self.filter.noun())));
            }
        }
        Ok(Ending::Done)
    }
}

/// Writes the selected letters to a new file, which is there only once it is whole and on disk.
pub(super) async fn to_file(queue: &Queue, selection: &Selection, file: &Path) -> Result<u64> {
    if file.exists() {
        bail!("{} exists already: name another file", file.display());
    }
    let mut draft = file.as_os_str().to_owned();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    let written = tokio::select! {
        written = write_draft(queue, selection, &draft) => written,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted: {} was not made", file.display())),
    };
    let result = written.and_then(|count| {
        // Unlike a rename, a link never replaces a file that came into being meanwhile.
        fs::hard_link(&draft, file).with_context(|| format!("{} cannot be made", file.display()))?;
        Ok(count)
    });
    drop(fs::remove_file(&draft));
    result
}

async fn write_draft(queue: &Queue, selection: &Selection, draft: &Path) -> Result<u64> {
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft);
    let file = open.with_context(|| format!("{} cannot be made", draft.display()))?;
    let mut writer = BufWriter::new(file);
    let count = write_letters(queue, selection, &mut writer).await?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all().with_context(|| format!("{} cannot be brought to disk", draft.display()))?;
    Ok(count)
}

async fn write_letters(queue: &Queue, selection: &Selection, to: &mut impl Write) -> Result<u64> {
    let mut scan = selection.scan(queue, Order::OldestFirst);
    let mut count = 0;
    while let Some(letter) = scan.next().await? {
        writeln!(to, "{}", record::write(selection.shelf(), &letter)?)?;
        count += 1;
    }
    to.flush()?;
    Ok(count)
}

/// Whoever reads our output has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
