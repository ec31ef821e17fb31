//! `docs/FAULTS.md` is whole, and every name in it exists.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use weir_core::planted::Planted;

use crate::support::{WEIR, clean};

/// Rows of the table: the faults that the system has been thought through for.
const FAULTS: usize = 56;

/// How the table calls the crates, and where they are.
const CRATES: [(&str, &str); 6] = [
    ("gateway", "gateway"),
    ("worker", "worker"),
    ("supervisor", "supervisor"),
    ("core", "shared/core"),
    ("store", "shared/store"),
    ("stack", "shared/stack"),
];

fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

fn page() -> String {
    fs::read_to_string(repository("docs/FAULTS.md")).expect("the page")
}

/// The cells of every numbered row.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    page.lines().map(cells).filter(|cells| cells[0].parse::<usize>().is_ok()).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a function with this name is a test of this file.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| line.trim_start_matches("async ").starts_with(&format!("fn {name}(")))
    else {
        return false;
    };
    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    attributes.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

/// Why a name of a test is wrong.
fn mistake(name: &str) -> Option<String> {
    let (krate, path) = name.split_once(' ')?;
    let (module, test) = path.split_once("::")?;
    let Some((_, folder)) = CRATES.iter().find(|(known, _)| *known == krate) else {
        return Some(format!("{krate} is no crate"));
    };
    let file = format!("{folder}/tests/it/{module}.rs");
    match fs::read_to_string(repository(&file)) {
        Err(_) => Some(format!("there is no {file}")),
        Ok(source) if !is_test(&source, test) => Some(format!("{file} has no test {test}")),
        Ok(_) => None,
    }
}

/// The names of the drill's faults, as `weir drill --list` gives them.
fn drill_faults() -> Vec<String> {
    let mut command = Command::new(WEIR);
    let output = clean(&mut command).args(["drill", "--list", "--output", "json"]).output().expect("weir runs");
    assert!(output.status.success(), "{output:?}");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a list");
    list.as_array().expect("a list").iter().map(|fault| fault["fault"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn every_fault_has_its_row_in_order_and_something_that_shows_it_or_a_reason() {
    let rows = rows(&page());
    let numbers: Vec<_> = rows.iter().map(|cells| cells[0].parse::<usize>().unwrap()).collect();
    assert_eq!(numbers, (1..=FAULTS).collect::<Vec<_>>());
    for cells in &rows {
        assert_eq!(cells.len(), 5, "{cells:?}");
        let (expected, shown) = (&cells[2], &cells[3]);
        let excuse = ["does not apply: ", "not shown yet: "].iter().find_map(|word| shown.strip_prefix(word));
        let excused = excuse.is_some_and(|reason| !reason.is_empty());
        let names = quoted(shown).filter(|name| name.contains("::") || name.starts_with("drill ")).count();
        assert!(excused || (names > 0 && !expected.is_empty()), "row {}: nothing shows it", cells[0]);
        assert!(!cells[1].is_empty() && !cells[4].is_empty(), "row {}: an empty cell", cells[0]);
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let page = page();
    let named: Vec<_> = quoted(&page)
        .filter(|name| name.contains("::") && !name.starts_with("folder ") && !name.starts_with("cargo "))
        .collect();
    assert!(named.len() > FAULTS);
    let mistakes: Vec<_> = named.into_iter().filter_map(mistake).collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn every_fault_of_the_drill_has_its_row_and_the_other_way_round() {
    let known = drill_faults();
    let page = page();
    let rows = rows(&page);
    let mut named: Vec<_> =
        rows.iter().flat_map(|cells| quoted(&cells[3])).filter_map(|name| name.strip_prefix("drill ")).collect();
    named.sort_unstable();
    named.dedup();
    let unknown: Vec<_> = named.iter().filter(|name| !known.iter().any(|fault| fault == **name)).collect();
    assert!(unknown.is_empty(), "no faults of the drill: {unknown:?}; it knows {known:?}");
    let without: Vec<_> = known.iter().filter(|fault| !named.contains(&fault.as_str())).collect();
    assert!(without.is_empty(), "faults of the drill without a row: {without:?}");
}

#[test]
fn every_planted_fault_exists() {
    let page = page();
    let rows = rows(&page);
    for cells in rows.iter().filter(|cells| cells[4].starts_with("planted ")) {
        let planted = cells[4].split(';').next().unwrap_or_default();
        for name in quoted(planted) {
            assert!(Planted::ALL.iter().any(|known| known.name() == name), "row {}: {name}", cells[0]);
        }
    }
}

#[test]
fn a_name_that_does_not_exist_would_be_noticed() {
    assert_eq!(mistake("gateway outages::a_redis_that_was_just_killed_is_a_503"), None);
    for wrong in ["gateway outages::send", "gateway outages::nothing_like_it", "gateway nowhere::x", "nobody x::y"] {
        assert!(mistake(wrong).is_some(), "{wrong}");
    }
}
