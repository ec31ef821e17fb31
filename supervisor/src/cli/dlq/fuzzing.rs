//! What the fuzz targets call: the options of a command line, and letters that they are held against.

use clap::Parser;
use weir_core::dead_letter::DeadLetter;
use weir_core::queue::letters::Shelf;

use super::filter::Filter;
use super::record;
use crate::output;
use crate::supervise::fleet::Range;

/// The options of a command line.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    filter: Filter,
}

/// Reads a line of words as the filters of `weir dlq`, and holds letters against them.
pub fn filter(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (words, letter) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(range) = words.parse::<Range>() {
        assert!(range.min <= range.max && range.max <= 256);
    }
    if let Ok(letter) = record::read(letter) {
        let line = record::write(Shelf::Dead, &letter).expect("a letter is always JSON");
        assert_eq!(line, output::inert(&line));
        assert_eq!(record::read(&line).expect("what was written is read").fields(), letter.fields());
    }
    let Ok(Line { filter }) = Line::try_parse_from(std::iter::once("weir").chain(words.split(' '))) else { return };
    let lines: Vec<&str> = letter.split('\n').collect();
    let field = |at: usize| lines.get(at).copied().unwrap_or_default();
    let letter = DeadLetter {
        entry: field(0).to_owned(),
        origin: field(1).to_owned(),
        error: field(2).to_owned(),
        source: field(3).to_owned(),
        external_message_id: field(4).to_owned(),
        envelope: field(5).into(),
        ..DeadLetter::default()
    };
    let _ = (filter.matches(&letter, u64::MAX / 2), filter.must_select(false, "purge"));
    assert!(output::escape(&output::time(letter.died_ms())).ends_with('Z'));
}
