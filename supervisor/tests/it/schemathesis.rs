//! Everything that has one address, against its own description, by a tool that makes up requests from it: right ones,
//! wrong ones, and chains of them.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use weir_stack::testing::{eventually, scratch};

use crate::http::{accepts, body, request};
use crate::support::{PATIENCE, Stack};

/// Made-up requests for each operation in each phase. More find more, and take longer.
const CASES: &str = "20";

/// Far longer than it takes; the first time the tool is installed as well.
const LIMIT: Duration = Duration::from_secs(600);

/// Limits of one client would tell nothing here.
const SOURCES: &str = "[[source]]\nname = \"messenger\"\nper_client = \"off\"\n";

/// What a description in OpenAPI cannot say.
const SETTINGS: &str = r#"
# Nobody can make up a place in a list; an empty one is the beginning. Wrong ones are made up all the same.
[parameters]
"query.cursor" = ""
"query.before" = ""

# That a period ends after it begins.
[[operations]]
include-path = ["/monitoring/webhook/stats", "/monitoring/cache-health"]
checks = { positive_data_acceptance = { expected-statuses = ["2xx", 422] } }

# A message that is not stored has no dialog: the tool then asks for the dialog `None`.
[[operations]]
include-operation-id = "messages_of_dialog"
checks = { positive_data_acceptance = { expected-statuses = ["2xx", 404, 422] } }

# To a description 42.0 is a whole number; here one is written without a point.
[[operations]]
include-path = ["/employees", "/employees/{id}", "/profiles/bulk", "/profiles/bulk-get"]
checks = { positive_data_acceptance = { expected-statuses = ["2xx", 404, 409, 422] } }

# The latest time that can be sent is a day ahead, which no description can hold.
[[operations]]
include-operation-id = "ingest_webhook"
checks = { positive_data_acceptance = { enabled = false } }

# What cannot be read is answered with 200 on purpose: its sender would repeat anything else for hours.
[[operations]]
include-operation-id = "ingest_max"
checks = { negative_data_rejection = { enabled = false } }
"#;

async fn run(mut command: tokio::process::Command) -> (bool, String) {
    command.kill_on_drop(true).stdin(Stdio::null());
    let ended = tokio::time::timeout(LIMIT, command.output()).await;
    let output = ended.expect("the tool ends").expect("the tool runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_the_description_can_lead_to_is_answered_against_it() {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/").join("schemathesis");
    let mut install =
        tokio::process::Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/schemathesis/install"));
    install.arg(&tools);
    let (is_there, text) = run(install).await;
    assert!(is_there, "schemathesis could not be installed: it comes from PyPI and needs python3 with venv: {text}");

    let mut stack = Stack::new().await;
    let file = stack.data().join("weir.toml");
    fs::write(&file, SOURCES).expect("settings");
    stack.set("WEIR_CONFIG", &file.display().to_string());
    let key = stack.run(&["key", "create", "--role", "admin", "a test"]).await.code(0).stdout;
    let (_gateway, port) = stack.start_gateway_with_api();
    accepts(port).await;
    stack.worker(&[]).await;
    // Something to find under the names that the examples have.
    for number in 0..60 {
        let sent = body(&format!("m-{number}"), "client-42", "text");
        assert_eq!(request(port, "POST", "/api/v1/webhook", &sent).await.expect("an answer").status, 202);
    }
    stack.drained().await;
    eventually("the API is well", PATIENCE, async || {
        request(port, "GET", "/health", "").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;

    let folder = scratch();
    let settings = folder.path().join("schemathesis.toml");
    fs::write(&settings, SETTINGS).expect("settings");
    let home = format!("http://127.0.0.1:{port}");
    let mut tool = tokio::process::Command::new(tools.join("bin/schemathesis"));
    // It keeps what it found for the next time.
    tool.current_dir(folder.path()).env("NO_COLOR", "1");
    tool.arg("--config-file").arg(&settings);
    tool.args(["run", &format!("{home}/openapi.json"), "--url", &home, "--continue-on-failure"]);
    tool.args(["--max-examples", CASES, "--seed", "1", "--generation-database", "none"]);
    tool.args(["--suppress-health-check", "all", "--header", &format!("Authorization: Bearer {}", key.trim_end())]);
    let (is_well, text) = run(tool).await;
    assert!(is_well, "{text}");
    // Whatever was taken in can be stored, or was a dead letter by right; nothing is lost on the way.
    stack.drained().await;
}
