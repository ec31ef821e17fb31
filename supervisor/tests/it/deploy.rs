//! The examples of `deploy/` against the settings that the binary knows.

use std::fs;
use std::process::Command;

use weir_stack::testing::{Scratch, eventually, scratch};

use crate::support::{PATIENCE, WEIR, clean};

fn example(name: &str) -> String {
    let path = format!("{}/../deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).expect("an example")
}

/// Has `weir` read a file: every command reads all settings first, and this one does nothing else that could fail.
fn mistakes(dir: &Scratch, text: &str, env: &[(&str, &str)]) -> Option<String> {
    let file = dir.path().join("weir.toml");
    fs::write(&file, text).expect("a file");
    let mut command = Command::new(WEIR);
    clean(&mut command).arg("--config").arg(&file).args(["completions", "bash"]).current_dir(dir.path());
    let output = command.envs(env.iter().copied()).output().expect("weir runs");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A setting or table that is shown without being set: `#name = …`, where prose has a space after the `#`.
fn is_shown(line: &str) -> bool {
    line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
}

#[test]
fn the_example_is_valid_as_it_is() {
    assert_eq!(mistakes(&scratch(), &example("weir.toml.example"), &[]), None);
}

#[test]
fn every_setting_that_the_example_only_shows_is_known() {
    let dir = scratch();
    let text = example("weir.toml.example");
    let (before, sources) = text.split_once("#[[source]]").expect("a source");
    let lines: Vec<&str> = before.lines().collect();
    for (place, line) in lines.iter().enumerate().filter(|(_, line)| is_shown(line)) {
        let mut set = lines.clone();
        set[place] = &line[1..];
        assert_eq!(mistakes(&dir, &set.join("\n"), &[]), None, "{line}");
    }
    // The lines of a source belong together.
    let sources = sources.lines().map(|line| if is_shown(line) { &line[1..] } else { line });
    let set = format!("{before}[[source]]\n{}\n", sources.collect::<Vec<_>>().join("\n"));
    assert_eq!(mistakes(&dir, &set, &[]), None);
}

#[test]
fn a_name_that_is_unknown_would_be_noticed() {
    let text = example("weir.toml.example").replace("partitions =", "partition =");
    let mistakes = mistakes(&scratch(), &text, &[]).expect("a mistake");
    assert!(mistakes.contains("redis.partition is no setting"), "{mistakes}");
}

#[test]
fn the_environment_file_is_valid() {
    let text = example("weir.env.example");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs: Vec<_> = lines.map(|line| line.split_once('=').expect("NAME=value")).collect();
    let settings: Vec<_> = pairs.iter().copied().filter(|(name, _)| *name != "WEIR_CONFIG").collect();
    assert!(settings.len() > 3);
    // Together with the file that it names, as they are deployed.
    assert_eq!(mistakes(&scratch(), &example("weir.toml.example"), &settings), None);
}

#[tokio::test]
async fn the_sentinels_file_is_valid_and_the_url_in_it_too() {
    let text = example("sentinel.conf.example");
    let url = text.lines().find_map(|line| line.strip_prefix("#   WEIR_REDIS_URL=")).expect("a URL");
    weir_core::queue::Queue::new(&weir_core::secret::SecretUrl::new(url), 1).expect("a URL of sentinels");

    let (dir, port) = (scratch(), weir_stack::free_port().expect("a port"));
    let text = text.replace("dir /tmp", &format!("dir {}", dir.path().display()));
    let file = dir.path().join("sentinel.conf");
    fs::write(&file, text.replace("port 26379", &format!("port {port}"))).expect("a file");
    let log = fs::File::create(dir.path().join("log")).expect("a log");
    let mut command = weir_stack::tied_command("redis-server".as_ref(), "KILL").expect("setpriv");
    command.arg(&file).arg("--sentinel").stdout(log);
    let sentinel = weir_stack::Process::spawn(command).expect("redis-server (apt-get install redis-server)");
    eventually("the sentinel watches", PATIENCE, async || {
        let log = fs::read_to_string(dir.path().join("log")).expect("a log");
        assert!(sentinel.exited().is_none(), "{log}");
        log.contains("+monitor master mymaster 10.0.0.1 6379 quorum 2")
    })
    .await;
}
