//! The alerts of `deploy/prometheus` under Prometheus' own tool.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rules() -> String {
    fs::read_to_string(root().join("deploy/prometheus/weir.rules.yml")).expect("the rules")
}

fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    let output = command.args(arguments).current_dir(root().join("deploy/prometheus")).output();
    let output = output.expect("promtool (apt-get install prometheus; `make test` installs it)");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}

/// The words of a text that begin so.
fn words<'t>(text: &'t str, beginning: &'t str) -> BTreeSet<&'t str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with(beginning)).collect()
}

/// Everything that the roles are built of.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(path).expect("a source"));
        }
    }
}

#[test]
fn prometheus_reads_the_rules() {
    promtool(&["check", "rules", "weir.rules.yml"]);
}

#[test]
fn each_rule_fires_when_it_should_and_is_quiet_when_all_is_well() {
    promtool(&["test", "rules", "weir.test.yml"]);
    let tests = fs::read_to_string(root().join("deploy/prometheus/weir.test.yml")).expect("the tests");
    let rules = rules();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 20, "{alerts:?}");
    for alert in alerts {
        for end in ["fires", "stays quiet"] {
            assert!(tests.contains(&format!("name: {alert} {end}\n")), "no test of {alert}: {end}");
        }
    }
}

#[test]
fn every_metric_of_the_rules_is_one_that_weir_has() {
    let mut code = String::new();
    for folder in ["gateway/src", "worker/src", "api/src", "shared/core/src"] {
        sources(&root().join(folder), &mut code);
    }
    let rules = rules();
    for metric in words(&rules, "weir_") {
        let name = format!("\"{}\"", metric.trim_end_matches("_bucket"));
        assert!(code.contains(&name), "{metric} is exported by nobody");
    }
}

#[test]
fn the_guide_says_what_to_do_about_every_alert() {
    let guide = fs::read_to_string(root().join("docs/MONITORING.md")).expect("the guide");
    for line in rules().lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            assert!(guide.contains(&format!("`{alert}`")), "docs/MONITORING.md has no word on {alert}");
        }
    }
}
