//! The API against its own description, by a tool that makes up requests from it: right ones, wrong ones, and chains of them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use weir_store::Role;

use crate::planting::{accept, message, persist, row};
use crate::support::House;

/// Made-up requests for each operation in each phase. More find more, and take longer.
const CASES: &str = "25";

/// Far longer than it takes; installing the tool is part of it the first time.
const PATIENCE: Duration = Duration::from_secs(600);

async fn run(mut command: tokio::process::Command) -> (bool, String) {
    command.kill_on_drop(true).stdin(Stdio::null());
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended.expect("the tool ends").expect("the tool runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_the_description_can_lead_to_is_answered_against_it() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/").join("schemathesis");
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis");
    let mut install = tokio::process::Command::new(here.join("install"));
    install.arg(&folder);
    let (is_there, text) = run(install).await;
    assert!(is_there, "schemathesis could not be installed (PyPI): {text}");

    let house = House::new().await;
    let rows: Vec<_> = (0..200).map(|n| row("messenger", "client-42", "d", n, Some("+79991234567"))).collect();
    persist(&house.store, &rows).await;
    accept(&house.queue, &message("m-1")).await;
    let mut tool = tokio::process::Command::new(folder.join("bin/schemathesis"));
    tool.current_dir(folder).env("NO_COLOR", "1").env("HYPOTHESIS_STORAGE_DIRECTORY", "/nonexistent");
    tool.args(["run", &house.url("/openapi.json"), "--url", &house.url("")]);
    // What the gateway answers is not behind this address.
    tool.args(["--exclude-tag", "Ingest", "--checks", "all", "--continue-on-failure"]);
    tool.args([
        "--max-examples",
        CASES,
        "--seed",
        "1",
        "--generation-database",
        "none",
        "--suppress-health-check",
        "all",
    ]);
    tool.args(["--header", &format!("Authorization: Bearer {}", house.key(Role::Admin))]);
    let (is_well, text) = run(tool).await;
    assert!(is_well, "{text}");
}
