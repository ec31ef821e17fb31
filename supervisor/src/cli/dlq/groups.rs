//! Letters that died of the same thing, counted together.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use weir_core::dead_letter::DeadLetter;

use super::filter::signature_hash;
use super::place::Place;
use crate::cli::Output;
use crate::output;

/// Letters of one error signature.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Group {
    hash: String,
    signature: String,
    count: u64,
    /// Part of all letters that were counted, from 0 to 1.
    share: f64,
    sources: BTreeSet<String>,
    first_ms: u64,
    last_ms: u64,
    example: String,
}

/// All letters that were counted.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_signature: BTreeMap<String, Group>,
    total: u64,
}

impl Groups {
    pub(super) fn add(&mut self, letter: &DeadLetter) {
        self.total += 1;
        let signature = letter.signature();
        let group = self.by_signature.entry(signature).or_insert_with_key(|signature| Group {
            hash: signature_hash(signature),
            signature: signature.clone(),
            count: 0,
            share: 0.0,
            sources: BTreeSet::new(),
            first_ms: u64::MAX,
            last_ms: 0,
            example: String::new(),
        });
        group.count += 1;
        group.sources.insert(letter.source.clone());
        group.first_ms = group.first_ms.min(letter.died_ms());
        if letter.died_ms() >= group.last_ms {
            group.last_ms = letter.died_ms();
            group.example = Place::of(letter).to_string();
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The largest first.
    pub(super) fn sorted(self) -> Vec<Group> {
        let total = self.total.max(1);
        let mut groups: Vec<_> = self.by_signature.into_values().collect();
        for group in &mut groups {
            group.share = (10_000.0 * group.count as f64 / total as f64).round() / 10_000.0;
        }
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.signature.cmp(&b.signature)));
        groups
    }
}

/// Prints groups, the largest first.
pub(super) fn print(groups: &[Group]) {
    let heading = ["count", "share", "hash", "signature", "sources", "first seen", "last seen", "example"];
    output::rows(Output::Table, &heading, groups, |group| {
        vec![
            group.count.to_string(),
            format!("{:.1} %", 100.0 * group.share),
            group.hash.clone(),
            super::render::shorten(&group.signature, 80),
            named(&group.sources),
            output::time(group.first_ms),
            output::time(group.last_ms),
            group.example.clone(),
        ]
    });
}

fn named(sources: &BTreeSet<String>) -> String {
    let names: Vec<_> = sources.iter().map(|name| if name.is_empty() { "?" } else { name }).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(entry: &str, class: &str, error: &str) -> DeadLetter {
        DeadLetter {
            entry: entry.into(),
            class: class.into(),
            error: error.into(),
            source: "messenger".into(),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn groups_count_letters_of_one_signature_the_largest_first() {
        let mut groups = Groups::default();
        for letter in [
            letter("10-0", "decode", ""),
            letter("30-0", "data", "row 7"),
            letter("20-1", "data", "row 12"),
            letter("40-0", "data", "row 9"),
        ] {
            groups.add(&letter);
        }
        assert_eq!(groups.total(), 4);
        let sorted = groups.sorted();
        let seen: Vec<_> =
            sorted.iter().map(|g| (g.signature.as_str(), g.count, g.share, g.first_ms, g.last_ms)).collect();
        assert_eq!(seen, [("data: row #", 3, 0.75, 20, 40), ("decode", 1, 0.25, 10, 10)]);
        assert_eq!(sorted[0].example, "0/40-0");
    }
}
