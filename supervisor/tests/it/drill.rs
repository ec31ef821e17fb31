//! `weir drill`: green on what we ship, red on every promise that is broken on purpose.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir_stack::testing::scratch;

use crate::support::{Ended, WEIR, assert_help, clean};

/// Longer than any of these drills takes, even on a busy machine.
const DRILL_PATIENCE: Duration = Duration::from_secs(400);

async fn drill(arguments: &[&str], planted: Option<&str>) -> Ended {
    let folder = scratch();
    let mut command = Command::new(WEIR);
    clean(&mut command).arg("drill").args(arguments).current_dir(folder.path()).stdin(Stdio::null());
    command.env("TMPDIR", folder.path()).envs(planted.map(|name| ("WEIR_PLANTED", name)));
    let mut command = tokio::process::Command::from(command);
    let ended = tokio::time::timeout(DRILL_PATIENCE, command.kill_on_drop(true).output()).await;
    ended.expect("the drill ends").expect("the drill runs").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_drill_over_all_parts_is_green() {
    let folder = scratch();
    let (keep, page) = (folder.path().join("kept"), folder.path().join("drill.html"));
    let (keep, page) = (keep.to_str().expect("a path"), page.to_str().expect("a path"));
    let faults = "gateway-kill,worker-kill,redis-kill,postgres-kill,net-redis-swallow,net-postgres-swallow";
    let common = ["--seed", "7", "--minutes", "0.4", "--rate", "500", "--output", "json"];
    let arguments = [&common[..], &["--faults", faults, "--keep", keep, "--html", page]].concat();
    let ended = drill(&arguments, None).await;
    let report = ended.json();
    assert_eq!((ended.code, &report["green"]), (0, &Value::Bool(true)), "{ended:#?}");
    let verdict = &report["verdict"];
    let number = |name: &str| verdict[name].as_u64().unwrap_or_else(|| panic!("{name} in {verdict}"));
    assert!(number("acknowledged") > 1000, "{verdict}");
    let (there, acknowledged) = (number("rows") + number("silent") + number("dead"), number("acknowledged"));
    assert!((acknowledged..=acknowledged + number("unknown")).contains(&there), "{verdict}");
    assert!(number("poison") > 0 && number("dead") >= number("poison"), "{verdict}");
    assert!(number("events") > number("silent") && number("silent") > 20 && number("people") > 10, "{verdict}");
    assert_eq!(report["seed"], 7);
    assert!(report["kills"].as_u64() > Some(0) && report["loss_per_kill_at_most"].as_f64() > Some(0.0), "{report}");
    assert!(report["slices"].as_array().is_some_and(|slices| slices.len() > 20), "a timeline");
    let html = std::fs::read_to_string(page).expect("a page");
    assert!(html.contains("<svg") && html.contains("GREEN"), "{html}");
    for file in ["report.html", "report.json", "ledger.log", "gateway-0.log", "worker-1.log"] {
        let length =
            std::fs::metadata(format!("{keep}/{file}")).unwrap_or_else(|error| panic!("{file}: {error}")).len();
        assert!(length > 0, "{file} is empty");
    }
}

#[tokio::test]
async fn every_fault_is_listed_with_what_it_does() {
    let table = drill(&["--list"], None).await.code(0).stdout;
    let json = drill(&["--list", "--output", "json"], None).await.code(0).json();
    let faults = json.as_array().expect("a list");
    assert!(faults.len() > 25, "{json}");
    for fault in faults {
        let (name, about) = (fault["fault"].as_str().expect("a name"), fault["about"].as_str().expect("a sentence"));
        assert!(table.contains(name) && table.contains(about), "{fault}");
    }
}

#[tokio::test]
async fn what_cannot_be_drilled_is_named() {
    drill(&["--faults", "redis,tea"], None).await.code(1).says(&["\"tea\"", "weir drill --list"]);
    drill(&["--minutes", "-1"], None).await.code(2);
    drill(&["--keep", "/"], None).await.code(1).says(&["a folder that is not there yet"]);
}

#[test]
fn help_of_drill_is_as_it_was() {
    assert_help!("drill");
}

#[test]
fn nothing_that_is_shipped_enables_planted_faults() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for manifest in ["supervisor", "gateway", "worker", "shared/core"] {
        let text = std::fs::read_to_string(format!("{root}/{manifest}/Cargo.toml")).expect("a manifest");
        let features = text.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("features");
        assert!(!features.contains("default"), "{manifest} has default features: {features}");
    }
    for file in ["deploy/Dockerfile", "Makefile"] {
        let text = std::fs::read_to_string(format!("{root}/{file}")).expect("a file");
        let builds = text.lines().filter(|line| line.contains("cargo build") || line.contains("cargo run"));
        let enabling: Vec<&str> = builds.filter(|line| line.contains("features")).collect();
        assert!(enabling.is_empty(), "{file}: {enabling:?}");
    }
}

/// A zero is worth something only if the judge can turn red. These need a build that no release is:
/// `cargo test --package weir --features planted-faults`.
#[cfg(feature = "planted-faults")]
mod planted {
    use super::drill;

    /// Drills a promise that is broken on purpose; the drill has to end red and to say `finding`.
    async fn is_found(planted: &str, faults: &str, minutes: &str, finding: &str) {
        let common = ["--seed", "3", "--rate", "2000", "--patience", "20", "--output", "json"];
        let arguments = [&common[..], &["--faults", faults, "--minutes", minutes]].concat();
        let ended = drill(&arguments, Some(planted)).await.code(3);
        let findings = ended.json()["findings"].to_string();
        assert!(findings.contains(finding), "{finding:?} is not in {findings}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_before_the_flush_is_found() {
        is_found("answer-before-flush", "redis-kill", "0.2", "acknowledged messages are lost").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_ack_before_the_commit_is_found() {
        is_found("ack-before-commit", "worker-kill", "0.2", "acknowledged messages are lost").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_worker_that_nobody_takes_over_from_is_found() {
        is_found("no-reclaim", "worker-kill,worker-vanish", "0.1", "still in flight").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_id_that_is_remembered_before_its_message_is_there_is_found() {
        is_found("set-before-xadd", "redis-kill", "0.3", "acknowledged messages are lost").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_move_that_is_not_fenced_is_found() {
        is_found("unfenced-move", "worker-freeze", "0.4", "there more than once").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_outage_that_burns_attempts_is_found() {
        is_found("outage-burns-attempts", "postgres-kill", "0.3", "nothing is wrong with").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_older_event_that_wins_because_it_is_read_later_is_found() {
        is_found("arrival-counts", "worker-vanish,worker-freeze", "0.3", "last acknowledged edit").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_planted_fault_the_same_drills_are_green() {
        let faults = "redis-kill,worker-kill,worker-vanish,worker-freeze,postgres-kill";
        let arguments = ["--seed", "3", "--rate", "2000", "--minutes", "0.4", "--faults", faults];
        drill(&arguments, None).await.code(0).says(&["GREEN"]);
    }
}
